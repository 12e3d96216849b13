"""The value function: what is still to be earned from a position on."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from rest_jax import types
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueRegression(base.Loss):
  """Squared error of a value function to the Monte-Carlo returns of D_g.

  L(x, y; theta) = sum_t w_t (V_theta(x, y_<t) - G_t)^2,  G_t = gamma^(T-t) R(x, y)
  w_t = (T - t + 1)^-p

  T is the position of the last token: the reward comes with it, and nothing
  before it. With p = 0 every token counts alike. The more of y is still to be
  drawn, the more G_t scatters around what V is to learn: as in weighted least
  squares, p > 0 trusts the returns that scatter less. What V converges to at a
  position does not depend on the weights.

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
    check_discount(self.discount)
    if self.remaining_power < 0:
      raise ValueError(
        f'remaining_power must be at least 0; got {self.remaining_power}'
      )

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    del rewards
    # sums[T]: of the weights of a hypothesis of T tokens.
    remaining = np.arange(1, int(lengths.max(initial=0)) + 1)
    powers = np.power(remaining, -float(self.remaining_power))
    sums = np.concatenate([[0.0], np.cumsum(powers)])
    return (weights * sums[lengths]).sum(axis=1)

  def __call__(
    self,
    *,
    model: Any,
    params: types.Params,
    auxiliary: base.Auxiliary,
    batch: types.Batch,
    statistics: Any = None,
    dropout_key: jax.Array | None = None,
  ) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the sum of all weights."""
    del auxiliary, statistics
    values = model.values(params, batch, dropout_key=dropout_key)  # [B, T]
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    returns = monte_carlo_returns(batch['rewards'], is_token, self.discount)
    weights = batch['decoder_loss_weights']
    squared = jnp.square(values.astype(jnp.float32) - returns)
    metrics = {'squared_error': ((squared * weights).sum(), weights.sum())}
    remaining = jnp.where(is_token, tokens_ahead(is_token) + 1, 1)
    weights = weights * jnp.power(remaining, -self.remaining_power)
    return base.LossOutput((squared * weights).sum(), weights.sum(), metrics)


def check_discount(discount: float) -> None:
  """Raises unless gamma is in (0, 1]."""
  if not 0.0 < discount <= 1.0:
    raise ValueError(f'discount must be in (0, 1]; got {discount}')


def monte_carlo_returns(
  rewards: Float[Array, ' B'], is_token: Bool[Array, 'B T'], discount: float
) -> Float[Array, 'B T']:
  """G_t = gamma^(T-t) R for every token t of a hypothesis, 0 after it.

  Args:
    rewards: R, of each hypothesis.
    is_token: True up to the last token, False after it.
    discount: gamma.
  """
  returns = rewards[:, None] * jnp.power(discount, tokens_ahead(is_token))
  return jnp.where(is_token, returns, 0.0)


def tokens_ahead(is_token: Bool[Array, 'B T']) -> Int[Array, 'B T']:
  """T - t: how many tokens come after each; -1 after the last."""
  return jnp.cumsum(is_token[:, ::-1], axis=1)[:, ::-1] - 1


def advantages(
  values: Float[Array, 'B T'],
  rewards: Float[Array, ' B'],
  is_token: Bool[Array, 'B T'],
  discount: float,
) -> Float[Array, 'B T']:
  """A_t = r_t + gamma V(s_{t+1}) - V(s_t), 0 after the hypothesis.

  r_t is R at the last token and 0 before; the value after the last token is 0.

  Source: ReST (arXiv 2308.08998), A.8.3: no V-trace.

  Args:
    values: V(s_t), of what is known before token t.
    rewards: R, of each hypothesis.
    is_token: True up to the last token, False after it.
    discount: gamma.
  """
  one_more = ((0, 0), (0, 1))
  follows = jnp.pad(is_token[:, 1:], one_more)  # another token comes after t
  later = jnp.where(follows, jnp.pad(values[:, 1:], one_more), 0.0)
  earned = jnp.where(follows, 0.0, rewards[:, None])
  return jnp.where(is_token, earned + discount * later - values, 0.0)
