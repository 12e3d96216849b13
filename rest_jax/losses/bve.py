"""Behaviour value estimation: the policy's logits as one-step Q-values."""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax import settings, types
from rest_jax.losses import base, ops
from rest_jax.models import policy as policy_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class BVE(base.Loss):
  """Temporal-difference loss of the action values of the behaviour policy.

  L(x, y; theta) = sum_t (Q_theta(s_t, y_t) - r_t - gamma Q'(s_{t+1},
  y_{t+1}))^2 Q_theta(s, a) = alpha z_theta(s, a),  pi(a | s) =
  softmax(Q_theta(s, .) / alpha)

  z are the logits. r_t is R at the last token and 0 before; the value after the
  last token is 0, and Q' is Q with lagged parameters. Only actions in D_g are
  learned, so nothing keeps the values of other actions low: the paper also
  reports a poor policy.

  Source: Gulcehre et al. (arXiv 2103.09575), section 2; ReST (arXiv
  2308.08998), A.2, which starts from BC and gives no other detail. Sampling in
  proportion to exp(Q / alpha) is ours.

  Attributes:
    discount: gamma, in (0, 1].
    temperature: alpha > 0, reward per nat.
    lag: number of steps, at least 1, after which the parameters of Q' are
      renewed.
  """

  name: ClassVar[str] = 'bve'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)

  discount: float = 1.0
  temperature: float = 0.1
  lag: int = 20

  def __post_init__(self):
    settings.inside(self, '(0, 1]', 'discount')
    settings.positive(self, 'temperature')
    settings.at_least(self, 1, 'lag')

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del given
    return base.with_lagged(params)

  def update_auxiliary(
    self, auxiliary: base.Auxiliary, *, params: types.Params, step: jax.Array
  ) -> base.Auxiliary:
    return base.renew_lagged(auxiliary, params=params, step=step, lag=self.lag)

  def action_values(
    self, logits: Float[Array, 'B T V'], targets: Int[Array, 'B T']
  ) -> Float[Array, 'B T']:
    """Returns Q(s_t, y_t) of the target tokens."""
    taken = policy_lib.target_logits(logits.astype(jnp.float32), targets)
    return self.temperature * taken

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    weights, targets = inputs.weights, inputs.targets  # [B, T]
    logits = inputs.logits()
    values = self.action_values(logits, targets)
    lagged = self.action_values(
      inputs.model.logits(inputs.auxiliary.carried[base.LAGGED], inputs.batch),
      targets,
    )
    rewards = ops.last_token_rewards(inputs.batch['rewards'], inputs.is_token)
    # The TD error of the lagged values, plus these values, is r_t + gamma Q'.
    goals = lagged + ops.td_errors(
      rewards, lagged, inputs.is_token, self.discount
    )
    squared = jnp.square(values - jax.lax.stop_gradient(goals)) * weights
    nll = -(policy_lib.target_log_probs(logits, targets) * weights).sum()
    total, count = squared.sum(), weights.sum()
    metrics = {
      'nll': (nll, count),
      'action_value': ((values * weights).sum(), count),
      'squared_error': (total, count),
    }
    return base.LossOutput(total, count, metrics)
