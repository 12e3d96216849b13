"""PPO's clipped objective for the policy, and the error of its critic."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rest_jax import types
from rest_jax.losses import base
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar

# The critic's place in `Auxiliary.learned`.
VALUE = 'value'


def surrogate(
  log_ratios: Float[Array, 'B T'],
  advantages: Float[Array, 'B T'],
  clip: float | None,
) -> Float[Array, 'B T']:
  """What the policy maximises, a token.

  min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t),  rho_t = pi / pi_old

  Without clipping it is rho_t A_t, whose gradient at rho = 1 is the policy
  gradient A_t grad log pi.

  Source: Schulman et al., Proximal Policy Optimization Algorithms (arXiv
  1707.06347), Eq. 7 and, without clipping, Eq. 6.

  Args:
    log_ratios: log pi - log pi_old of the sampled tokens, in nats.
    advantages: A_t.
    clip: c, above 0; None for no clipping.
  """
  ratios = jnp.exp(log_ratios)
  if clip is None:
    return ratios * advantages
  clipped = jnp.clip(ratios, 1.0 - clip, 1.0 + clip)
  return jnp.minimum(ratios * advantages, clipped * advantages)


def value_error(
  values: Float[Array, 'B T'],
  old_values: Float[Array, 'B T'],
  returns: Float[Array, 'B T'],
  clip: float | None,
) -> Float[Array, 'B T']:
  """Half the squared error of V, a token.

  1/2 max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2)

  Source: Schulman et al. (arXiv 1707.06347), Eq. 9; the clipping is not in the
  paper but in its authors' code (openai/baselines, ppo2).

  Args:
    values: V(s_t).
    old_values: V(s_t) when the hypotheses were sampled.
    returns: G_t.
    clip: c, above 0, in the unit of the reward; None for no clipping.
  """
  squared = jnp.square(values - returns)
  if clip is not None:
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    squared = jnp.maximum(squared, jnp.square(near - returns))
  return 0.5 * squared


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedObjective(base.Loss):
  """PPO's loss of policy and critic, a mean over tokens.

  L = - surrogate_t + value_error_t - e H(pi(. | y_<t, x))

  The critic is a network of its own, whose parameters are
  `auxiliary.learned[VALUE]`. The batch has, [B, T] each, `old_log_probs` and
  `old_values` of when it was sampled, `advantages` and `returns`.

  Note: the paper weighs the critic's error by a coefficient. Here the networks
  share nothing and the optimiser divides by the gradient's size, so that the
  coefficient would change nothing; the critic's learning rate does.

  Source: Schulman et al. (arXiv 1707.06347), Eq. 9.

  Attributes:
    clip: of the policy's ratio; None for no clipping, as A2C.
    value_clip: of the critic's step, in the unit of the reward; None for none.
    entropy_coefficient: e, reward a nat, at least 0.
  """

  name: ClassVar[str] = 'ppo'

  clip: float | None = 0.2
  value_clip: float | None = None
  entropy_coefficient: float = 0.0

  def __post_init__(self):
    for name in ('clip', 'value_clip'):
      value = getattr(self, name)
      if value is not None and value <= 0:
        raise ValueError(
          f'{name} must be above 0, or None for no clipping; got {value}'
        )
    if self.entropy_coefficient < 0:
      raise ValueError(
        'entropy_coefficient must be at least 0; got '
        f'{self.entropy_coefficient}'
      )

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
    """See `Loss.__call__`; the normaliser is the number of weighted tokens.

    There is no dropout: pi_old had none, and the ratio starts at 1.
    """
    del statistics, dropout_key
    weights = batch['decoder_loss_weights']  # [B, T]
    has_weight = weights > 0
    logits = model.logits(params, batch)  # [B, T, V]
    log_probs = policy_lib.target_log_probs(
      logits, batch['decoder_target_tokens']
    )
    # Before the exponential, so that padding cannot overflow.
    log_ratios = jnp.where(has_weight, log_probs - batch['old_log_probs'], 0.0)
    policy_loss = -surrogate(log_ratios, batch['advantages'], self.clip)
    values = scalar.ScalarModel(model.config).values(
      auxiliary.learned[VALUE], batch
    )
    value_loss = value_error(
      values, batch['old_values'], batch['returns'], self.value_clip
    )

    def total(per_token: Float[Array, 'B T']) -> Float[Array, '']:
      return jnp.where(has_weight, per_token * weights, 0.0).sum()

    count = weights.sum()
    loss = policy_loss + value_loss
    metrics = {
      'policy_loss': (total(policy_loss), count),
      'value_loss': (total(value_loss), count),
      # KL(pi_old || pi) without bias and never negative.
      'kl_to_old': (total(jnp.expm1(log_ratios) - log_ratios), count),
    }
    if self.clip is not None:
      is_clipped = jnp.abs(jnp.expm1(log_ratios)) > self.clip
      metrics['clipped'] = (total(is_clipped.astype(jnp.float32)), count)
    if self.entropy_coefficient:
      found = entropy(logits)
      loss = loss - self.entropy_coefficient * found
      metrics['entropy'] = (total(found), count)
    return base.LossOutput(total(loss), count, metrics)


def entropy(logits: Float[Array, 'B T V']) -> Float[Array, 'B T']:
  """- sum_v p_v log p_v of softmax(logits), in nats."""
  log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  return -(jnp.exp(log_probs) * log_probs).sum(-1)
