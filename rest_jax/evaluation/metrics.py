"""Statistics of policies and reward models, with their uncertainty.

Samples of one source resemble each other, so every standard error here is
clustered by source, and two policies are compared on the same sources. A value
that is not finite is an error: a mean without it would be of other outputs.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import TypeVar

from jaxtyping import Float, Real, Shaped
import numpy as np

from rest_jax import settings

# Minimum number of pairs for a meaningful correlation: of two it is 1 or -1.
MIN_CORRELATED = 10
# Half width of a 95 % interval, in standard errors.
Z_95 = 1.959963984540054
_SIGNIFICANT = 2.0  # Standard errors of a significant difference.

# Quantiles of a 95 % interval.
_QUANTILES_95 = ((1 - 0.95) / 2, 1 - (1 - 0.95) / 2)

_Estimate = TypeVar('_Estimate', bound='Estimate')


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean and its standard error, in the unit of the values."""

  mean: float
  stderr: float

  def __post_init__(self):
    if not (math.isfinite(self.mean) and math.isfinite(self.stderr)):
      raise ValueError(f'an estimate must be finite; got {self}.')
    settings.at_least(self, 0, 'stderr')

  def scaled(self: _Estimate, factor: float) -> _Estimate:
    """Returns the estimate in another unit, e.g. 100 for reported rewards."""
    return dataclasses.replace(
      self, mean=self.mean * factor, stderr=self.stderr * abs(factor)
    )

  @property
  def shown(self) -> str:
    """The mean and its standard error as text."""
    return f'{self.mean:.2f} ± {self.stderr:.2f}'


@dataclasses.dataclass(frozen=True)
class Difference(Estimate):
  """A mean paired difference a - b; positive if a is larger."""

  @property
  def shown(self) -> str:
    """The difference with its sign and its standard error as text."""
    return f'{self.mean:+.2f} ± {self.stderr:.2f}'

  @property
  def z(self) -> float:
    """The difference in standard errors; infinite for no standard error."""
    if self.stderr > 0:
      return self.mean / self.stderr
    return math.copysign(math.inf, self.mean) if self.mean else 0.0

  @property
  def rose(self) -> bool:
    """Whether a is more than two standard errors above b."""
    return self.z > _SIGNIFICANT

  @property
  def fell(self) -> bool:
    """Whether a is more than two standard errors below b."""
    return self.z < -_SIGNIFICANT

  @property
  def p_value(self) -> float:
    """Two-sided p-value of "no difference" under the normal distribution."""
    return math.erfc(abs(self.z) / math.sqrt(2))


def clustered_mean(
  values: Real[np.ndarray, '...'],
  clusters: Shaped[np.ndarray, ' n'] | None = None,
) -> Estimate:
  r"""Mean of samples, with a standard error clustered by source.

  With $n_c$ values in cluster $c$, $C$ clusters and $n = \sum_c n_c$:

  $$ \bar y = \frac1n \sum_c \sum_i y_{ci}, \qquad
     \mathrm{se}^2 = \frac{C}{C-1} \sum_c
       \Bigl( \frac1n \sum_i (y_{ci} - \bar y) \Bigr)^2 $$

  With equal counts this is the usual standard error of the mean over the
  sources' means. With unequal counts it is the standard error of a ratio
  estimator: both the sum and the number of values vary from source to source.

  Source: Cochran, Sampling Techniques (3rd ed., 1977), chapter 9A, without the
  finite population correction; for language models Miller, Adding Error Bars to
  Evals (arXiv 2411.00640), section 2.2, there without C/(C-1).

  Args:
    values: `[sources, samples]`; or `[n]` values, any number per source,
      together with `clusters`.
    clusters: `[n]` the source of each value; only with `values` of one axis.
      None there: every value is its own cluster.

  Returns:
    The mean of all values and its standard error, in the unit of the values.

  Raises:
    ValueError: the values are not finite, empty, or of fewer than two sources.
  """
  mean, influence = _cluster_influence('values', values, clusters)[:2]
  return Estimate(mean, _stderr(influence))


def paired_difference(
  a: Real[np.ndarray, '...'],
  b: Real[np.ndarray, '...'],
  a_clusters: Shaped[np.ndarray, ' n'] | None = None,
  b_clusters: Shaped[np.ndarray, ' m'] | None = None,
) -> Difference:
  r"""Difference of two means over the same sources, paired by source.

  The difficulty of a source is common to both sides and cancels:

  $$ d = \bar a - \bar b, \qquad
     \mathrm{se}^2 = \frac{C}{C-1} \sum_c \Bigl(
       \frac1{n_a} \sum_i (a_{ci} - \bar a)
       - \frac1{n_b} \sum_i (b_{ci} - \bar b) \Bigr)^2 $$

  With equal counts it is the standard error of the mean, over sources, of the
  differences between the sources' means.

  Source: Miller, Adding Error Bars to Evals (arXiv 2411.00640), section 4.2,
  with the clusters' influences of `clustered_mean`.

  Args:
    a: like `values` of `clustered_mean`; row or cluster c is source c.
    b: likewise; the number of samples may differ from that of `a`.
    a_clusters: the sources of `a`, if it has one axis.
    b_clusters: the sources of `b`, if it has one axis.

  Raises:
    ValueError: the two sides are not of the same sources, or a side is not
      finite, empty, or of fewer than two sources.
  """
  mean_a, influence_a, ids_a = _cluster_influence('a', a, a_clusters)
  mean_b, influence_b, ids_b = _cluster_influence('b', b, b_clusters)
  if not np.array_equal(ids_a, ids_b):
    raise ValueError(
      'a and b must hold samples of the same sources to be paired; got '
      f'{len(ids_a)} sources in a, {len(ids_b)} in b and '
      f'{len(np.intersect1d(ids_a, ids_b))} in both. Evaluate both policies on '
      'the same sources.'
    )
  return Difference(mean_a - mean_b, _stderr(influence_a - influence_b))


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


def bootstrap_interval(
  statistic: Callable[..., float],
  *arrays: Shaped[np.ndarray, 'n ...'],
  num_resamples: int = 1000,
  seed: int = 0,
  clusters: Shaped[np.ndarray, ' n'] | None = None,
) -> tuple[float, float]:
  """95 % percentile bootstrap interval of any statistic of aligned arrays.

  Rows, or whole clusters of rows, are drawn with replacement.

  Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section
  13.3; Koehn, Statistical Significance Tests for Machine Translation Evaluation
  (2004).

  Args:
    statistic: called with the resampled arrays; returns a finite number.
    *arrays: arrays with the same first axis.
    num_resamples: number of resamples, at least 1.
    seed: same seed, same interval.
    clusters: `[n]` the cluster of each row, e.g. its source; None: every row is
      its own cluster.

  Returns:
    (low, high), in the unit of the statistic.

  Raises:
    ValueError: arrays are empty or differ in length, `num_resamples` is below
    1,
      or the statistic is not finite.
  """
  arrays = tuple(np.asarray(array) for array in arrays)
  lengths = sorted({len(array) for array in arrays})
  if len(lengths) != 1 or lengths[0] == 0:
    raise ValueError(
      'arrays must share one first axis of at least one row; got lengths '
      f'{[len(array) for array in arrays]}.'
    )
  if num_resamples < 1:
    raise ValueError(f'num_resamples must be at least 1; got {num_resamples}.')
  labels = np.arange(lengths[0]) if clusters is None else np.asarray(clusters)
  if labels.shape != (lengths[0],):
    raise ValueError(
      f'clusters must have shape {(lengths[0],)}, one for each row; got '
      f'{labels.shape}.'
    )
  index, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
  by_cluster = np.argsort(index, kind='stable')
  starts = np.cumsum(counts) - counts
  generator = np.random.default_rng(seed)
  values = np.empty(num_resamples)
  for resample in range(num_resamples):
    drawn = generator.integers(len(counts), size=len(counts))
    sizes = counts[drawn]
    # Rows starts[c] .. starts[c] + sizes[c] - 1 of `by_cluster`, for each draw.
    shift = np.repeat(starts[drawn] - (np.cumsum(sizes) - sizes), sizes)
    rows = by_cluster[shift + np.arange(len(shift))]
    values[resample] = statistic(*(array[rows] for array in arrays))
  _check_finite('the statistic', values)
  low, high = np.quantile(values, _QUANTILES_95)
  return float(low), float(high)


def correlation_interval(value: float, number: int) -> tuple[float, float]:
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
  half = Z_95 / math.sqrt(number - 3)
  return math.tanh(centre - half), math.tanh(centre + half)


def _cluster_influence(
  name: str,
  values: Real[np.ndarray, '...'],
  clusters: Shaped[np.ndarray, ' n'] | None,
) -> tuple[float, Float[np.ndarray, ' clusters'], np.ndarray]:
  """Returns the mean, the clusters' contributions to its error, and labels."""
  values = np.asarray(values, dtype=np.float64)
  if values.ndim == 2 and clusters is None:
    clusters = np.repeat(np.arange(values.shape[0]), values.shape[1])
    values = values.reshape(-1)
  elif values.ndim != 1:
    raise ValueError(
      f'{name} must have the axes [sources, samples], or one axis with a '
      f'cluster for each value; got shape {values.shape}'
      + (' with clusters.' if clusters is not None else '.')
    )
  if clusters is None:
    clusters = np.arange(len(values))
  clusters = np.asarray(clusters)
  if clusters.shape != values.shape:
    raise ValueError(
      f'clusters of {name} must have shape {values.shape}, one for each value; '
      f'got {clusters.shape}.'
    )
  _check_finite(name, values)
  labels, index = np.unique(clusters, return_inverse=True)
  if len(labels) < 2:
    raise ValueError(
      f'{name} must be of at least two sources: the spread between sources is '
      f'the standard error; got {len(labels)}.'
    )
  mean = values.mean()
  influence = np.bincount(index, weights=values - mean) / len(values)
  return float(mean), influence, labels


def _stderr(influence: Float[np.ndarray, ' clusters']) -> float:
  """Standard error from each cluster's contribution to the error of a mean."""
  correction = len(influence) / (len(influence) - 1)
  return math.sqrt(correction * float(influence @ influence))


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
    _check_finite(name, side)
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
  _check_finite('weights', weights)
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


def _check_finite(name: str, values: Float[np.ndarray, ' n']) -> None:
  bad = np.flatnonzero(~np.isfinite(values))
  if len(values) == 0:
    raise ValueError(f'{name} must hold at least one value; got none.')
  if len(bad):
    raise ValueError(
      f'{name} must be finite; got {values[bad[0]]} at position {bad[0]}, '
      f'{len(bad)} such in {len(values)}. Score these outputs again.'
    )
