"""Means and differences of policies, with their uncertainty.

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
      1, or the statistic is not finite.
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
  check_finite('the statistic', values)
  low, high = np.quantile(values, _QUANTILES_95)
  return float(low), float(high)


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
  check_finite(name, values)
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


def check_finite(name: str, values: Float[np.ndarray, ' n']) -> None:
  """Raises ValueError unless there are values, all finite."""
  bad = np.flatnonzero(~np.isfinite(values))
  if len(values) == 0:
    raise ValueError(f'{name} must hold at least one value; got none.')
  if len(bad):
    raise ValueError(
      f'{name} must be finite; got {values[bad[0]]} at position {bad[0]}, '
      f'{len(bad)} such in {len(values)}. Score these outputs again.'
    )
