"""Filters with a threshold per source, from the rewards of its own samples."""

import dataclasses
from typing import ClassVar

import numpy as np

from rest_jax.filters import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Percentile(base.Filter):
  """F = 1[R(x, y) >= tau(x)], tau(x) a percentile of the source's rewards.

  `values` are p in [0, 100], interpolated linearly between ranks. Repeated
  samples are dropped first and the comparison is inclusive: with few distinct
  outputs, a strict comparison would keep no sample of the sources on which the
  policy is most confident.

  Source: ReST (arXiv 2308.08998), A.7 and Fig. 15.
  """

  kind: ClassVar[str] = 'percentile'
  is_inclusive: ClassVar[bool] = True

  deduplicate: bool = True
  count_references: bool = False

  def _check_values(self, values: tuple[float, ...]) -> None:
    if not all(0.0 <= value <= 100.0 for value in values):
      raise ValueError(f'percentiles must be in [0, 100]; got {values}')

  def thresholds(self, value: float, samples: base.Samples) -> np.ndarray:
    """Returns the percentile of each source, [sources]."""
    starts = base.group_starts(samples.source_ids)
    counts = np.diff(starts, append=len(samples.source_ids))
    ranked = base.sorted_within(samples.rewards, counts)
    rank = (counts - 1) * (value / 100.0)
    low = np.floor(rank).astype(np.int64)
    high = np.minimum(low + 1, counts - 1)
    share = (rank - low).astype(np.float32)
    below, above = ranked[starts + low], ranked[starts + high]
    # This form is exact at both ends: tau must not exceed its own sample.
    return np.minimum(below + share * (above - below), above)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation(base.Filter):
  """F = 1[R >= tau(x)], tau(x) = gamma V_max(x) + (1 - gamma) V_mean(x).

  V_max and V_mean are the maximum and the mean reward of the source's samples;
  `values` are gamma in [0, 1]. Repeated samples are dropped first and the
  comparison is inclusive, so that gamma = 1 keeps the best sample.

  Source: ReST (arXiv 2308.08998), A.7 and Fig. 16.
  """

  kind: ClassVar[str] = 'interpolation'
  is_inclusive: ClassVar[bool] = True

  deduplicate: bool = True
  count_references: bool = False

  def _check_values(self, values: tuple[float, ...]) -> None:
    if not all(0.0 <= value <= 1.0 for value in values):
      raise ValueError(f'gammas must be in [0, 1]; got {values}')

  def thresholds(self, value: float, samples: base.Samples) -> np.ndarray:
    """Returns the threshold of each source, [sources]."""
    starts = base.group_starts(samples.source_ids)
    counts = np.diff(starts, append=len(samples.source_ids))
    rewards = samples.rewards.astype(np.float64)
    largest = np.maximum.reduceat(rewards, starts)
    mean = np.add.reduceat(rewards, starts) / counts
    # Rounding may make the mean of equal rewards exceed their maximum.
    tau = largest - (1.0 - value) * np.maximum(largest - mean, 0.0)
    return np.minimum(tau, largest).astype(np.float32)
