"""Ratings of samples of BC, as training data of the reward model.

The ratings of a task are of other systems, from good to very bad. ReST needs a
reward that tells one policy's own samples apart, which are all of similar
quality. Ratings of such samples teach the reward model the difference.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

import numpy as np

from rest_jax import settings
from rest_jax.data import annotations, pair_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import task as task_lib
from rest_jax.parallel import processes
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples
from rest_jax.storage import files, paths

_ITEMS = 'rated_samples.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedSamples:
  """Settings of the ratings of samples.

  Attributes:
    decode: sampling settings of BC; equal texts of a source are rated once.
    raters: programs that rate, such as `SyntheticRaters`; None for people: the
      stage then writes `to_rate.tsv` and continues once `rated.tsv` exists
      beside it.
    num_sources: number of training sources to sample for, evenly spread.
    num_heldout_sources: number of validation sources to sample for, evenly
      spread, alternately for the splits dev and test of the ratings.
    weight: weight of such a rating relative to one of the task's with as many
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
    check_raters(self.raters)


def check_raters(raters: annotations.Raters | None) -> None:
  """Raises TypeError unless `raters` is None or has the methods of `Raters`."""
  if raters is not None and not isinstance(raters, annotations.Raters):
    raise TypeError(
      'raters must be an object that rates, such as SyntheticRaters, or None '
      f'for people; got {raters!r}.'
    )


def collect_ratings(
  config: RatedSamples,
  *,
  directory: pathlib.Path,
  loaded: draw_samples.LoadedPolicy,
  known: Mapping[str, str],
  seed: int,
) -> ratings_lib.Ratings:
  """Draws samples and has them rated, unless they exist already.

  Args:
    known: split of each source that is rated already; it keeps its split.

  Returns:
    The ratings, with the splits train, dev and test.

  Raises:
    FileNotFoundError: people have not rated yet; the message says what to do.
    ValueError: invalid ratings; the message names the row.
  """
  # All processes draw together; one of them writes.
  is_drawn = processes.by_main('rated samples', (directory / _ITEMS).exists)
  if not is_drawn:
    sampler = draw_samples.policy_sampler(
      loaded.network, config.decode, loaded.mesh_config, loaded.data
    )
    rows, known = [], dict(known)
    for split, count in (
      (task_lib.TRAIN, config.num_sources),
      (task_lib.VALIDATION, config.num_heldout_sources),
    ):
      drawn = _draw(sampler, loaded, split, count, known, seed)
      # No source is in two splits.
      known |= {row['source']: row['split'] for row in drawn}
      rows += drawn
    # A random order, which does not tell raters which samples share a source.
    order = np.random.default_rng((seed, 1)).permutation(len(rows))
    items = [
      {'id': f'bc-{number:06d}', **rows[index]}
      for number, index in enumerate(order, 1)
    ]
    processes.by_main(
      'draw rated samples', lambda: files.write_json(directory / _ITEMS, items)
    )

  def rate() -> None:
    annotations.collect(
      config.raters, annotations.Item.read_all(directory / _ITEMS), directory
    )

  processes.by_main('rate samples', rate)
  rated = read(directory)
  assert rated is not None  # The items were written above.
  return dataclasses.replace(rated, weight=config.weight * rated.weight)


def read(directory: str | pathlib.Path) -> ratings_lib.Ratings | None:
  """Returns the ratings in a folder of stage `reward`; None without any."""
  path = paths.of(directory)
  if not (path / _ITEMS).exists():
    return None
  rated = annotations.read(
    path / annotations.RATED, annotations.Item.read_all(path / _ITEMS)
  )
  references = {
    row['source']: row['reference'] for row in files.read_json(path / _ITEMS)
  }
  return dataclasses.replace(
    rated, reference=[references[source] for source in rated.source]
  )


def _draw(
  sampler: sampler_lib.Sampler,
  loaded: draw_samples.LoadedPolicy,
  split: str,
  count: int,
  known: Mapping[str, str],
  seed: int,
) -> list[dict[str, str]]:
  """Returns the distinct samples of some sources of a split of the pairs."""
  pairs = loaded.data.pairs(split)
  splits = ('train',) if split == task_lib.TRAIN else ('dev', 'test')
  items, number = [], 0
  for block in sampler.sample(
    loaded.params,
    pairs.source_tokens,
    pair_store.spread_rows(len(pairs), count),
    seed=seed,
    # Other random keys than those of the samples for pre-training.
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
      texts = loaded.data.vocabulary.decode_batch(tokens)
      items += [
        {**common, 'hypothesis': text}
        for text in dict.fromkeys(texts)
        if text.strip()
      ]
  return items
