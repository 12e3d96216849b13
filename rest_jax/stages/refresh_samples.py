"""Choice of the samples of the latest policy that a refresh has rated."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
from typing import Any
import zlib

import numpy as np

from rest_jax.data import annotations, pair_store, sample_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import acquisition, corruptions, normalize
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import draw_samples, score_samples
from rest_jax.stages import reward as reward_stage
from rest_jax.storage import files

_CHOSEN = 'chosen.json'
_SOURCES_PER_SHARD = 2048
# Of ten new sources, one is for choosing the checkpoint and one for the report.
_CYCLE = {0: ratings_lib.DEV, 1: ratings_lib.TEST}


@dataclasses.dataclass(frozen=True)
class Present:
  """The reward before the refresh.

  Attributes:
    directory: folder of its trained part, like one of stage `reward`.
    read_ratings: reads all ratings that the trained part was trained on.
  """

  config: rewards_base.RewardConfig
  reward: rewards_base.Reward
  directory: pathlib.Path
  normalizer: normalize.Normalizer
  read_ratings: Callable[[], ratings_lib.Ratings]

  @functools.cached_property
  def ratings(self) -> ratings_lib.Ratings:
    """All ratings that the trained part was trained on."""
    return self.read_ratings()


def is_chosen(directory: pathlib.Path) -> bool:
  """Whether the samples to rate are chosen already."""
  return (directory / _CHOSEN).exists()


def choose(
  acquired: acquisition.Acquisition,
  drawer: draw_samples.Drawer,
  *,
  num_sources: int,
  directory: pathlib.Path,
  present: Present,
) -> None:
  """Draws and scores samples of a policy, and stores a choice of them to rate.

  Only distinct texts are chosen; no empty texts, which tell raters nothing; and
  no text that a guard vetoes, since those are never trained on.

  Args:
    acquired: numbers of samples to choose, by reason.
    drawer: the policy and the seed, which is also used for the choice.
  """
  data = drawer.loaded.data
  pairs = data.pairs(data.grow_split)
  count = min(num_sources, len(pairs))
  shards = sample_store.shard_ranges(count, _SOURCES_PER_SHARD)
  grow_step, seed = drawer.grow_step, drawer.seed
  draw_samples.sample(
    directory,
    drawer,
    pairs=pairs,
    rows=pair_store.spread_rows(len(pairs), count),
    shards=shards,
    description=f'refresh {grow_step}: sample',
  )
  store = score_samples.Store(directory, len(shards), pairs, data.vocabulary)
  texts = [
    text
    for shard in range(len(shards))
    for text in zip(
      *score_samples.texts(store.shard(shard), pairs, data.vocabulary),
      strict=True,
    )
  ]
  candidates, rewards = _candidates(texts, present)
  rows, reasons = acquired.choose(
    rewards, _uncertainty(acquired, candidates, present, drawer), seed=seed
  )
  known = dict(zip(present.ratings.source, present.ratings.split, strict=True))
  # A random order, which does not tell raters why a row was chosen.
  order = np.random.default_rng((seed, 1)).permutation(len(rows))
  chosen = []
  for number, index in enumerate(order, 1):
    source, hypothesis = candidates[rows[index]]
    chosen.append(
      {
        'id': f'g{grow_step}-{number:05d}',
        'split': known.get(source) or _split(source),
        'source': source,
        'hypothesis': hypothesis,
        'reason': reasons[index],
        'reward': float(rewards[rows[index]]),
      }
    )
  files.write_json(directory / _CHOSEN, chosen)


def _candidates(
  texts: Sequence[tuple[str, str]], present: Present
) -> tuple[list[tuple[str, str]], np.ndarray]:
  """Returns the texts that may be rated, and their normalised rewards."""
  distinct = [text for text in dict.fromkeys(texts) if text[1].strip()]
  raw = present.reward.score(
    [source for source, _ in distinct], [output for _, output in distinct]
  )
  floor = rewards_base.floor(present.reward)
  kept = np.flatnonzero(raw > (-np.inf if floor is None else np.float32(floor)))
  if len(kept) < 2:
    raise ValueError(
      'the policy must have at least two samples that can be rated; of its '
      f'{len(texts)} samples {len(distinct)} are distinct and not empty, and '
      f'{len(kept)} of these pass the guards. Look at the samples in the folder '
      'of this stage.'
    )
  return [distinct[row] for row in kept], present.normalizer(raw[kept])


def _uncertainty(
  acquired: acquisition.Acquisition,
  candidates: Sequence[tuple[str, str]],
  present: Present,
  drawer: draw_samples.Drawer,
) -> np.ndarray | None:
  if not acquired.num_uncertain:
    return None
  loaded = drawer.loaded
  fitter, params = reward_stage.restore(
    present.directory, loaded.data.vocabulary, loaded.mesh_config
  )
  sources, hypotheses = map(list, zip(*candidates, strict=True))
  return fitter.uncertainty(
    params,
    corruptions.ScoredTexts(
      sources, hypotheses, np.zeros(len(sources), np.float32)
    ),
    dropout_rate=acquired.dropout_rate,
    num_draws=acquired.num_draws,
    seed=drawer.seed,
  )


def _split(source: str) -> str:
  """Assigns a source to a split by a checksum of its text."""
  number = zlib.crc32(f'refresh {source}'.encode()) % 10
  return _CYCLE.get(number, ratings_lib.TRAIN)


def items(directory: pathlib.Path) -> list[annotations.Item]:
  """Returns the items to rate, in the order of the raters' table."""
  return annotations.Item.read_all(directory / _CHOSEN)


def by_reason(
  directory: pathlib.Path, new: ratings_lib.Ratings
) -> dict[str, dict[str, Any]]:
  """Returns number, mean rating and mean earlier reward by reason of choice."""
  scores = dict(
    zip(zip(new.source, new.hypothesis, strict=True), new.score, strict=True)
  )
  rated: dict[str, list[tuple[float, float]]] = {}
  for row in files.read_json(directory / _CHOSEN):
    score = scores.get((row['source'], row['hypothesis']))
    if score is not None:
      rated.setdefault(row['reason'], []).append((float(score), row['reward']))
  return {
    reason: {
      'rows': len(rows),
      'mean_rating': float(np.mean([score for score, _ in rows])),
      'mean_reward': float(np.mean([reward for _, reward in rows])),
    }
    for reason, rows in rated.items()
  }
