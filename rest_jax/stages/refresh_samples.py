"""Samples of the latest policy that a refresh has rated, and why these."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
from typing import Any
import zlib

import numpy as np

from rest_jax.data import annotations, pair_store, sample_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import acquisition, corruptions, normalize
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import draw_samples, prepare, score_samples
from rest_jax.stages import reward as reward_stage
from rest_jax.storage import files

_CHOSEN = 'chosen.json'
_SOURCES_PER_SHARD = 2048
# Of ten new sources one chooses the checkpoint and one is for the report.
_CYCLE = {0: reward_stage.DEV, 1: reward_stage.TEST}


@dataclasses.dataclass(frozen=True)
class Present:
  """The reward before the refresh.

  Attributes:
    config: its settings.
    reward: loaded.
    directory: of its trained part, a finished folder of stage `reward`.
    normalizer: its scale.
    read_ratings: reads all that its trained part has learned from.
  """

  config: rewards_base.RewardConfig
  reward: rewards_base.Reward
  directory: pathlib.Path
  normalizer: normalize.Normalizer
  read_ratings: Callable[[], ratings_lib.Ratings]

  @functools.cached_property
  def ratings(self) -> ratings_lib.Ratings:
    """All that its trained part has learned from."""
    return self.read_ratings()


def is_chosen(directory: pathlib.Path) -> bool:
  """Whether it is written down what is to be rated."""
  return (directory / _CHOSEN).exists()


def choose(
  acquired: acquisition.Acquisition,
  drawer: draw_samples.Drawer,
  *,
  num_sources: int,
  directory: pathlib.Path,
  data: prepare.PreparedData,
  present: Present,
) -> None:
  """Draws and scores samples of a policy, and writes down which are to be rated.

  Distinct texts only; no empty ones, of which no rater can say much; and none
  that a guard vetoes, since they are never trained on.

  Args:
    acquired: which and how many.
    drawer: the policy; its seed is that of the choice, too.
    num_sources: to sample for.
    directory: of the refresh.
    data: the prepared data.
    present: the reward.
  """
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
  candidates, rewards = _candidates(
    [
      text
      for shard in range(len(shards))
      for text in zip(
        *score_samples.texts(
          directory, shard, len(shards), pairs, data.vocabulary
        ),
        strict=True,
      )
    ],
    present,
  )
  rows, reasons = acquired.choose(
    rewards,
    _uncertainty(acquired, candidates, present, data, drawer.mesh_config, seed),
    seed=seed,
  )
  known = dict(zip(present.ratings.source, present.ratings.split, strict=True))
  # In an order that does not tell raters why a row was chosen.
  order = np.random.default_rng((seed, 1)).permutation(len(rows))
  chosen = []
  for number, place in enumerate(order, 1):
    source, hypothesis = candidates[rows[place]]
    chosen.append(
      {
        'id': f'g{grow_step}-{number:05d}',
        'split': known.get(source) or _split(source),
        'source': source,
        'hypothesis': hypothesis,
        'reason': reasons[place],
        'reward': float(rewards[rows[place]]),
      }
    )
  files.write_json(directory / _CHOSEN, chosen)


def _candidates(
  texts: Sequence[tuple[str, str]], present: Present
) -> tuple[list[tuple[str, str]], np.ndarray]:
  """What may be rated, and its normalised rewards."""
  distinct = [text for text in dict.fromkeys(texts) if text[1].strip()]
  raw = present.reward.score(
    [source for source, _ in distinct], [output for _, output in distinct]
  )
  floor = rewards_base.floor(present.reward)
  kept = np.flatnonzero(raw > (-np.inf if floor is None else np.float32(floor)))
  if len(kept) < 2:
    raise ValueError(
      f'the policy must have samples that can be rated; of its {len(texts)} '
      f'{len(distinct)} are distinct and not empty, and guards let {len(kept)} '
      'of them pass. Look at the samples beside this stage.'
    )
  return [distinct[row] for row in kept], present.normalizer(raw[kept])


def _uncertainty(
  acquired: acquisition.Acquisition,
  candidates: Sequence[tuple[str, str]],
  present: Present,
  data: prepare.PreparedData,
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
) -> np.ndarray | None:
  if not acquired.num_uncertain:
    return None
  fitter, params = reward_stage.restore(
    present.directory, data.vocabulary, mesh_config
  )
  sources, hypotheses = map(list, zip(*candidates, strict=True))
  return fitter.uncertainty(
    params,
    corruptions.ScoredTexts(
      sources, hypotheses, np.zeros(len(sources), np.float32)
    ),
    dropout_rate=acquired.dropout_rate,
    num_draws=acquired.num_draws,
    seed=seed,
  )


def _split(source: str) -> str:
  """Deals a source out by its text, the same way each time."""
  place = zlib.crc32(f'refresh {source}'.encode()) % 10
  return _CYCLE.get(place, reward_stage.TRAIN)


def items(directory: pathlib.Path) -> list[annotations.Item]:
  """Returns what is to be rated, in the order of its table."""
  return [
    annotations.Item(*(row[name] for name in annotations.Item._fields))
    for row in files.read_json(directory / _CHOSEN)
  ]


def by_reason(
  directory: pathlib.Path, new: ratings_lib.Ratings
) -> dict[str, dict[str, Any]]:
  """How samples were rated, and rewarded before, by why they were chosen."""
  scores = dict(
    zip(zip(new.source, new.hypothesis, strict=True), new.score, strict=True)
  )
  found: dict[str, list[tuple[float, float]]] = {}
  for row in files.read_json(directory / _CHOSEN):
    score = scores.get((row['source'], row['hypothesis']))
    if score is not None:
      found.setdefault(row['reason'], []).append((float(score), row['reward']))
  return {
    reason: {
      'rows': len(rows),
      'mean_rating': float(np.mean([score for score, _ in rows])),
      'mean_reward': float(np.mean([reward for _, reward in rows])),
    }
    for reason, rows in found.items()
  }
