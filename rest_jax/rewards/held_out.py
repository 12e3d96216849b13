"""Agreement of a reward and its parts with held-out ratings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging
import numpy as np

from rest_jax.data import pair_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.evaluation import within_source
from rest_jax.rewards import base, composed, guards
from rest_jax.rewards import reward_agreement as agreement_lib

_SPLITS = ratings_lib.DEV, ratings_lib.TEST


def agreement(
  score: Callable[[ratings_lib.Ratings], np.ndarray],
  ratings: Mapping[str, ratings_lib.Ratings],
  *,
  name: str,
  num_resamples: int = 1_000,
  splits: Sequence[str] = _SPLITS,
) -> dict[str, dict[str, Any]]:
  """Compares a learned reward with held-out ratings, and logs the result.

  Args:
    score: returns the rewards of rated hypotheses, float [n].
    ratings: ratings by the prefix of the names of their splits.
    name: name of the reward in the log.
    num_resamples: number of resamples for the bootstrap intervals.
    splits: the splits that are measured.

  Returns:
    Results of `reward_agreement.agreement` by prefix and split.
  """
  results = {}
  for prefix, split, rated in _held_out(ratings):
    if split in splits:
      result = agreement_lib.agreement(
        score(rated), rated.score, rated.source, num_resamples=num_resamples
      )
      results[prefix + split] = result
      line = agreement_lib.line(result)
      logging.info('%s: %s%s, %s', name, prefix, split, line)
  return results


def measure(
  reward: base.Reward,
  ratings: Mapping[str, ratings_lib.Ratings],
  *,
  max_sources: int | None,
  num_resamples: int = 1_000,
) -> dict[str, dict[str, Any]]:
  """Compares each column of a reward with the ratings of dev and test.

  Args:
    reward: R; skipped if it needs references that the ratings do not have.
    ratings: ratings by the prefix of the names of their splits.
    max_sources: number of sources per split, evenly spread; None for all.
    num_resamples: number of resamples for the bootstrap intervals.

  Returns:
    Results of `reward_agreement.agreement` by split and by name of the reward
    and its parts.
  """
  results: dict[str, dict[str, Any]] = {}
  for name, split, rated in _held_out(ratings):
    columns = _columns(reward, rated, max_sources)
    if columns is None:
      continue
    rewards, rows = columns
    results[name + split] = {
      column: agreement_lib.agreement(
        values,
        rated.score[rows],
        [rated.source[row] for row in rows],
        num_resamples=num_resamples,
      )
      for column, values in rewards.items()
    }
  return results


def weights(
  config: base.RewardConfig,
  reward: base.Reward,
  ratings: Mapping[str, ratings_lib.Ratings],
  *,
  max_sources: int | None,
) -> dict[str, float]:
  """Returns the weights of an `Ensemble` that order the dev ratings best.

  They are fitted by logistic regression on pairs of one source, on the common
  scale of the components; see `within_source.fit_weights`.

  Args:
    config: settings of the reward: an `Ensemble`, possibly under guards.
    reward: R.
    ratings: as in `measure`.
    max_sources: as in `measure`.

  Returns:
    `Component.weight` by name of the component's reward, with mean 1; 0 for a
    component that is better left out. Empty for other rewards, or if no ratings
    can be scored.
  """
  while isinstance(config, guards.Guarded):
    config = config.reward
  if not isinstance(config, composed.Ensemble):
    return {}
  scaled, scores, sources = [], [], []
  for name, split, rated in _held_out(ratings):
    columns = (
      _columns(reward, rated, max_sources) if split == ratings_lib.DEV else None
    )
    if columns is None:
      continue
    rewards, rows = columns
    scaled.append(
      np.stack([c.scale(rewards[c.reward.name]) for c in config.components])
    )
    scores.append(rated.score[rows])
    sources += [f'{name}{rated.source[row]}' for row in rows]
  if not scaled:
    return {}
  fitted = within_source.fit_weights(
    np.concatenate(scaled, axis=1),
    np.concatenate(scores),
    agreement_lib.grouped(sources),
  )
  names = [component.reward.name for component in config.components]
  return dict(zip(names, fitted.tolist(), strict=True))


def _held_out(ratings: Mapping[str, ratings_lib.Ratings]):
  """Yields the prefix, name and ratings of each held-out split."""
  for name, rated in ratings.items():
    for split in _SPLITS:
      if split in rated.split:
        yield name, split, rated.select(split)


def _columns(
  reward: base.Reward, rated: ratings_lib.Ratings, max_sources: int | None
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
  """Returns rewards of some rows and the rows, or None without references."""
  groups = agreement_lib.grouped(rated.source)
  chosen = pair_store.spread_rows(int(groups.max()) + 1, max_sources)
  rows = np.flatnonzero(np.isin(groups, chosen))
  references = None
  if reward.needs_references:
    references = [(rated.reference or [''] * len(rated))[row] for row in rows]
    if not all(references):
      return None
  columns = base.columns(
    reward,
    [rated.source[row] for row in rows],
    [rated.hypothesis[row] for row in rows],
    references,
  )
  return columns, rows
