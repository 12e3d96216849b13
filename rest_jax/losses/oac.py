"""Offline actor-critic: log-likelihood weighted by the advantage."""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from rest_jax import settings, types
from rest_jax.losses import base, ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class OAC(base.Loss):
  """Policy gradient on D_g with the advantage over the value function.

  L(x, y; theta) = - sum_t A_t log pi_theta(y_t | y_<t, x)
  A_t = r_t + gamma V(s_{t+1}) - V(s_t)

  No gradient flows through A. The probability of tokens with a negative
  advantage is lowered without bound, so learning rates must be low.

  Source: Mathieu et al. (2021); ReST (arXiv 2308.08998), A.8.3: V estimates the
  value of the behaviour policy in D_g, without V-trace.

  Attributes:
    discount: gamma, in (0, 1].
    value_coefficient: c, at least 0. If above 0, the value function is trained
      too, with the loss c (V(s_t) - gamma^(T-t) R)^2 per token.
  """

  name: ClassVar[str] = 'oac'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)
  needs: ClassVar[tuple[str, ...]] = ('value',)

  discount: float = 1.0
  value_coefficient: float = 0.0

  def __post_init__(self):
    settings.inside(self, '(0, 1]', 'discount')
    settings.at_least(self, 0, 'value_coefficient')

  @property
  def reads(self) -> tuple[str, ...]:
    return () if self.value_coefficient else self.needs

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del params
    if not self.value_coefficient:
      return base.Auxiliary()
    return base.Auxiliary(learned={'value': given['value']})

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    weights, is_token = inputs.weights, inputs.is_token  # [B, T]
    rewards = inputs.batch['rewards']
    models = inputs.given
    if self.value_coefficient:
      models = inputs.auxiliary.learned
    values = inputs.values(models['value'])  # [B, T]
    earned = ops.last_token_rewards(rewards, is_token)
    advantages = jax.lax.stop_gradient(
      ops.td_errors(earned, values, is_token, self.discount)
    )
    log_probs = inputs.log_probs()
    total = -(advantages * log_probs * weights).sum()
    count = weights.sum()
    metrics = {
      'nll': (-(log_probs * weights).sum(), count),
      'advantage': ((advantages * weights).sum(), count),
      'advantage_size': ((jnp.abs(advantages) * weights).sum(), count),
    }
    if self.value_coefficient:
      returns = ops.monte_carlo_returns(rewards, is_token, self.discount)
      squared = (jnp.square(values - returns) * weights).sum()
      total = total + self.value_coefficient * squared
      metrics['value_squared_error'] = (squared, count)
    return base.LossOutput(total, count, metrics)
