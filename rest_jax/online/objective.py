"""PPO's clipped objective for policy and critic."""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rest_jax import settings, types
from rest_jax.losses import base, ops
from rest_jax.models import policy as policy_lib

# Key of the critic in `Auxiliary.learned`.
VALUE = 'value'


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedObjective(base.Loss):
  """PPO's loss of policy and critic, per token.

  L = - surrogate_t + value_error_t - e H(pi(. | y_<t, x))

  The critic is a separate network with the parameters
  `auxiliary.learned[VALUE]`. The batch has, [B, T] each, `old_log_probs` and
  `old_values` at sampling time, `advantages` and `returns`.

  Note: the PPO paper weights the critic's error by a coefficient. Here the
  networks share no parameters and the optimiser normalises gradients, so a
  coefficient would have no effect; the critic's learning rate does.

  Source: Schulman et al. (arXiv 1707.06347), Eq. 9.

  Attributes:
    clip: clipping range of the policy's ratio; None for none, as in A2C.
    value_clip: clipping range of the critic's change, in the unit of the
      reward; None for none.
    entropy_coefficient: e, reward per nat, at least 0.
  """

  name: ClassVar[str] = 'ppo'
  needs: ClassVar[tuple[str, ...]] = (VALUE,)

  clip: float | None = 0.2
  value_clip: float | None = None
  entropy_coefficient: float = 0.0

  def __post_init__(self):
    settings.positive(self, 'clip', 'value_clip', none='no clipping')
    settings.at_least(self, 0, 'entropy_coefficient')

  @property
  def reads(self) -> tuple[str, ...]:
    return ()  # The critic is learned.

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del params
    return base.Auxiliary(learned={VALUE: given[VALUE]})

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens.

    No dropout: pi_old had none, so that the ratio starts at 1.
    """
    batch, weights = inputs.batch, inputs.weights  # [B, T]
    has_weight = weights > 0
    logits = inputs.model.logits(inputs.params, batch)  # [B, T, V]
    log_probs = policy_lib.target_log_probs(logits, inputs.targets)
    # Masked before the exponential, so that padding cannot overflow.
    log_ratios = jnp.where(has_weight, log_probs - batch['old_log_probs'], 0.0)
    policy_loss = -ops.clipped_surrogate(
      log_ratios, batch['advantages'], self.clip
    )
    value_loss = ops.clipped_value_error(
      inputs.values(inputs.auxiliary.learned[VALUE]),
      batch['old_values'],
      batch['returns'],
      self.value_clip,
    )

    def total(per_token: Float[Array, 'B T']) -> Float[Array, '']:
      return jnp.where(has_weight, per_token * weights, 0.0).sum()

    count = weights.sum()
    loss = policy_loss + value_loss
    metrics = {
      'policy_loss': (total(policy_loss), count),
      'value_loss': (total(value_loss), count),
      # An unbiased, non-negative estimate of KL(pi_old || pi).
      'kl_to_old': (total(jnp.expm1(log_ratios) - log_ratios), count),
    }
    if self.clip is not None:
      is_clipped = jnp.abs(jnp.expm1(log_ratios)) > self.clip
      metrics['clipped'] = (total(is_clipped.astype(jnp.float32)), count)
    if self.entropy_coefficient:
      entropy = ops.entropy(
        jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
      )
      loss = loss - self.entropy_coefficient * entropy
      metrics['entropy'] = (total(entropy), count)
    return base.LossOutput(total(loss), count, metrics)
