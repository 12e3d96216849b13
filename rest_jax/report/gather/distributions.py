"""Distributions of the rewards of D_g, counted in a stream."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses

import numpy as np

# Maximum number of values that determine the bins; all values are counted.
_RANGE_VALUES = 1_000_000

# Yields all rewards in chunks, each time it is called.
Chunks = Callable[[], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
  """Rewards counted in bins.

  Attributes:
    edges: float64 [bins + 1], normalised rewards. The lowest and the highest
      0.1 % are counted in the first and the last bin.
    counts: int64 [bins].
    mean: mean of all rewards.
    above: number of rewards above each threshold.
  """

  edges: np.ndarray
  counts: np.ndarray
  mean: float
  above: Mapping[float, int]

  @property
  def count(self) -> int:
    """Number of rewards."""
    return int(self.counts.sum())

  def fraction_above(self, threshold: float) -> float:
    """Share of rewards above one of the thresholds, in [0, 1]."""
    return self.above[threshold] / self.count


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptDistribution:
  """The rewards of D_g before and after a filter, in the same bins.

  Attributes:
    name: name of the Improve step.
    edges: float64 [bins + 1], normalised rewards.
    before: int64 [bins], numbers of rows that may be trained on.
    after: int64 [bins], numbers of rows that the filter keeps.
  """

  name: str
  edges: np.ndarray
  before: np.ndarray
  after: np.ndarray


def measure(
  chunks: Chunks, thresholds: Sequence[float] = (), *, num_bins: int = 60
) -> Distribution:
  """Counts rewards; they are read three times and never held all at once.

  Args:
    chunks: yields float [n] normalised rewards.
    thresholds: thresholds in the unit of the rewards.
    num_bins: number of bins, at least 1.

  Returns:
    The exact counts. The bins are determined by at most a million values,
    evenly spread.

  Raises:
    ValueError: there are no rewards, or some are not finite.
  """
  count, total = 0, 0.0
  above = dict.fromkeys(sorted(thresholds), 0)
  for chunk in chunks():
    chunk = np.asarray(chunk)
    if chunk.ndim != 1 or not np.isfinite(chunk).all():
      raise ValueError(
        'rewards must be finite numbers along one axis; got shape '
        f'{chunk.shape} with {np.count_nonzero(~np.isfinite(chunk))} that are '
        'not finite. Score the samples again.'
      )
    count += len(chunk)
    total += float(chunk.sum(dtype=np.float64))
    for threshold in above:
      # In the rewards' own dtype, as filters compare them.
      passes = chunk > chunk.dtype.type(threshold)
      above[threshold] += int(np.count_nonzero(passes))
  if not count:
    raise ValueError('rewards must be finite numbers, at least one; got none.')
  edges = _edges(chunks, count, num_bins)
  counts = np.zeros(num_bins, np.int64)
  for chunk in chunks():
    counts += count_in(edges, chunk)
  return Distribution(
    edges=edges, counts=counts, mean=total / count, above=above
  )


def count_in(edges: np.ndarray, rewards: np.ndarray) -> np.ndarray:
  """Counts values by bin; values outside count in the first or last bin."""
  if not len(rewards):
    return np.zeros(len(edges) - 1, np.int64)
  clipped = np.clip(np.asarray(rewards, np.float64), edges[0], edges[-1])
  return np.histogram(clipped, bins=edges)[0]


def _edges(chunks: Chunks, count: int, num_bins: int) -> np.ndarray:
  stride = -(-count // _RANGE_VALUES)
  values, offset = [], 0
  for chunk in chunks():
    values.append(np.asarray(chunk[-offset % stride :: stride], np.float64))
    offset += len(chunk)
  low, high = np.quantile(np.concatenate(values), [0.001, 0.999])
  if low == high:  # All rewards are equal, and bins need a width.
    low, high = low - 0.005, high + 0.005
  return np.linspace(low, high, num_bins + 1)
