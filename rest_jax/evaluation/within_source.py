"""Agreement of a reward with ratings within a source, as ReST uses a reward.

Every statistic is a function of sums over sources; its bootstrap interval
resamples sources.
"""

from collections.abc import Callable
import dataclasses
import math

from jaxtyping import Float, Int, Real
import numpy as np

from rest_jax.evaluation import metrics

_NEWTON_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Statistic:
  """A statistic of sums over sources.

  Attributes:
    of_sums: computes the statistic from the sums of the columns.
    columns: float64 [sources] each, the contributions of each source.
  """

  of_sums: Callable[..., float]
  columns: tuple[np.ndarray, ...]

  @property
  def value(self) -> float:
    return self._measure(*self.columns)

  def interval(
    self, *, num_resamples: int, seed: int = 0
  ) -> tuple[float, float]:
    """Returns the ends of a 95 % bootstrap interval over sources."""
    return metrics.bootstrap_interval(
      self._measure, *self.columns, num_resamples=num_resamples, seed=seed
    )

  def _measure(self, *columns: np.ndarray) -> float:
    return self.of_sums(*(float(column.sum()) for column in columns))


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Statistics within sources, over all sources.

  Attributes:
    num_sources: number of sources with different ratings.
    num_pairs: number of pairs of hypotheses of one source with different
      ratings.
    pairwise_accuracy: share of these pairs that the rewards order as the
      ratings do; equal rewards count one half. 0.5 is chance.
    pearson: correlation of rewards and ratings, each minus its source's mean.
    best_of_n: (rating of the hypothesis with the highest reward - mean rating)
      / (highest rating - mean rating), numerator and denominator summed over
      sources; the mean rating of tied rewards. 0 is chance, 1 an oracle.
  """

  num_sources: int
  num_pairs: int
  pairwise_accuracy: Statistic
  pearson: Statistic
  best_of_n: Statistic


def rank(
  rewards: Real[np.ndarray, ' n'],
  ratings: Real[np.ndarray, ' n'],
  groups: Int[np.ndarray, ' n'],
) -> Ranking:
  """Compares rewards with ratings within sources.

  Args:
    rewards: `[n]`, higher is better.
    ratings: `[n]`, higher is better, any scale.
    groups: `[n]` the source of each hypothesis, numbered from 0.

  Returns:
    The statistics; each is at chance if there is nothing to compare.
  """
  rewards = np.asarray(rewards, np.float64)
  ratings = np.asarray(ratings, np.float64)
  surplus, ordered = _pairs(rewards, ratings, groups)
  x, y = centred(rewards, groups), centred(ratings, groups)
  gain, oracle = _best(rewards, y, groups)
  return Ranking(
    num_sources=int(np.count_nonzero(ordered)),
    num_pairs=int(ordered.sum()),
    pairwise_accuracy=Statistic(_accuracy, (surplus, ordered)),
    pearson=Statistic(
      _correlation,
      tuple(np.bincount(groups, product) for product in (x * y, x * x, y * y)),
    ),
    best_of_n=Statistic(_share, (gain, oracle)),
  )


def fit_weights(
  columns: Real[np.ndarray, 'k n'],
  ratings: Real[np.ndarray, ' n'],
  groups: Int[np.ndarray, ' n'],
) -> Float[np.ndarray, ' k']:
  r"""Fits weights of rewards: the sum orders a source's hypotheses as rated.

  A logistic regression without intercept on all pairs of one source with
  different ratings,

  $$ P(y_i \succ y_j) = \sigma(\sum_k w_k (R_k(y_i) - R_k(y_j))), w_k \ge 0 $$

  Source: Bradley and Terry, Rank Analysis of Incomplete Block Designs (1952).

  Args:
    columns: `[k, n]` rewards.
    ratings: `[n]`, higher is better.
    groups: `[n]` the source of each hypothesis, numbered from 0.

  Returns:
    `[k]` weights with mean 1, at least 0; all 1 if none is above 0.
  """
  columns, ratings = np.asarray(columns, np.float64), np.asarray(ratings)
  order = np.argsort(groups, kind='stable')
  columns, ratings, index = columns[:, order], ratings[order], groups[order]
  differences = [np.empty((len(columns), 0))]
  for offset in range(1, int(np.bincount(index).max())):
    sign = np.sign(ratings[offset:] - ratings[:-offset])
    sign *= index[offset:] == index[:-offset]
    step = (columns[:, offset:] - columns[:, :-offset]) * sign
    differences.append(step[:, sign != 0])
  better = np.concatenate(differences, axis=1)  # [k, pairs]
  scale = np.sqrt(np.square(better).sum(axis=1) / max(better.shape[1], 1))
  used = np.flatnonzero(scale > 0)
  while len(used):
    fitted = _logistic(better[used] / scale[used, None])
    if np.all(fitted >= 0):
      weights = np.zeros(len(columns))
      weights[used] = fitted / scale[used]
      return weights * len(columns) / weights.sum()
    used = np.delete(used, np.argmin(fitted))
  return np.ones(len(columns))


def _logistic(better: np.ndarray) -> np.ndarray:
  """Maximises sum log sigma(w . d) over columns d, slightly regularised."""
  ridge = 1e-3 * better.shape[1] * np.eye(len(better))
  weights = np.zeros(len(better))
  for _ in range(_NEWTON_STEPS):
    wrong = 1 / (1 + np.exp(np.clip(weights @ better, -50, 50)))
    gradient = better @ wrong - ridge @ weights
    hessian = (better * (wrong * (1 - wrong))) @ better.T + ridge
    weights += np.linalg.solve(hessian, gradient)
  return weights


def centred(
  values: Real[np.ndarray, ' n'], groups: Int[np.ndarray, ' n']
) -> np.ndarray:
  """Values minus the mean of their source; rounding errors become 0."""
  values = np.asarray(values, np.float64)
  spread = values - means(values, groups)[groups]
  is_rounding = np.abs(spread) <= 1e-12 * np.abs(values)
  return np.where(is_rounding, 0.0, spread)


def means(
  values: Real[np.ndarray, ' n'], groups: Int[np.ndarray, ' n']
) -> np.ndarray:
  """The mean of each source's values, float64 [sources]."""
  return np.bincount(groups, values) / np.bincount(groups)


def _pairs(
  rewards: np.ndarray, ratings: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns rightly minus wrongly ordered pairs, and all pairs, per source."""
  order = np.argsort(groups, kind='stable')
  rewards, ratings, index = rewards[order], ratings[order], groups[order]
  counts = np.bincount(index)
  surplus, ordered = np.zeros(len(counts)), np.zeros(len(counts))
  # Hypotheses of a source are adjacent: takes all pairs `offset` apart at once.
  for offset in range(1, int(counts.max())):
    same = index[offset:] == index[:-offset]
    by_rating = np.sign(ratings[offset:] - ratings[:-offset])[same]
    by_reward = np.sign(rewards[offset:] - rewards[:-offset])[same]
    of = index[offset:][same]
    surplus += np.bincount(of, by_rating * by_reward, len(counts))
    ordered += np.bincount(of, np.abs(by_rating), len(counts))
  return surplus, ordered


def _best(
  rewards: np.ndarray, spread: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns, per source, the reward's and the oracle's choice above the mean."""
  count = int(groups.max()) + 1
  highest, oracle = np.full(count, -np.inf), np.full(count, -np.inf)
  np.maximum.at(highest, groups, rewards)
  np.maximum.at(oracle, groups, spread)
  is_first = rewards == highest[groups]
  gain = np.bincount(groups, spread * is_first) / np.bincount(groups, is_first)
  return gain, oracle


def _accuracy(surplus: float, ordered: float) -> float:
  return 0.5 + 0.5 * surplus / ordered if ordered else 0.5


def _correlation(xy: float, xx: float, yy: float) -> float:
  scale = math.sqrt(xx) * math.sqrt(yy)
  return max(-1.0, min(xy / scale, 1.0)) if scale else 0.0


def _share(gain: float, oracle: float) -> float:
  return gain / oracle if oracle else 0.0
