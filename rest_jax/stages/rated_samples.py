"""Ratings of samples of the BC policy, from which a reward model learns.

The ratings of a task are of other systems, from good to hopeless. ReST asks a
reward which of one policy's own samples is better, and those are all of about
one quality: ratings of such samples teach what tells them apart.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

import numpy as np

from rest_jax import settings, types
from rest_jax.data import annotations, pair_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples, prepare
from rest_jax.storage import files, paths

_ITEMS = 'rated_samples.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedSamples:
  """Which samples are rated, and by whom.

  Attributes:
    decode: draws of the BC policy; distinct texts of a source are rated once.
    raters: who rate when asked to, such as `SyntheticRaters`; None for people:
      the stage then writes `to_rate.tsv` and goes on once `rated.tsv` lies
      beside it.
    num_sources: training sources that are sampled for, evenly spread.
    num_heldout_sources: validation sources that are sampled for, evenly spread,
      in turn for the splits dev and test of the ratings.
    weight: of such a rating, one of the task's being 1, beside the numbers of
      annotators; above 0.
  """

  decode: sampler_lib.DecodeConfig
  raters: annotations.Raters | None = None
  num_sources: int = 1_000
  num_heldout_sources: int = 200
  weight: float = 1.0

  def __post_init__(self):
    settings.at_least(self, 1, 'num_sources')
    settings.at_least(self, 2, 'num_heldout_sources')
    settings.positive(self, 'weight')
    if self.decode.temperature <= 0 or self.decode.num_samples_per_source < 2:
      raise ValueError(
        'decode must draw several samples per source, at a temperature above 0; '
        f'got {self.decode.num_samples_per_source} at '
        f'{self.decode.temperature}.'
      )
    if self.raters is not None and not isinstance(
      self.raters, annotations.Raters
    ):
      raise TypeError(
        'raters must be somebody who rates, such as SyntheticRaters, or None '
        f'for people; got {self.raters!r}.'
      )


def collect_ratings(
  config: RatedSamples,
  *,
  directory: pathlib.Path,
  policy: policy_lib.Policy,
  params: types.Params,
  data: prepare.PreparedData,
  known: Mapping[str, str],
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
) -> ratings_lib.Ratings:
  """Draws samples and has them rated; what is there is kept.

  Args:
    config: see `RatedSamples`.
    directory: the folder to write tables to.
    policy: the network.
    params: of the policy.
    data: the prepared data.
    known: the split of each source that is rated already, which it keeps.
    mesh_config: devices and rules.
    seed: of the draws.

  Returns:
    The ratings, with the splits train, dev and test.

  Raises:
    FileNotFoundError: if people have not rated yet; the message says what to
      do.
    ValueError: for ratings that cannot be used, naming the row.
  """
  # All processes draw together; one of them writes.
  is_drawn = processes.by_main('rated samples', (directory / _ITEMS).exists)
  if not is_drawn:
    sampler = draw_samples.policy_sampler(
      policy, config.decode, mesh_config, data
    )
    rows, known = [], dict(known)
    for split, count in (
      (prepare.TRAIN, config.num_sources),
      (prepare.VALIDATION, config.num_heldout_sources),
    ):
      drawn = _draw(sampler, params, data, split, count, known, seed)
      # No source is in two splits.
      known |= {row['source']: row['split'] for row in drawn}
      rows += drawn
    # In an order that does not tell raters which are of one source.
    order = np.random.default_rng((seed, 1)).permutation(len(rows))
    items = [
      {'id': f'bc-{number:06d}', **rows[place]}
      for number, place in enumerate(order, 1)
    ]
    processes.by_main(
      'draw rated samples', lambda: files.write_json(directory / _ITEMS, items)
    )

  def rate() -> None:
    annotations.collect(config.raters, _items(directory), directory)

  processes.by_main('rate samples', rate)
  rated = read(directory)
  if rated is None:  # For type checkers.
    raise FileNotFoundError(directory / _ITEMS)
  return dataclasses.replace(rated, weight=config.weight * rated.weight)


def read(directory: str | pathlib.Path) -> ratings_lib.Ratings | None:
  """Returns the ratings in a folder of stage `reward`; None without any."""
  path = paths.of(directory)
  if not (path / _ITEMS).exists():
    return None
  rated = annotations.read(path / annotations.RATED, _items(path))
  references = {
    row['source']: row['reference'] for row in files.read_json(path / _ITEMS)
  }
  return dataclasses.replace(
    rated, reference=[references[source] for source in rated.source]
  )


def _items(directory: pathlib.Path) -> list[annotations.Item]:
  return [
    annotations.Item(*(row[name] for name in annotations.Item._fields))
    for row in files.read_json(directory / _ITEMS)
  ]


def _draw(
  sampler: sampler_lib.Sampler,
  params: types.Params,
  data: prepare.PreparedData,
  split: str,
  count: int,
  known: Mapping[str, str],
  seed: int,
) -> list[dict[str, str]]:
  """The distinct samples of some sources of a split of the pairs."""
  pairs = data.pairs(split)
  splits = ('train',) if split == prepare.TRAIN else ('dev', 'test')
  found, number = [], 0
  for block in sampler.sample(
    params,
    pairs.source_tokens,
    pair_store.spread_rows(len(pairs), count),
    seed=seed,
    # Other draws than those of pre-training.
    grow_step=1,
  ):
    for row, tokens in zip(block.source_ids, block.tokens, strict=True):
      source = pairs.source_text(int(row))
      common = {
        'split': known.get(source) or splits[number % len(splits)],
        'source': source,
        'reference': pairs.reference_text(int(row)),
      }
      number += 1
      found += [
        {**common, 'hypothesis': text}
        for text in dict.fromkeys(data.vocabulary.decode_batch(tokens))
        if text.strip()
      ]
  return found
