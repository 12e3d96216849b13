"""Agreement of raters: Krippendorff's alpha and Pearson's correlation."""

from collections.abc import Callable, Sequence
import dataclasses
import itertools

from jaxtyping import Float, Int
import numpy as np

from rest_jax.evaluation import correlations
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib

_NUM_RESAMPLES = 500


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two raters.

  Attributes:
    first: name of the first rater.
    second: name of the second rater.
    outputs: number of outputs rated by both: two per item for scores, one for
      preferences.
    pearson: their correlation; None if they are fewer than
      `correlations.MIN_CORRELATED`, or all ratings of a rater are equal.
    interval: 95 % interval, by bootstrap over items.
  """

  first: str
  second: str
  outputs: int
  pearson: float | None
  interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Agreement:
  """The raters of one kind of ratings.

  Attributes:
    raters: names of the raters, sorted.
    alpha: Krippendorff's alpha; None if fewer than
      `correlations.MIN_CORRELATED` outputs were rated twice, or all ratings are
      equal.
    pairs: pairs of raters with common outputs.
    units: number of outputs (items for preferences) with at least two raters.
    interval: 95 % interval of alpha, by bootstrap over items.
  """

  raters: tuple[str, ...]
  alpha: float | None
  pairs: tuple[Pair, ...]
  units: int = 0
  interval: tuple[float, float] | None = None


def measure(ratings: Sequence[store_lib.Rating], kind: str) -> Agreement:
  """Compares the ratings of the same outputs."""
  raters, values, items = _table(ratings, kind)
  pairs = []
  for (i, first), (j, second) in itertools.combinations(enumerate(raters), 2):
    both = ~np.isnan(values[i]) & ~np.isnan(values[j])
    if both.any():
      value, interval = _measured(
        _pearson, values[[i, j]][:, both], items[both]
      )
      pairs.append(Pair(first, second, int(both.sum()), value, interval))
  twice = (~np.isnan(values)).sum(axis=0) > 1
  alpha, interval = _measured(
    krippendorff_alpha, values[:, twice], items[twice]
  )
  return Agreement(
    tuple(raters), alpha, tuple(pairs), int(twice.sum()), interval
  )


def _measured(
  statistic: Callable[[np.ndarray], float | None],
  values: Float[np.ndarray, 'raters units'],
  items: Int[np.ndarray, ' units'],
) -> tuple[float | None, tuple[float, float] | None]:
  """Returns a statistic of units and its interval; None for too few units."""
  value = (
    statistic(values) if len(items) >= correlations.MIN_CORRELATED else None
  )
  if value is None:
    return None, None
  of_item = [np.flatnonzero(items == item) for item in np.unique(items)]
  draw = np.random.default_rng(0)
  resamples = []
  for _ in range(_NUM_RESAMPLES):
    drawn = draw.integers(len(of_item), size=len(of_item))
    resampled = statistic(
      values[:, np.concatenate([of_item[i] for i in drawn])]
    )
    # A resample with equal values has no alpha.
    if resampled is not None:
      resamples.append(resampled)
  low, high = np.quantile(resamples or [value], [0.025, 0.975])
  return value, (float(low), float(high))


def krippendorff_alpha(
  values: Float[np.ndarray, 'raters units'],
) -> float | None:
  r"""Returns Krippendorff's alpha with the interval metric.

  Over the values v of units with at least two raters, m_u values of unit u, n
  in total:

  $$ \alpha = 1 - \frac{D_o}{D_e}, \quad
     D_o = \frac1n \sum_u \frac1{m_u - 1} \sum_{i \ne j} (v_{ui} - v_{uj})^2,
     \quad
     D_e = \frac1{n (n - 1)} \sum_{k \ne l} (v_k - v_l)^2 $$

  1 is full agreement, 0 that of random answers; it can be negative.

  Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).

  Args:
    values: `[raters, units]`, NaN where a rater did not rate a unit.

  Returns:
    alpha; None if no unit has two values, or all values are equal.
  """
  counts = (~np.isnan(values)).sum(axis=0)
  values, counts = values[:, counts > 1], counts[counts > 1]
  n = counts.sum()
  if not n:
    return None
  # The squared differences of m values sum to 2 m times their squared distances
  # from the mean.
  around_units = np.nansum((values - np.nanmean(values, axis=0)) ** 2, axis=0)
  observed = (2 * counts * around_units / (counts - 1)).sum() / n
  expected = 2 * np.nansum((values - np.nanmean(values)) ** 2) / (n - 1)
  return None if expected == 0 else float(1 - observed / expected)


def _table(
  ratings: Sequence[store_lib.Rating], kind: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
  """Returns raters, their values, [raters, units], and the item of each unit.

  A missing value is NaN. For scores each output of an item is a unit; for
  preferences the item is, since the second output's value follows from the
  first.
  """
  raters = sorted({rating.rater for rating in ratings})
  units: dict[tuple[store_lib.Item, int], int] = {}
  cells = []
  for rating in ratings:
    outputs = (rating.first, rating.second)
    for side, value in enumerate(
      outputs if kind == config_lib.SCORES else outputs[:1]
    ):
      unit = units.setdefault((rating.item, side), len(units))
      cells.append((raters.index(rating.rater), unit, value))
  table = np.full((len(raters), len(units)), np.nan)
  for row, unit, value in cells:
    table[row, unit] = value
  numbers: dict[store_lib.Item, int] = {}
  items = [numbers.setdefault(item, len(numbers)) for item, _ in units]
  return raters, table, np.asarray(items, np.int64)


def _pearson(values: Float[np.ndarray, '2 units']) -> float | None:
  if min(np.ptp(values, axis=1)) == 0:
    return None
  return correlations.pearson(*values)
