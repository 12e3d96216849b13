"""GOLD: off-policy policy gradient with rewards from the BC policy."""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rest_jax import settings, types
from rest_jax.losses import base, ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Gold(base.Loss):
  """Base of GOLD-p and GOLD-s.

  L(x, y; theta) = - sum_t clip(pi~(y_t), u, 1) Q_t log pi_theta(y_t | y_<t, x)
  Q_t = sum_{j=0..k} gamma^j r_{t+j}

  No gradient flows through the weights. pi~ is the trained policy, or a lagged
  copy of it; r is computed from the BC policy's token probabilities, and is 0
  after EOS. GOLD does not maximise the likelihood of the data: evaluate it by
  reward.

  Source: Pang and He (2021), Eq. 4 and section 3.2; ReST (arXiv 2308.08998),
  A.8.2.

  Attributes:
    min_importance: u, in [0, 1], the smallest importance weight.
    future_steps: k, at least 0, number of next tokens that a token is credited
      for.
    discount: gamma, in [0, 1].
    lag: number of steps after which pi~ is renewed; 0 for the policy itself.
  """

  columns: ClassVar[tuple[str, ...]] = ()
  needs: ClassVar[tuple[str, ...]] = ('bc',)

  min_importance: float = 0.1
  future_steps: int = 5
  discount: float = 1.0
  lag: int = 0

  def __post_init__(self):
    settings.inside(self, '[0, 1]', 'min_importance', 'discount')
    settings.at_least(self, 0, 'future_steps', 'lag')

  def token_rewards(
    self, bc_log_probs: Float[Array, 'B T']
  ) -> Float[Array, 'B T']:
    """Returns r of each token, from its log-probability under the BC policy."""
    raise NotImplementedError

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del given
    return base.with_lagged(params) if self.lag else base.Auxiliary()

  def update_auxiliary(
    self, auxiliary: base.Auxiliary, *, params: types.Params, step: jax.Array
  ) -> base.Auxiliary:
    if not self.lag:
      return auxiliary
    return base.renew_lagged(auxiliary, params=params, step=step, lag=self.lag)

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    weights, is_token = inputs.weights, inputs.is_token  # [B, T]
    model, batch = inputs.model, inputs.batch
    log_probs = behind = inputs.log_probs()
    if self.lag:
      behind = model.log_probs(inputs.auxiliary.carried[base.LAGGED], batch)
    bc_log_probs = model.log_probs(inputs.given['bc'], batch)  # [B, T]
    rewards = jnp.where(is_token, self.token_rewards(bc_log_probs), 0.0)
    returns = ops.discounted_sums(rewards, self.future_steps, self.discount)
    credit, importance = ops.gold_credit(behind, returns, self.min_importance)
    count = weights.sum()
    metrics = {
      'nll': (-(log_probs * weights).sum(), count),
      'importance': ((importance * weights).sum(), count),
      'return': ((returns * weights).sum(), count),
    }
    return base.LossOutput(
      -(credit * log_probs * weights).sum(), count, metrics
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldP(_Gold):
  """GOLD with the product of token probabilities: r = max(log p - b, c).

  See `_Gold` for the equation and its other settings.

  Attributes:
    baseline: b, in nats per token; -10 is the authors' value.
    min_reward: c, the smallest reward of a token.
  """

  name: ClassVar[str] = 'gold_p'

  baseline: float = -10.0
  min_reward: float = 0.0

  def token_rewards(
    self, bc_log_probs: Float[Array, 'B T']
  ) -> Float[Array, 'B T']:
    return jnp.maximum(bc_log_probs - self.baseline, self.min_reward)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldS(_Gold):
  """GOLD with the sum of token probabilities: r = max(p, c).

  See `_Gold` for the equation and its other settings.

  Attributes:
    min_reward: c, in [0, 1], the smallest reward of a token.
  """

  name: ClassVar[str] = 'gold_s'

  min_reward: float = 0.0

  def token_rewards(
    self, bc_log_probs: Float[Array, 'B T']
  ) -> Float[Array, 'B T']:
    return jnp.maximum(jnp.exp(bc_log_probs), self.min_reward)
