"""Filters with one threshold for all sources: a given reward, or a quantile."""

import dataclasses
from typing import ClassVar

import numpy as np

from rest_jax.filters import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed(base.Filter):
  """F = 1[R(x, y) > tau], tau given; the paper's filter.

  `values` are the thresholds tau_1 < ... < tau_I on normalised rewards;
  -inf keeps all of D_g (the paper's G=1, I=0).

  Source: ReST (arXiv 2308.08998), section 3 and 4.
  """

  kind: ClassVar[str] = 'fixed'

  def thresholds(self, value: float, samples: base.Samples) -> np.ndarray:
    """Returns `value`."""
    del samples
    return np.asarray(value, np.float32)

  def asks_for_all(self, value: float, samples: base.Samples) -> bool:
    """Returns whether `value` is negative and below all rewards."""
    rewards = samples.rewards[samples.is_eligible]
    return value < 0.0 and bool((rewards > value).all())

  def _advice(self, rewards: np.ndarray, counted: np.ndarray) -> str:
    del counted
    return (
      f'Lower the threshold below {rewards.max():.3f}, or use the quantile '
      'filter (gin_configs/filters/quantile.gin), whose thresholds follow the '
      'rewards.'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantile(base.Filter):
  """F = 1[R(x, y) > tau], tau the q-quantile of the rewards of D_g.

  `values` are q in [0, 1). With one Improve step per Grow step this is RAFT's
  filter.

  Source: RAFT (arXiv 2304.06767); ReST, section 5.
  """

  kind: ClassVar[str] = 'quantile'

  def _check_values(self, values: tuple[float, ...]) -> None:
    if not all(0.0 <= value < 1.0 for value in values):
      raise ValueError(f'quantiles must be in [0, 1); got {values}')

  def thresholds(self, value: float, samples: base.Samples) -> np.ndarray:
    """Returns the quantile of the rewards of all counted rows."""
    rewards = samples.rewards.astype(np.float64)  # A copy: it is reordered.
    quantile = np.quantile(rewards, value, overwrite_input=True)
    return np.asarray(quantile, np.float32)

  def asks_for_all(self, value: float, samples: base.Samples) -> bool:
    """Returns whether `value` is quantile 0, the lowest reward."""
    del samples
    return value == 0.0

  def _advice(self, rewards: np.ndarray, counted: np.ndarray) -> str:
    del rewards
    ties, size = int((counted == counted.max()).sum()), counted.size
    if ties == size:
      return (
        'No quantile separates equal rewards, and only rewards above it are '
        f'kept: {size} of {size} rows have the reward {counted.max():.3f}. Draw '
        'more samples, use more sources, or use the percentile filter '
        '(gin_configs/filters/percentile.gin), which keeps rewards equal to its '
        'threshold.'
      )
    return (
      f'{ties} of {size} rows have the highest reward, which is therefore the '
      f'quantile: lower the quantile below {(size - ties) / (size - 1):.3f}.'
    )
