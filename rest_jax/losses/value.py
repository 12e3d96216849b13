"""Loss of the value function: the expected return from a position."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from rest_jax import settings
from rest_jax.losses import base, ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueRegression(base.Loss):
  """Squared error of a value function to the Monte Carlo returns of D_g.

  L(x, y; theta) = sum_t w_t (V_theta(x, y_<t) - G_t)^2,  G_t = gamma^(T-t) R(x,
  y) w_t = (T - t + 1)^-p

  T is the position of the last token, which gets the whole reward. With p = 0
  all tokens have equal weight. The variance of G_t grows with the number of
  remaining tokens; as in weighted least squares, p > 0 gives more weight to
  returns with less variance. The optimal V at a position does not depend on the
  weights.

  Source: ReST (arXiv 2308.08998), A.8.4. The weights are ours.

  Attributes:
    discount: gamma, in (0, 1].
    remaining_power: p, at least 0.
  """

  name: ClassVar[str] = 'value'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)

  discount: float = 1.0
  remaining_power: float = 0.0

  def __post_init__(self):
    settings.inside(self, '(0, 1]', 'discount')
    settings.at_least(self, 0, 'remaining_power')

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    del rewards
    # sums[T]: sum of the weights of a hypothesis with T tokens.
    remaining = np.arange(1, int(lengths.max(initial=0)) + 1)
    powers = np.power(remaining, -float(self.remaining_power))
    sums = np.concatenate([[0.0], np.cumsum(powers)])
    return (weights * sums[lengths]).sum(axis=1)

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the sum of all weights."""
    values = inputs.model.values(
      inputs.params, inputs.batch, dropout_key=inputs.dropout_key
    )  # [B, T]
    is_token, weights = inputs.is_token, inputs.weights
    returns = ops.monte_carlo_returns(
      inputs.batch['rewards'], is_token, self.discount
    )
    squared = jnp.square(values.astype(jnp.float32) - returns)
    metrics = {'squared_error': ((squared * weights).sum(), weights.sum())}
    remaining = jnp.where(is_token, ops.tokens_ahead(is_token) + 1, 1)
    weights = weights * jnp.power(remaining, -self.remaining_power)
    return base.LossOutput((squared * weights).sum(), weights.sum(), metrics)
