"""Offline actor-critic: log-likelihood weighted by the advantage."""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rest_jax import types
from rest_jax.losses import base
from rest_jax.losses import value as value_lib
from rest_jax.models import scalar


@dataclasses.dataclass(frozen=True, kw_only=True)
class OAC(base.Loss):
  """Policy gradient on D_g with the advantage over its value function.

  L(x, y; theta) = - sum_t A_t log pi_theta(y_t | y_<t, x)
  A_t = r_t + gamma V(s_{t+1}) - V(s_t)

  No gradient flows through A. Tokens of a negative advantage are made less
  likely without bound, so learning rates have to be low.

  Source: Mathieu et al. (2021); ReST (arXiv 2308.08998), A.8.3: V estimates the
  value of the behaviour in D_g, and there is no V-trace.

  Attributes:
    discount: gamma, in (0, 1].
    value_coefficient: c >= 0; with c > 0 the value function is trained on, by
      c (V(s_t) - gamma^(T-t) R)^2 a token. 0 leaves it as it is.
  """

  name: ClassVar[str] = 'oac'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)
  needs: ClassVar[tuple[str, ...]] = ('value',)

  discount: float = 1.0
  value_coefficient: float = 0.0

  def __post_init__(self):
    value_lib.check_discount(self.discount)
    if self.value_coefficient < 0:
      raise ValueError(
        f'value_coefficient must be at least 0; got {self.value_coefficient}'
      )

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del params
    state = {'value': given['value']}
    if self.value_coefficient:
      return base.Auxiliary(learned=state)
    return base.Auxiliary(carried=state)

  def values(
    self, model: Any, auxiliary: base.Auxiliary, batch: types.Batch
  ) -> Float[Array, 'B T']:
    """V(s_t) of every position, s_t being the source and the tokens before t."""
    state = auxiliary.learned if self.value_coefficient else auxiliary.carried
    return scalar.ScalarModel(model.config).values(state['value'], batch)

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
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    del statistics
    weights = batch['decoder_loss_weights']  # [B, T]
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    rewards = batch['rewards']
    values = self.values(model, auxiliary, batch)  # [B, T]
    advantages = jax.lax.stop_gradient(
      value_lib.advantages(values, rewards, is_token, self.discount)
    )
    log_probs = model.log_probs(params, batch, dropout_key=dropout_key)
    total = -(advantages * log_probs * weights).sum()
    count = weights.sum()
    metrics = {
      'nll': (-(log_probs * weights).sum(), count),
      'advantage': ((advantages * weights).sum(), count),
      'advantage_size': ((jnp.abs(advantages) * weights).sum(), count),
    }
    if self.value_coefficient:
      returns = value_lib.monte_carlo_returns(rewards, is_token, self.discount)
      squared = (jnp.square(values - returns) * weights).sum()
      total = total + self.value_coefficient * squared
      metrics['value_squared_error'] = (squared, count)
    return base.LossOutput(total, count, metrics)
