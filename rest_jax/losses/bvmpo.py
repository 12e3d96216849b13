"""BVMPO: V-MPO on D_g with a divergence from the BC policy."""

from collections.abc import Mapping
import dataclasses
import math
from typing import ClassVar

from absl import logging
import jax
import jax.numpy as jnp
import optax

from rest_jax import settings, types
from rest_jax.losses import base, ops
from rest_jax.models import policy as policy_lib

# Number of steps for `coefficient` without a trainer.
_ANNEAL_STEPS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class BVMPO(base.Loss):
  """Likelihood of tokens with high advantage, and divergence from BC.

  L = - sum_t psi_t log pi(y_t) + eta eps + eta log mean_t exp(A_t / eta)
      + lambda KL(pi_BC || pi)
  psi_t = exp(A_t / eta) / sum_s exp(A_s / eta)

  Sums and the mean run over the tokens of the *global* batch whose advantage is
  in the top half, the KL over all of its tokens. eta > 0 is learned from its
  two terms only, with its own optimiser; lambda falls geometrically from 1.

  psi sums to 1 over a batch, so the first three terms are one estimate per
  batch. It is weighted by the number of tokens of the batch, like the KL: an
  estimate from few tokens moves the policy less.

  Source: ReST (arXiv 2308.08998), Eq. 4 and A.8.1; V-MPO, Song et al. (2020),
  Eq. 3 and 4.

  Note: neither V-trace nor V-MPO's own trust region is used; the paper adds the
  divergence from BC and does not mention the trust region. The initial eta, its
  learning rate, eps and the number of steps over which lambda falls are ours;
  the paper gives none.

  Attributes:
    discount: gamma, in (0, 1].
    top_fraction: share of the tokens that is kept, in (0, 1]; ties with the
      last kept token are kept too.
    target_divergence: eps > 0, in nats; allowed divergence of psi from uniform.
    initial_temperature: initial eta, in units of the advantage.
    temperature_learning_rate: constant learning rate of Adam on log eta: about
      the largest change of log eta per step. eta must follow the spread of the
      advantages, whatever the policy's learning rate.
    initial_coefficient: initial lambda, at least 0.
    final_coefficient: final lambda; 1e-5 in the paper.
    anneal_steps: number of steps over which lambda falls; None for the fewest
      steps that training can take (`TrainerConfig.least_steps`), so that lambda
      has reached its final value whenever patience stops training.
  """

  name: ClassVar[str] = 'bvmpo'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)
  needs: ClassVar[tuple[str, ...]] = ('bc', 'value')
  needs_statistics: ClassVar[bool] = True

  discount: float = 1.0
  top_fraction: float = 0.5
  target_divergence: float = 0.1
  initial_temperature: float = 0.2
  temperature_learning_rate: float = 1e-2
  initial_coefficient: float = 1.0
  final_coefficient: float = 1e-5
  anneal_steps: int | None = None

  def __post_init__(self):
    settings.inside(self, '(0, 1]', 'discount', 'top_fraction')
    settings.positive(
      self,
      'target_divergence',
      'initial_temperature',
      'temperature_learning_rate',
    )
    if not 0.0 <= self.final_coefficient <= self.initial_coefficient:
      raise ValueError(
        'final_coefficient must be in [0, initial_coefficient]; got '
        f'{self.final_coefficient} with initial_coefficient='
        f'{self.initial_coefficient}'
      )
    if self.initial_coefficient > 0 and self.final_coefficient == 0:
      raise ValueError(
        'final_coefficient must be positive if initial_coefficient is, since '
        'lambda falls geometrically; got 0'
      )
    least = 'the minimum number of training steps'
    settings.at_least(self, 1, 'anneal_steps', none=least)

  def for_training(self, least_steps: int) -> 'BVMPO':
    if self.anneal_steps is None:
      return dataclasses.replace(self, anneal_steps=least_steps)
    if self.anneal_steps > least_steps and self.initial_coefficient:
      logging.warning(
        'BVMPO: lambda falls over anneal_steps=%d steps, but patience may stop '
        'training after %d steps. Leave anneal_steps out to use the latter.',
        self.anneal_steps,
        least_steps,
      )
    return self

  def learned_optimizer(self) -> optax.GradientTransformation:
    # Low b2: gradients far from the optimum are many times larger, and a long
    # average of their squares would slow eta down.
    return optax.adam(self.temperature_learning_rate, b1=0.9, b2=0.9)

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del params, given
    log_temperature = jnp.asarray(
      math.log(self.initial_temperature), jnp.float32
    )
    return base.Auxiliary(
      learned={'log_temperature': log_temperature},
      carried={'steps': jnp.zeros((), jnp.int32)},
    )

  def update_auxiliary(
    self, auxiliary: base.Auxiliary, *, params: types.Params, step: jax.Array
  ) -> base.Auxiliary:
    del params
    return dataclasses.replace(auxiliary, carried={'steps': step})

  def coefficient(self, steps: jax.Array | int) -> jax.Array:
    """Returns lambda after a number of steps."""
    if not self.initial_coefficient:
      return jnp.zeros(())
    ratio = self.final_coefficient / self.initial_coefficient
    share = jnp.minimum(steps / (self.anneal_steps or _ANNEAL_STEPS), 1.0)
    return self.initial_coefficient * jnp.power(ratio, share)

  def batch_statistics(self, inputs: base.Inputs) -> dict[str, jax.Array]:
    """Returns advantages and weights of all tokens, [B, T] each."""
    rewards = ops.last_token_rewards(inputs.batch['rewards'], inputs.is_token)
    values = inputs.values(inputs.given['value'])
    return {
      'advantages': ops.td_errors(
        rewards, values, inputs.is_token, self.discount
      ),
      'weights': inputs.weights,
    }

  def reduce_statistics(
    self, statistics: dict[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """Finds the top tokens of the global batch.

    Args:
      statistics: results of `batch_statistics` for all rows.

    Returns:
      `advantages` unchanged, `top_weights` (0 for tokens outside the top),
      `least`, the lowest advantage of the top, and `weight`, the sum of all
      weights.
    """
    advantages, weights = statistics['advantages'], statistics['weights']
    least = ops.least_of_top(advantages, weights, self.top_fraction)
    return {
      'advantages': advantages,
      'top_weights': jnp.where(advantages >= least, weights, 0.0),
      'least': least,
      'weight': weights.sum(),
    }

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    own, whole = self.batch_statistics(inputs), inputs.statistics
    advantages, weights = own['advantages'], own['weights']  # [B, T]
    count = weights.sum()
    temperature = jnp.exp(inputs.auxiliary.learned['log_temperature'])
    log_sum = ops.weighted_log_sum_exp(
      whole['advantages'] / temperature, whole['top_weights']
    )
    is_top = (weights > 0) & (advantages >= whole['least'])
    psi = ops.vmpo_weights(advantages, weights, is_top, temperature, log_sum)
    log_pi = jax.nn.log_softmax(inputs.logits().astype(jnp.float32), axis=-1)
    log_probs = policy_lib.target_logits(log_pi, inputs.targets)
    # psi sums to 1 over the global batch, like the weights of a token mean.
    policy = -(psi * log_probs).sum() * whole['weight']
    dual = ops.vmpo_temperature_loss(
      temperature,
      log_sum,
      whole['top_weights'].sum(),
      self.target_divergence,
    )

    bc_logits = inputs.model.logits(inputs.given['bc'], inputs.batch)
    log_bc = jax.nn.log_softmax(bc_logits.astype(jnp.float32), axis=-1)
    log_bc = jax.lax.stop_gradient(log_bc)
    divergence = ops.kl_divergence(log_bc, log_pi)  # [B, T]
    divergence = jnp.where(weights > 0, divergence * weights, 0.0).sum()
    coefficient = self.coefficient(inputs.auxiliary.carried['steps'])

    total = policy + count * dual + coefficient * divergence
    metrics = {
      'nll': (-(log_probs * weights).sum(), count),
      'kl_to_bc': (divergence, count),
      'temperature': (temperature * count, count),
      'kl_coefficient': (coefficient * count, count),
      'top_share': ((is_top * weights).sum(), count),
    }
    return base.LossOutput(total, count, metrics)
