"""How well a reward agrees with ratings that it was not trained on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rest_jax.evaluation import metrics

# With fewer sources whose hypotheses were rated differently, accuracy within
# sources says nothing, and a resample may hold no such pair.
_MIN_PAIRED_SOURCES = 10


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
    rows, sources, and for each statistic its value and the ends low and high of
    a 95 % interval: pearson, spearman, kendall (tau-b), pairwise_accuracy_all
    over all pairs of rows and, where there are enough, pairwise_accuracy over
    pairs of one source.
  """
  names: dict[str, int] = {}
  groups = np.asarray([names.setdefault(text, len(names)) for text in sources])

  def measure(
    statistic: Callable[..., float], within: bool
  ) -> dict[str, float]:
    arrays = (rewards, ratings)
    low, high = metrics.bootstrap_interval(
      statistic,
      *arrays,
      num_resamples=num_resamples,
      seed=seed,
      clusters=groups,
      pass_clusters=within,
    )
    value = statistic(*arrays, groups) if within else statistic(*arrays)
    return {'value': value, 'low': low, 'high': high}

  result: dict[str, Any] = {'rows': len(groups), 'sources': len(names)}
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
    f'{name} {found["value"]:.3f} [{found["low"]:.3f}, {found["high"]:.3f}]'
    for name, found in result.items()
    if isinstance(found, dict)
  ]
  return (
    f'{result["rows"]} rows of {result["sources"]} sources: {", ".join(shown)}'
  )


def _paired_sources(ratings: np.ndarray, groups: np.ndarray) -> int:
  """Number of sources with two hypotheses of different rating."""
  highest = np.full(groups.max() + 1, -np.inf)
  lowest = np.full(groups.max() + 1, np.inf)
  np.maximum.at(highest, groups, ratings)
  np.minimum.at(lowest, groups, ratings)
  return int(np.count_nonzero(highest > lowest))
