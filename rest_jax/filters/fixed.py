"""One threshold for all of D_g: given, or a quantile of its rewards."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantile(base.Filter):
  """F = 1[R(x, y) > tau], tau the q-quantile of the rewards of D_g.

  `values` are q in [0, 1). With one Improve step a Grow this is RAFT's filter.

  Source: RAFT (arXiv 2304.06767); ReST, section 5.
  """

  kind: ClassVar[str] = 'quantile'

  def __post_init__(self):
    super().__post_init__()
    if not all(0.0 <= value < 1.0 for value in self.values):
      raise ValueError(f'quantiles must be in [0, 1); got {self.values}')

  def thresholds(self, value: float, samples: base.Samples) -> np.ndarray:
    """Returns the quantile of all rows that count."""
    rewards = samples.rewards.astype(np.float64)  # A copy: it is reordered.
    quantile = np.quantile(rewards, value, overwrite_input=True)
    return np.asarray(quantile, np.float32)
