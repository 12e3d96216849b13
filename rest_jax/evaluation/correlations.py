"""Correlations of two series of numbers, such as rewards and ratings."""

import math

from jaxtyping import Float, Real
import numpy as np

from rest_jax.evaluation import metrics

# Minimum number of pairs for a meaningful correlation: of two it is 1 or -1.
MIN_CORRELATED = 10


def pearson(
  x: Real[np.ndarray, ' n'],
  y: Real[np.ndarray, ' n'],
  weights: Real[np.ndarray, ' n'] | None = None,
) -> float:
  """Pearson correlation, optionally with a weight for each pair.

  Args:
    x: `[n]` values, any unit.
    y: `[n]` values, any unit.
    weights: `[n]` weights, at least 0, e.g. the number of annotators behind a
      rating; None for equal weights.

  Returns:
    The correlation, in [-1, 1].

  Raises:
    ValueError: fewer than two values, shapes that differ, values that are not
      finite, or a constant side, for which no correlation exists.
  """
  x, y = _pairs('x', x, 'y', y)
  weights = _weights(weights, len(x))
  x = _centred('x', x, weights)
  y = _centred('y', y, weights)
  scale = math.sqrt(weights @ (x * x)) * math.sqrt(weights @ (y * y))
  return float(np.clip((weights @ (x * y)) / scale, -1.0, 1.0))


def spearman(x: Real[np.ndarray, ' n'], y: Real[np.ndarray, ' n']) -> float:
  """Spearman's rank correlation in [-1, 1]; ties share their mean rank.

  Raises:
    ValueError: as `pearson`.
  """
  x, y = _pairs('x', x, 'y', y)
  return pearson(_ranks(x), _ranks(y))


def kendall(x: Real[np.ndarray, ' n'], y: Real[np.ndarray, ' n']) -> float:
  r"""Kendall's tau-b over all pairs of values.

  $$ \tau_b = (P - Q) / \sqrt{(P + Q + X)(P + Q + Y)} $$

  with P concordant and Q discordant pairs, X pairs tied in x only and Y pairs
  tied in y only. It is in [-1, 1].

  Source: Kendall, The treatment of ties in ranking problems (1945).

  Raises:
    ValueError: as `pearson`.
  """
  x, y = _pairs('x', x, 'y', y)
  _check_varies('x', x)
  _check_varies('y', y)
  return _tau_b(x, y)


def pairwise_accuracy(
  scores: Real[np.ndarray, ' n'], ratings: Real[np.ndarray, ' n']
) -> float:
  """Share of all pairs that the scores order as the ratings do; 0.5 is chance.

  Ties: a pair with equal *ratings* has no right order and is left out; a pair
  with different ratings and equal *scores* counts one half. A constant score
  thus has 0.5, and a negated score has one minus the accuracy of the score. The
  accuracy is (1 + Somers' D)/2. `within_source` has it for pairs of one source.

  Args:
    scores: `[n]` scores, higher is better.
    ratings: `[n]` ratings, higher is better.

  Returns:
    The share, in [0, 1].

  Raises:
    ValueError: shapes differ, values are not finite, or no pair has different
      ratings.
  """
  scores, ratings = _pairs('scores', scores, 'ratings', ratings)
  num_pairs = len(scores) * (len(scores) - 1) // 2
  score_pairs = num_pairs - _tied_pairs(scores)
  rating_pairs = num_pairs - _tied_pairs(ratings)
  if not rating_pairs:
    raise ValueError('pairwise_accuracy needs a pair with different ratings.')
  surplus = 0
  if score_pairs:
    # tau-b is (P - Q) / sqrt(score_pairs * rating_pairs), in n log n time.
    tau = _tau_b(scores, ratings)
    surplus = round(tau * math.sqrt(score_pairs) * math.sqrt(rating_pairs))
  return 0.5 + 0.5 * surplus / rating_pairs


def interval(value: float, number: int) -> tuple[float, float]:
  r"""95 % interval of a correlation by Fisher's transformation.

  $$ \tanh(\operatorname{artanh} r \pm 1.96 / \sqrt{n - 3}) $$

  Source: Fisher, On the "Probable Error" of a Coefficient of Correlation
  (1921).

  Args:
    value: r.
    number: number n of independent pairs, at least `MIN_CORRELATED`.
  """
  if number < MIN_CORRELATED:
    raise ValueError(f'number must be at least {MIN_CORRELATED}; got {number}.')
  # For r = 1 the transformation is infinite.
  centre = math.atanh(max(-1 + 1e-12, min(value, 1 - 1e-12)))
  half = metrics.Z_95 / math.sqrt(number - 3)
  return math.tanh(centre - half), math.tanh(centre + half)


def _ranks(values: Float[np.ndarray, ' n']) -> Float[np.ndarray, ' n']:
  """Ranks from 1; equal values share their mean rank."""
  index, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[index]


def _tau_b(x: Float[np.ndarray, ' n'], y: Float[np.ndarray, ' n']) -> float:
  # Imported here: it takes seconds, and most runs do not need it.
  from scipy import stats

  result = stats.kendalltau(x, y, variant='b')
  # SciPy's decorators hide the result's type.
  return float(result.statistic)  # pyright: ignore[reportAttributeAccessIssue]


def _tied_pairs(values: Float[np.ndarray, ' n']) -> int:
  """Number of pairs of equal values."""
  counts = np.unique(values, return_counts=True)[1].astype(np.int64)
  return int(np.sum(counts * (counts - 1) // 2))


def _pairs(
  x_name: str,
  x: Real[np.ndarray, ' n'],
  y_name: str,
  y: Real[np.ndarray, ' n'],
) -> tuple[Float[np.ndarray, ' n'], Float[np.ndarray, ' n']]:
  """Checks two aligned arrays; returns them in float64."""
  x = np.asarray(x, dtype=np.float64)
  y = np.asarray(y, dtype=np.float64)
  if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
    raise ValueError(
      f'{x_name} and {y_name} must be two aligned arrays of at least two '
      f'values; got shapes {x.shape} and {y.shape}.'
    )
  for name, side in ((x_name, x), (y_name, y)):
    metrics.check_finite(name, side)
  return x, y


def _weights(
  weights: Real[np.ndarray, ' n'] | None, length: int
) -> Float[np.ndarray, ' n']:
  """Checks weights; returns them with sum 1."""
  if weights is None:
    return np.full(length, 1 / length)
  weights = np.asarray(weights, dtype=np.float64)
  if weights.shape != (length,):
    raise ValueError(
      f'weights must have shape {(length,)}, one for each value; got '
      f'{weights.shape}.'
    )
  metrics.check_finite('weights', weights)
  if np.any(weights < 0) or np.count_nonzero(weights) < 2:
    raise ValueError(
      'weights must be at least 0, and above 0 for two values or more.'
    )
  return weights / weights.sum()


def _centred(
  name: str, values: Float[np.ndarray, ' n'], weights: Float[np.ndarray, ' n']
) -> Float[np.ndarray, ' n']:
  """Values minus their weighted mean, in units of the largest deviation."""
  _check_varies(name, values[weights > 0])
  values = np.where(weights > 0, values - weights @ values, 0.0)
  return values / np.abs(values).max()


def _check_varies(name: str, values: Float[np.ndarray, ' n']) -> None:
  if np.all(values == values[0]):
    raise ValueError(
      f'{name} must vary for a correlation to exist; all {len(values)} values '
      f'are {values[0]:g}.'
    )
