"""What a report says of D_g: its rewards, and what filters keep of them.

A store is gone through shard by shard, so that one of any size fits.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np

from rest_jax.data import pair_store, sample_rewards, sample_store
from rest_jax.filters import base as filters_base
from rest_jax.filters import fixed
from rest_jax.report.gather import distributions
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import improve as improve_stage

# Rows to which the filters are applied again; whole shards, at least one.
_MAX_FILTERED_ROWS = 1_000_000
_LOWEST_DRAWN = -1e6


def distribution(
  directory: pathlib.Path,
  reward_name: str,
  thresholds: list[float],
  config: improve_stage.ImproveConfig | None = None,
) -> distributions.Distribution:
  """Counts the rewards of a finished store.

  Args:
    directory: of the store.
    reward_name: which rewards.
    thresholds: fixed thresholds, where there is one for all sources.
    config: counts the rows that these Improve steps may train on; None counts
      all rows.
  """
  manifest = folder_lib.read_manifest(directory)

  def chunks() -> Iterator[np.ndarray]:
    for shard in range(len(manifest['shards'])):
      raw, rewards = _rewards(directory, reward_name, manifest['shards'], shard)
      if config is not None:
        samples = improve_stage.samples_of(
          config,
          _opened(directory, manifest, [shard]),
          reward_name,
          raw,
          rewards,
          with_hashes=False,
        )
        rewards = rewards[samples.is_eligible]
      yield rewards

  return distributions.measure(chunks, thresholds)


def kept(
  config: improve_stage.ImproveConfig,
  *,
  grow_step: int = 1,
  directory: pathlib.Path,
  reward_name: str,
  improve_directories: dict[int, pathlib.Path],
  edges: np.ndarray,
) -> tuple[list[distributions.KeptDistribution], str]:
  """Applies the filter of each Improve step of one Grow once more.

  Args:
    config: of the Improve steps.
    grow_step: g, from 1.
    directory: of the store.
    reward_name: which rewards.
    improve_directories: finished Improve steps by i.
    edges: of the bins.

  Returns:
    An entry for each step, and which rows these are, a sentence.
  """
  store, raw, rewards, what = _some_shards(directory, reward_name)
  samples = improve_stage.samples_of(config, store, reward_name, raw, rewards)
  before = distributions.count_in(edges, rewards[samples.is_eligible])
  found = []
  for improve_step, folder in sorted(improve_directories.items()):
    statistics = folder_lib.read_manifest(folder)['kept']
    try:
      rows = _filter(
        config.filter, (improve_step, grow_step), statistics, samples
      )
      after = distributions.count_in(edges, rewards[rows])
    except filters_base.EmptySelectionError:  # None in these shards.
      after = np.zeros_like(before)
    found.append(
      distributions.KeptDistribution(
        name=f'I={improve_step}, {config.filter.kind} '
        f'{config.filter.at(improve_step, grow_step):g}',
        edges=edges,
        before=before,
        after=after,
      )
    )
  return found, what


def _filter(
  row_filter: filters_base.Filter,
  steps: tuple[int, int],
  statistics: dict[str, Any],
  samples: filters_base.Samples,
) -> np.ndarray:
  """Rows that pass; one threshold for all is that of the whole D_g."""
  threshold = statistics.get('threshold')
  if threshold is None:
    improve_step, grow_step = steps
    return row_filter.select(improve_step, samples, grow_step).rows
  whole = fixed.Fixed(
    values=(threshold,),
    deduplicate=row_filter.deduplicate,
    max_per_source=row_filter.max_per_source,
    min_advantage=row_filter.min_advantage,
  )
  return whole.select(1, samples).rows


def _some_shards(
  directory: pathlib.Path, reward_name: str
) -> tuple[sample_store.SampleStore, np.ndarray, np.ndarray, str]:
  """Opens whole shards, evenly spread, with raw and normalised rewards."""
  manifest = folder_lib.read_manifest(directory)
  entries = manifest['shards']
  longest = max(entry['rows'] for entry in entries)
  limit = max(_MAX_FILTERED_ROWS // longest, 1)
  chosen = pair_store.spread_rows(len(entries), limit).tolist()
  store = _opened(directory, manifest, chosen)
  read = [_rewards(directory, reward_name, entries, s) for s in chosen]
  what = f'All {len(store):,} rows.'
  if len(chosen) < len(entries):
    what = (
      f'{len(store):,} of {manifest["num_rows"]:,} rows: {len(chosen)} of '
      f'{len(entries)} shards, evenly spread.'
    )
  raw, rewards = (np.concatenate(side) for side in zip(*read, strict=True))
  return store, raw, rewards, what


def _opened(
  directory: pathlib.Path, manifest: dict[str, Any], shards: list[int]
) -> sample_store.SampleStore:
  """Some shards of a store."""
  some = [manifest['shards'][shard] for shard in shards]
  return sample_store.SampleStore(
    directory,
    {**manifest, 'shards': some},
    [sample_store.Shard(directory / entry['file']) for entry in some],
  )


def _rewards(
  directory: pathlib.Path,
  reward_name: str,
  entries: list[dict[str, Any]],
  shard: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Raw and normalised rewards of one shard."""
  return sample_rewards.read_rewards(
    sample_store.rewards_path(directory, reward_name, shard, len(entries)),
    rows=entries[shard]['rows'],
    samples_sha256=entries[shard]['sha256'],
  )


def is_global(row_filter: filters_base.Filter) -> bool:
  """Whether a filter has one threshold for all sources."""
  return isinstance(row_filter, fixed.Fixed | fixed.Quantile)


def thresholds(
  row_filter: filters_base.Filter,
  improve_directories: dict[int, pathlib.Path],
  grow_step: int = 1,
) -> list[float]:
  """The thresholds of one Grow's Improve steps, where each is one for all.

  Args:
    row_filter: F.
    improve_directories: finished Improve steps by i.
    grow_step: g, from 1.

  Returns:
    Of finished steps, and of a fixed filter those to come.
  """
  found = {
    folder_lib.read_manifest(folder)['kept'].get('threshold')
    for folder in improve_directories.values()
  }
  if isinstance(row_filter, fixed.Fixed):
    found.update(row_filter.values_at(grow_step))
  return sorted(
    threshold
    for threshold in found
    # A value that is meant to keep everything lies outside of any figure.
    if threshold is not None and _LOWEST_DRAWN < threshold < np.inf
  )
