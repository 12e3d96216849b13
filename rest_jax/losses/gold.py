"""GOLD: off-policy policy gradient with the BC policy as its reward."""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rest_jax import types
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Gold(base.Loss):
  """What GOLD-p and GOLD-s share.

  L(x, y; theta) = - sum_t clip(pi~(y_t), u, 1) Q_t log pi_theta(y_t | y_<t, x)
  Q_t = sum_{j=0..k} gamma^j r_{t+j}

  No gradient flows through the weights. pi~ is the policy that is trained, or
  one that lags behind it; r is of the BC policy's token probabilities, and 0
  after EOS. The likelihood of the data is not what it maximises: judge it by
  reward.

  Source: Pang and He (2021), Eq. 4 and section 3.2; ReST (arXiv 2308.08998),
  A.8.2.

  Attributes:
    min_importance: u, in [0, 1], the least importance weight.
    future_steps: k, at least 0, tokens ahead that a token is credited for.
    discount: gamma, in [0, 1].
    lag: steps after which pi~ is made the policy again; 0 for the policy itself.
  """

  columns: ClassVar[tuple[str, ...]] = ()
  needs: ClassVar[tuple[str, ...]] = ('bc',)

  min_importance: float = 0.1
  future_steps: int = 5
  discount: float = 1.0
  lag: int = 0

  def __post_init__(self):
    for name in ('min_importance', 'discount'):
      if not 0.0 <= getattr(self, name) <= 1.0:
        raise ValueError(f'{name} must be in [0, 1]; got {getattr(self, name)}')
    for name in ('future_steps', 'lag'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'{name} must be at least 0; got {getattr(self, name)}'
        )

  def token_rewards(
    self, bc_log_probs: Float[Array, 'B T']
  ) -> Float[Array, 'B T']:
    """r of each token, from its log-probability under the BC policy."""
    raise NotImplementedError

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    auxiliary = base.Auxiliary(carried={'bc': given['bc']})
    return base.with_lagged(auxiliary, params) if self.lag else auxiliary

  def update_auxiliary(
    self, auxiliary: base.Auxiliary, *, params: types.Params, step: jax.Array
  ) -> base.Auxiliary:
    if not self.lag:
      return auxiliary
    return base.renew_lagged(auxiliary, params=params, step=step, lag=self.lag)

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
    log_probs = model.log_probs(params, batch, dropout_key=dropout_key)
    behind = log_probs
    if self.lag:
      behind = model.log_probs(auxiliary.carried[base.LAGGED], batch)
    bc_log_probs = model.log_probs(auxiliary.carried['bc'], batch)  # [B, T]
    rewards = jnp.where(is_token, self.token_rewards(bc_log_probs), 0.0)
    returns = discounted_sums(rewards, self.future_steps, self.discount)
    importance = jnp.clip(jnp.exp(behind), self.min_importance, 1.0)
    credit = jax.lax.stop_gradient(importance * returns)  # [B, T]
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
    baseline: b, in nats a token; the authors' -10.
    min_reward: c, the least reward of a token.
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
    min_reward: c, in [0, 1], the least reward of a token.
  """

  name: ClassVar[str] = 'gold_s'

  min_reward: float = 0.0

  def token_rewards(
    self, bc_log_probs: Float[Array, 'B T']
  ) -> Float[Array, 'B T']:
    return jnp.maximum(jnp.exp(bc_log_probs), self.min_reward)


def discounted_sums(
  rewards: Float[Array, 'B T'], future_steps: int, discount: float
) -> Float[Array, 'B T']:
  """Q_t = sum_{j=0..k} gamma^j r_{t+j}, with r = 0 beyond the last position.

  Args:
    rewards: 0 at positions that are not of the hypothesis.
    future_steps: k.
    discount: gamma.
  """
  length = rewards.shape[-1]
  total = rewards
  for ahead in range(1, min(future_steps, length - 1) + 1):
    shifted = jnp.pad(rewards[:, ahead:], ((0, 0), (0, ahead)))
    total = total + discount**ahead * shifted
  return total
