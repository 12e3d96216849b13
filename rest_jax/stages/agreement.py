"""How well a reward agrees with ratings that it was not trained on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.evaluation import metrics

# With fewer sources whose hypotheses were rated differently, accuracy within
# sources says nothing, and a resample may hold no such pair.
_MIN_PAIRED_SOURCES = 10
# Intervals are of sources drawn again.
_MIN_SOURCES = 5
_UNMEASURED = (
  f'fewer than {metrics.MIN_CORRELATED} rows, or {_MIN_SOURCES} sources, say '
  'nothing'
)


def agreement(
  rewards: np.ndarray,
  ratings: np.ndarray,
  sources: Sequence[str],
  *,
  num_resamples: int,
  seed: int = 0,
) -> dict[str, Any]:
  """Compares rewards with ratings; intervals by bootstrap over sources.

  Args:
    rewards: float [n].
    ratings: float [n], higher is better, any scale.
    sources: n texts; those of one source are drawn together.
    num_resamples: of the bootstrap.
    seed: of the bootstrap.

  Returns:
    rows, sources, and, of `metrics.MIN_CORRELATED` rows and 5 sources or more,
    for each statistic its value and the ends low and high of a 95 % interval:
    pearson, spearman, kendall (tau-b), pairwise_accuracy_all over all pairs of
    rows and, where there are enough, pairwise_accuracy over pairs of one source.
  """
  names: dict[str, int] = {}
  groups = np.asarray([names.setdefault(text, len(names)) for text in sources])

  def measure(
    statistic: Callable[..., float], within: bool
  ) -> dict[str, float]:
    arrays = (rewards, ratings)
    low, high = metrics.bootstrap_interval(
      _of_resample(statistic),
      *arrays,
      num_resamples=num_resamples,
      seed=seed,
      clusters=groups,
      pass_clusters=within,
    )
    value = statistic(*arrays, groups) if within else statistic(*arrays)
    return {'value': value, 'low': low, 'high': high}

  result: dict[str, Any] = {'rows': len(groups), 'sources': len(names)}
  if len(groups) < metrics.MIN_CORRELATED or len(names) < _MIN_SOURCES:
    return result
  for name, statistic in (
    ('pearson', metrics.pearson),
    ('spearman', metrics.spearman),
    ('kendall', metrics.kendall),
    ('pairwise_accuracy_all', metrics.pairwise_accuracy),
  ):
    result[name] = measure(statistic, within=False)
  if _paired_sources(ratings, groups) >= _MIN_PAIRED_SOURCES:
    result['pairwise_accuracy'] = measure(
      metrics.pairwise_accuracy, within=True
    )
  return result


def line(result: dict[str, Any]) -> str:
  """Returns the numbers of `agreement` in one line."""
  shown = [
    f'{name} {_with_interval(found)}'
    for name, found in result.items()
    if isinstance(found, dict)
  ] or [_UNMEASURED]
  return (
    f'{result["rows"]} rows of {result["sources"]} sources: {", ".join(shown)}'
  )


def warnings(found: Mapping[str, dict[str, Any]]) -> list[str]:
  """Says where a reward does not agree with ratings it was not trained on.

  Args:
    found: what `agreement` returned, by split.

  Returns:
    At most one message for each kind of trouble.
  """
  unmeasured, reversed_, unrelated, at_chance = [], [], [], []
  for split, result in found.items():
    pearson, within = result.get('pearson'), result.get('pairwise_accuracy')
    if pearson is None:
      rows = f'{result["rows"]} rows of {result["sources"]} sources'
      unmeasured.append(f'{split} ({rows})')
    elif pearson['high'] < 0:
      reversed_.append(f'{split} {_with_interval(pearson)}')
    elif pearson['low'] <= 0:
      unrelated.append(f'{split} {_with_interval(pearson)}')
    elif within is not None and within['low'] <= 0.5:
      at_chance.append(f'{split} {_with_interval(within)}')
  messages = []
  if reversed_:
    messages.append(
      'the reward is the wrong way round: its correlation with held-out ratings '
      f'is below zero (Pearson {", ".join(reversed_)}). Check that higher scores '
      'are better in the ratings.'
    )
  if unrelated:
    messages.append(
      'the reward has learned nothing that can be measured: its correlation '
      f'with held-out ratings is not above zero (Pearson {", ".join(unrelated)}'
      '), so Improve steps would follow noise. Check the ratings, rate more, or '
      'train longer (RewardStage.pretrain, RewardStage.finetune).'
    )
  if at_chance:
    messages.append(
      'the reward does not order the translations of one source, by which '
      f'samples are filtered: {", ".join(at_chance)} of pairs as rated, where '
      'chance is 0.5. Rate several translations of each source.'
    )
  if unmeasured:
    messages.append(
      f'agreement with ratings is not measured on {", ".join(unmeasured)}: '
      f'{_UNMEASURED}. Rate more, or move sources from train to dev.'
    )
  return messages


def _with_interval(found: Mapping[str, float]) -> str:
  return f'{found["value"]:.3f} [{found["low"]:.3f}, {found["high"]:.3f}]'


def _of_resample(statistic: Callable[..., float]) -> Callable[..., float]:
  """A statistic that takes a resample of equal values for no agreement."""
  chance = 0.5 if statistic is metrics.pairwise_accuracy else 0.0

  def measure(rewards: np.ndarray, ratings: np.ndarray, *groups) -> float:
    if np.ptp(rewards) == 0 or np.ptp(ratings) == 0:
      return chance
    return statistic(rewards, ratings, *groups)

  return measure


def _paired_sources(ratings: np.ndarray, groups: np.ndarray) -> int:
  """Number of sources with two hypotheses of different rating."""
  highest = np.full(groups.max() + 1, -np.inf)
  lowest = np.full(groups.max() + 1, np.inf)
  np.maximum.at(highest, groups, ratings)
  np.minimum.at(lowest, groups, ratings)
  return int(np.count_nonzero(highest > lowest))
