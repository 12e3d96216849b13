"""Agreement of a reward with held-out ratings.

ReST compares hypotheses of one source, so agreement within a source comes
first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rest_jax.data import ratings as ratings_lib
from rest_jax.evaluation import correlations, metrics, within_source

# Prefix of the splits with ratings of samples of the policy.
SAMPLED = 'sampled '
# Fewer sources with different ratings give no meaningful accuracy within a
# source.
MIN_PAIRED_SOURCES = 10
# Intervals are from resampled sources.
_MIN_SOURCES = 5
_UNMEASURED = (
  f'fewer than {correlations.MIN_CORRELATED} rows, or {_MIN_SOURCES} sources, '
  'say nothing'
)
# Names of statistics, the most relevant for Improve steps first.
WITHIN = ('pairwise_accuracy', 'pearson_within_source', 'best_of_n')
LENGTH = ('reward_and_length', 'rating_and_length')
_STATISTICS = {
  'pearson': correlations.pearson,
  'spearman': correlations.spearman,
  'kendall': correlations.kendall,
  'pairwise_accuracy_all': correlations.pairwise_accuracy,
}
OVERALL = tuple(_STATISTICS)


def agreement(
  rewards: np.ndarray,
  ratings: np.ndarray,
  sources: Sequence[str],
  *,
  num_resamples: int,
) -> dict[str, Any]:
  """Compares rewards with ratings; intervals by bootstrap over sources.

  Args:
    rewards: float [n].
    ratings: float [n], higher is better, any scale.
    sources: n texts; rows of one source are resampled together.
    num_resamples: number of bootstrap resamples.

  Returns:
    rows and sources; with at least `correlations.MIN_CORRELATED` rows and 5
    sources, also value, low and high (a 95 % interval) of each statistic, in this order.
    If 10 sources have hypotheses with different ratings: pairs (their number),
    pairwise_accuracy, pearson_within_source and best_of_n of
    `within_source.Ranking`. reward_and_length and rating_and_length: Pearson
    correlations of a source's mean with its length in characters. Over all
    rows: pearson, spearman, kendall (tau-b) and pairwise_accuracy_all.
  """
  groups = grouped(sources)
  result: dict[str, Any] = {
    'rows': len(groups),
    'sources': int(groups.max(initial=-1)) + 1,
  }
  if (
    result['rows'] < correlations.MIN_CORRELATED
    or result['sources'] < _MIN_SOURCES
  ):
    return result
  bootstrap = {'num_resamples': num_resamples, 'seed': 0}
  ranking = within_source.rank(rewards, ratings, groups)
  if ranking.num_sources >= MIN_PAIRED_SOURCES:
    result['pairs'] = ranking.num_pairs
    for name, statistic in zip(
      WITHIN,
      (ranking.pairwise_accuracy, ranking.pearson, ranking.best_of_n),
      strict=True,
    ):
      result[name] = _entry(statistic.value, statistic.interval(**bootstrap))
  lengths = np.array([len(text) for text in dict.fromkeys(sources)], float)
  for name, values in zip(LENGTH, (rewards, ratings), strict=True):
    means = within_source.means(values, groups)
    result[name] = _measured(correlations.pearson, means, lengths, **bootstrap)
  for name, statistic in _STATISTICS.items():
    result[name] = _measured(
      statistic, rewards, ratings, **bootstrap, clusters=groups
    )
  return result


def grouped(sources: Sequence[str]) -> np.ndarray:
  """Numbers distinct texts from 0 in order of appearance; int64 [n]."""
  names: dict[str, int] = {}
  return np.asarray(
    [names.setdefault(text, len(names)) for text in sources], np.int64
  )


def _measured(
  statistic: Callable[..., float],
  *arrays: np.ndarray,
  **bootstrap: Any,
) -> dict[str, float]:
  of_resample = _of_resample(statistic)
  return _entry(
    of_resample(*arrays),
    metrics.bootstrap_interval(of_resample, *arrays, **bootstrap),
  )


def _entry(value: float, interval: tuple[float, float]) -> dict[str, float]:
  return {'value': value, 'low': interval[0], 'high': interval[1]}


def line(result: dict[str, Any]) -> str:
  """Formats the result of `agreement` in one line."""
  shown = [
    f'{name.replace("_", " ")} {_with_interval(entry)}'
    for name, entry in result.items()
    if isinstance(entry, dict)
  ] or [_UNMEASURED]
  return (
    f'{result["rows"]} rows of {result["sources"]} sources: {", ".join(shown)}'
  )


def refusal(
  results: Mapping[str, Mapping[str, Any]], *, what: str, remedy: str
) -> str | None:
  """Returns why Improve steps must not follow a reward; None if they may.

  Args:
    results: results of `agreement` by split; the dev splits decide.
    what: the reward in the message.
    remedy: what to do, besides rating more hypotheses.
  """
  for split in (ratings_lib.DEV, SAMPLED + ratings_lib.DEV):
    reason = failure(results.get(split, {}))
    if reason is not None:
      return (
        f'{what} must agree with held-out ratings; on split {split} it has '
        f'{reason}. Improve steps keep the samples with the highest rewards, '
        'and would follow noise. Rate more hypotheses per source, of systems '
        f'like the policy, {remedy}'
      )
  return None


def failure(result: Mapping[str, Any]) -> str | None:
  """Returns a message if a reward is at chance on held-out ratings.

  Args:
    result: result of `agreement`.

  Returns:
    The number and what it should be: pairs of one source or, if there are too
    few, Pearson over all rows. None for a reward above chance, or if neither is
    measured.
  """
  for name, statement, chance in (
    ('pairwise_accuracy', 'pairs of one source ordered as rated', 0.5),
    ('pearson', 'Pearson correlation with ratings', 0.0),
  ):
    statistic = result.get(name)
    if statistic is not None:
      if statistic['low'] > chance:
        return None
      return (
        f'{statement}: {_with_interval(statistic)}, where chance is {chance:g}'
      )
  return None


def warnings(results: Mapping[str, dict[str, Any]]) -> list[str]:
  """Returns warnings about poor agreement with held-out ratings.

  Args:
    results: results of `agreement` by split.

  Returns:
    At most one message per kind of problem, order within a source first.
  """
  troubles: dict[str, list[str]] = {}
  for split, result in results.items():
    trouble, shown = _trouble(result)
    if trouble is not None:
      troubles.setdefault(trouble, []).append(f'{split} {shown}')
  return [
    message.format(', '.join(troubles[trouble]))
    for trouble, message in _MESSAGES.items()
    if trouble in troubles
  ]


_MESSAGES = {
  'within reversed': (
    'the reward reverses the order of the hypotheses of one source: {} of '
    'pairs as rated, where chance is 0.5. Check that higher scores are better '
    'in the ratings.'
  ),
  'at chance': (
    'the reward does not order the hypotheses of one source, and filtering '
    'depends on that order: {} of pairs as rated, where chance is 0.5. Rate '
    'several hypotheses per source, from systems similar to the policy '
    '(RewardStage.rated_samples).'
  ),
  'reversed': (
    'the reward is reversed: its correlation with held-out ratings is below '
    'zero (Pearson {}). Check that higher scores are better in the ratings.'
  ),
  'unrelated': (
    'the reward has learned nothing measurable: its correlation with held-out '
    'ratings is not above zero (Pearson {}), so Improve steps would follow '
    'noise. Check the ratings, collect more, or train longer '
    '(RewardStage.pretrain, RewardStage.finetune).'
  ),
  'between': (
    'the reward orders the hypotheses of one source, but not those of '
    'different sources: its correlation with held-out ratings is not above '
    'zero (Pearson {}). Choose a filter per source, such as '
    'filters/percentile.gin: one threshold for all sources would choose the '
    'wrong sources.'
  ),
  'unmeasured': (
    'agreement with ratings is not measured on {}: '
    f'{_UNMEASURED}. Rate more, or move sources from train to dev.'
  ),
}


def _trouble(result: Mapping[str, Any]) -> tuple[str | None, str]:
  """Returns the key in `_MESSAGES` for a split, and the number in it."""
  pearson, within = result.get('pearson'), result.get('pairwise_accuracy')
  if pearson is None:
    return (
      'unmeasured',
      f'({result["rows"]} rows of {result["sources"]} sources)',
    )
  if within is not None and within['low'] <= 0.5:
    trouble = 'within reversed' if within['high'] < 0.5 else 'at chance'
    return trouble, _with_interval(within)
  if pearson['low'] > 0:
    return None, ''
  shown = _with_interval(pearson)
  if within is not None:
    return 'between', shown
  return 'reversed' if pearson['high'] < 0 else 'unrelated', shown


def _with_interval(statistic: Mapping[str, float]) -> str:
  return f'{statistic["value"]:.3f} [{statistic["low"]:.3f}, {statistic["high"]:.3f}]'


def _of_resample(statistic: Callable[..., float]) -> Callable[..., float]:
  """Makes a statistic count a resample of equal values as no agreement."""
  chance = 0.5 if statistic is correlations.pairwise_accuracy else 0.0

  def measure(rewards: np.ndarray, ratings: np.ndarray, *groups) -> float:
    if np.ptp(rewards) == 0 or np.ptp(ratings) == 0:
      return chance
    return statistic(rewards, ratings, *groups)

  return measure
