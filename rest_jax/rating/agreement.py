"""How far raters agree: Krippendorff's alpha and Pearson's correlation."""

from collections.abc import Sequence
import dataclasses
import itertools

from jaxtyping import Float
import numpy as np

from rest_jax.evaluation import metrics
from rest_jax.rating import config as config_lib
from rest_jax.rating import store as store_lib


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two raters.

  Attributes:
    first: a name.
    second: another.
    outputs: number that both rated: of scores two an item, of preferences one.
    pearson: correlation over these; None where one of them gave all the same.
  """

  first: str
  second: str
  outputs: int
  pearson: float | None


@dataclasses.dataclass(frozen=True)
class Agreement:
  """The raters of one kind of ratings.

  Attributes:
    raters: their names, sorted.
    alpha: Krippendorff's; None where nothing was rated twice, or all alike.
    pairs: those with something rated by both.
  """

  raters: tuple[str, ...]
  alpha: float | None
  pairs: tuple[Pair, ...]


def measure(ratings: Sequence[store_lib.Rating], kind: str) -> Agreement:
  """Compares what raters said of the same outputs.

  Args:
    ratings: of one kind.
    kind: that kind.

  Returns:
    The agreement.
  """
  raters, values = _table(ratings, kind)
  pairs = []
  for (i, first), (j, second) in itertools.combinations(enumerate(raters), 2):
    both = ~np.isnan(values[i]) & ~np.isnan(values[j])
    if both.any():
      correlation = _pearson(values[i, both], values[j, both])
      pairs.append(Pair(first, second, int(both.sum()), correlation))
  return Agreement(tuple(raters), krippendorff_alpha(values), tuple(pairs))


def krippendorff_alpha(
  values: Float[np.ndarray, 'raters units'],
) -> float | None:
  r"""Krippendorff's alpha with the interval metric; 1 is full agreement.

  Over the values v of units that two raters or more rated, m_u of unit u, n in
  all:

  $$ \alpha = 1 - \frac{D_o}{D_e}, \quad
     D_o = \frac1n \sum_u \frac1{m_u - 1} \sum_{i \ne j} (v_{ui} - v_{uj})^2,
     \quad
     D_e = \frac1{n (n - 1)} \sum_{k \ne l} (v_k - v_l)^2 $$

  0 is what raters who answer at random reach; it can be negative.

  Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).

  Args:
    values: `[raters, units]`, NaN where a rater did not rate a unit.

  Returns:
    alpha; None where no unit has two values, or all values are equal.
  """
  counts = (~np.isnan(values)).sum(axis=0)
  values, counts = values[:, counts > 1], counts[counts > 1]
  n = counts.sum()
  if not n:
    return None
  # The squared differences of m values sum up to 2 m times their squared
  # distances from their mean.
  around_units = np.nansum((values - np.nanmean(values, axis=0)) ** 2, axis=0)
  observed = (2 * counts * around_units / (counts - 1)).sum() / n
  expected = 2 * np.nansum((values - np.nanmean(values)) ** 2) / (n - 1)
  return None if expected == 0 else float(1 - observed / expected)


def _table(
  ratings: Sequence[store_lib.Rating], kind: str
) -> tuple[list[str], np.ndarray]:
  """Returns raters and their values, [raters, units], NaN where there is none.

  Of scores each output of an item is a unit. Of preferences the item is: what
  was said of the second output follows from the first.
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
  return raters, table


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return None
  return metrics.pearson(x, y)
