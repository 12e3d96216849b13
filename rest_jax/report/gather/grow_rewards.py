"""Rewards of D_g for a report, before and after filters.

A store is read shard by shard, so that a store of any size fits into memory.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np

from rest_jax.data import pair_store, sample_store
from rest_jax.filters import base as filters_base
from rest_jax.filters import for_all_sources
from rest_jax.report.gather import distributions
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import improve as improve_stage

# Maximum number of rows to apply filters to; whole shards, at least one.
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
    thresholds: thresholds that apply to all sources.
    config: settings of Improve steps, to count only rows that may be trained
      on; None to count all rows.
  """
  manifest = folder_lib.read_manifest(directory)

  def chunks() -> Iterator[np.ndarray]:
    for shard in range(len(manifest['shards'])):
      raw, rewards = sample_store.read_rewards(
        directory, reward_name, manifest['shards'], shard
      )
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
  """Applies the filter of each Improve step of one Grow step again.

  Args:
    improve_directories: folders of finished Improve steps by i.
    edges: edges of the bins.

  Returns:
    One entry per step, and a sentence that describes the rows.
  """
  store, raw, rewards, what = _some_shards(directory, reward_name)
  samples = improve_stage.samples_of(config, store, reward_name, raw, rewards)
  before = distributions.count_in(edges, rewards[samples.is_eligible])
  entries = []
  for improve_step, folder in sorted(improve_directories.items()):
    statistics = folder_lib.read_manifest(folder)['kept']
    try:
      rows = _filter(
        config.filter, (improve_step, grow_step), statistics, samples
      )
      after = distributions.count_in(edges, rewards[rows])
    except filters_base.EmptySelectionError:  # No kept row in these shards.
      after = np.zeros_like(before)
    entries.append(
      distributions.KeptDistribution(
        name=f'I={improve_step}, {config.filter.kind} '
        f'{config.filter.at(improve_step, grow_step):g}',
        edges=edges,
        before=before,
        after=after,
      )
    )
  return entries, what


def _filter(
  row_filter: filters_base.Filter,
  steps: tuple[int, int],
  statistics: dict[str, Any],
  samples: filters_base.Samples,
) -> np.ndarray:
  """Returns the rows that pass; a common threshold is that of the whole D_g."""
  threshold = statistics.get('threshold')
  if threshold is None:
    improve_step, grow_step = steps
    return row_filter.select(improve_step, samples, grow_step).rows
  whole = for_all_sources.Fixed(
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
  read = [
    sample_store.read_rewards(directory, reward_name, entries, shard)
    for shard in chosen
  ]
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
  """Opens some shards of a store."""
  some = [manifest['shards'][shard] for shard in shards]
  return sample_store.SampleStore(
    directory,
    {**manifest, 'shards': some},
    [sample_store.Shard(directory / entry['file']) for entry in some],
  )


def is_global(row_filter: filters_base.Filter) -> bool:
  """Whether a filter has one threshold for all sources."""
  return isinstance(
    row_filter, for_all_sources.Fixed | for_all_sources.Quantile
  )


def thresholds(
  row_filter: filters_base.Filter,
  improve_directories: dict[int, pathlib.Path],
  grow_step: int = 1,
) -> list[float]:
  """Returns thresholds of one Grow's Improve steps that apply to all sources.

  Args:
    improve_directories: folders of finished Improve steps by i.

  Returns:
    Thresholds of finished steps; for a fixed filter, also of later steps.
  """
  values = {
    folder_lib.read_manifest(folder)['kept'].get('threshold')
    for folder in improve_directories.values()
  }
  if isinstance(row_filter, for_all_sources.Fixed):
    values.update(row_filter.values_at(grow_step))
  return sorted(
    threshold
    for threshold in values
    # A threshold that keeps everything is outside the figure.
    if threshold is not None and _LOWEST_DRAWN < threshold < np.inf
  )
