"""Behavioural cloning weighted by the reward."""

import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from rest_jax import settings
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardWeightedBC(base.Loss):
  """Negative log-likelihood weighted by the exponential of the reward.

  L(x, y; theta) = - w(R) sum_t log pi_theta(y_t | y_<t, x)
  w(R) = min(exp((R - 1) / beta), w_max)

  divided by the mean weighted number of tokens per batch, so that only ratios
  of weights matter. A large beta approaches BC; with a small beta only the best
  samples count.

  Source: reward-weighted regression, Peters and Schaal (2007), Eq. 8.

  Note: not among the paper's losses.

  Attributes:
    temperature: beta > 0, in units of the normalised reward.
    max_weight: w_max > 0; the weight of reward 1 is 1.
  """

  name: ClassVar[str] = 'reward_weighted_bc'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)

  temperature: float = 0.2
  max_weight: float = 20.0

  def __post_init__(self):
    settings.positive(self, 'temperature', 'max_weight')

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    return (lengths * weights * self._of_reward(np, rewards)).sum(axis=1)

  def _of_reward(self, numbers: Any, rewards: Any) -> Any:
    """Returns w(R), with numpy or jax.numpy."""
    # Clipped before the exponential, which may overflow.
    exponent = (rewards - 1.0) / self.temperature
    return numbers.exp(numbers.minimum(exponent, math.log(self.max_weight)))

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the weighted number of tokens."""
    weights = inputs.weights  # [B, T]
    of_reward = self._of_reward(jnp, inputs.batch['rewards'])  # [B]
    nll = -inputs.log_probs()  # [B, T]
    weighted = weights * of_reward[:, None]
    rows = (weights.max(-1) > 0).astype(jnp.float32)
    metrics = {
      'nll': ((nll * weights).sum(), weights.sum()),
      'reward_weight': ((of_reward * rows).sum(), rows.sum()),
    }
    return base.LossOutput((nll * weighted).sum(), weighted.sum(), metrics)
