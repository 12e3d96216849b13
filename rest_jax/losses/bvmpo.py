"""BVMPO: V-MPO on D_g, held near the BC policy."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any, ClassVar

from absl import logging
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import optax

from rest_jax import types
from rest_jax.losses import base
from rest_jax.losses import value as value_lib
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar

# Without a trainer that says how many steps it takes.
_ANNEAL_STEPS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class BVMPO(base.Loss):
  """Likelihood of the tokens of high advantage, and divergence from BC.

  L = - sum_t psi_t log pi(y_t) + eta eps + eta log mean_t exp(A_t / eta)
      + lambda KL(pi_BC || pi)
  psi_t = exp(A_t / eta) / sum_s exp(A_s / eta)

  Sums and the first mean run over the tokens of the *global* batch whose
  advantage is in its top half, the KL over all of its tokens. eta > 0 is
  learned, by its own two terms alone and an optimiser of its own; lambda falls
  geometrically from 1.

  psi sums to 1 over a batch, so that the first three terms are one estimate a
  batch. It counts by the batch's tokens, as the KL does: an estimate from few
  tokens moves the policy less.

  Source: ReST (arXiv 2308.08998), Eq. 4 and A.8.1; V-MPO, Song et al. (2020),
  Eq. 3 and 4.

  Note: neither V-trace nor V-MPO's own trust region is used; the paper adds the
  divergence from BC and does not say what becomes of the trust region. eta, its
  learning rate, eps and the length of lambda's fall are ours; the paper gives
  none.

  Attributes:
    discount: gamma, in (0, 1].
    top_fraction: share of the tokens that is kept, in (0, 1]. Tokens whose
      advantage equals that of the last one kept are kept too.
    target_divergence: eps > 0, nats; how far psi may be from uniform.
    initial_temperature: eta at the start, in units of the advantage.
    temperature_learning_rate: constant learning rate of Adam on log eta: nats
      that eta moves by in a step, at most about. It has to follow the spread of
      the advantages, whatever the learning rate of the policy is.
    initial_coefficient: lambda at the start, at least 0.
    final_coefficient: lambda at the end of its fall; the paper's 1e-5.
    anneal_steps: steps over which lambda falls; None for those that training
      takes at least, so that it is at its end whenever patience stops: see
      `TrainerConfig.least_steps`.
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
    value_lib.check_discount(self.discount)
    if not 0.0 < self.top_fraction <= 1.0:
      raise ValueError(
        f'top_fraction must be in (0, 1]; got {self.top_fraction}'
      )
    for name in (
      'target_divergence',
      'initial_temperature',
      'temperature_learning_rate',
    ):
      if not getattr(self, name) > 0:
        raise ValueError(f'{name} must be positive; got {getattr(self, name)}')
    if not 0.0 <= self.final_coefficient <= self.initial_coefficient:
      raise ValueError(
        'final_coefficient must be in [0, initial_coefficient]; got '
        f'{self.final_coefficient} of {self.initial_coefficient}'
      )
    if self.initial_coefficient > 0 and self.final_coefficient == 0:
      raise ValueError(
        'final_coefficient must be positive where initial_coefficient is: '
        'lambda falls geometrically'
      )
    if self.anneal_steps is not None and self.anneal_steps < 1:
      raise ValueError(
        'anneal_steps must be at least 1, or None for the steps that training '
        f'takes at least; got {self.anneal_steps}'
      )

  def for_training(self, least_steps: int) -> 'BVMPO':
    if self.anneal_steps is None:
      return dataclasses.replace(self, anneal_steps=least_steps)
    if self.anneal_steps > least_steps and self.initial_coefficient:
      logging.warning(
        'BVMPO: lambda reaches its end after anneal_steps=%d, but patience may '
        'stop training after %d steps. Leave anneal_steps out for the latter.',
        self.anneal_steps,
        least_steps,
      )
    return self

  def learned_optimizer(self) -> optax.GradientTransformation:
    # A short memory: gradients far from the optimum are many times larger, and
    # remembered for long they would slow eta down on its way.
    return optax.adam(self.temperature_learning_rate, b1=0.9, b2=0.9)

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del params
    return base.Auxiliary(
      learned={
        'log_temperature': jnp.asarray(
          math.log(self.initial_temperature), jnp.float32
        )
      },
      carried={
        'bc': given['bc'],
        'value': given['value'],
        'steps': jnp.zeros((), jnp.int32),
      },
    )

  def update_auxiliary(
    self, auxiliary: base.Auxiliary, *, params: types.Params, step: jax.Array
  ) -> base.Auxiliary:
    del params
    carried = {**auxiliary.carried, 'steps': step}
    return base.Auxiliary(learned=auxiliary.learned, carried=carried)

  def coefficient(self, steps: jax.Array | int) -> jax.Array:
    """lambda after a number of steps."""
    if not self.initial_coefficient:
      return jnp.zeros(())
    ratio = self.final_coefficient / self.initial_coefficient
    share = jnp.minimum(steps / (self.anneal_steps or _ANNEAL_STEPS), 1.0)
    return self.initial_coefficient * jnp.power(ratio, share)

  def values(
    self, model: Any, auxiliary: base.Auxiliary, batch: types.Batch
  ) -> Float[Array, 'B T']:
    """V(s_t) of every position, s_t being the source and the tokens before t."""
    value_model = scalar.ScalarModel(model.config)
    return value_model.values(auxiliary.carried['value'], batch)

  def batch_statistics(
    self,
    *,
    model: Any,
    params: types.Params,
    auxiliary: base.Auxiliary,
    batch: types.Batch,
  ) -> dict[str, jax.Array]:
    """Returns advantages and weights of all tokens, [B, T] each."""
    del params
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    values = self.values(model, auxiliary, batch)
    return {
      'advantages': value_lib.advantages(
        values, batch['rewards'], is_token, self.discount
      ),
      'weights': batch['decoder_loss_weights'],
    }

  def reduce_statistics(
    self, statistics: dict[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """Finds the top tokens of the global batch.

    Args:
      statistics: of `batch_statistics`, all rows.

    Returns:
      `advantages` as they came, `top_weights` (0 outside the top), `least`, the
      lowest advantage in it, and `weight`, the sum of all weights.
    """
    advantages, weights = statistics['advantages'], statistics['weights']
    counts = weights > 0
    ordered = jnp.sort(jnp.where(counts, advantages, -jnp.inf).reshape(-1))
    # The k highest, k at least 1; the order is rising.
    k = jnp.ceil(self.top_fraction * counts.sum()).astype(jnp.int32)
    least = ordered[ordered.size - jnp.maximum(k, 1)]
    return {
      'advantages': advantages,
      'top_weights': jnp.where(advantages >= least, weights, 0.0),
      'least': least,
      'weight': weights.sum(),
    }

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
    own = self.batch_statistics(
      model=model, params=params, auxiliary=auxiliary, batch=batch
    )
    weights = own['weights']  # [B, T]
    count = weights.sum()
    temperature = jnp.exp(auxiliary.learned['log_temperature'])
    log_sum = _log_sum_exp(
      statistics['advantages'] / temperature, statistics['top_weights']
    )

    # psi, 0 outside the top. Masked before the exponential, which may overflow.
    is_top = (weights > 0) & (own['advantages'] >= statistics['least'])
    exponent = own['advantages'] / temperature - log_sum
    psi = weights * jnp.exp(jnp.where(is_top, exponent, -jnp.inf))
    psi = jax.lax.stop_gradient(psi)
    logits = model.logits(params, batch, dropout_key=dropout_key)
    log_pi = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    log_probs = policy_lib.target_logits(log_pi, batch['decoder_target_tokens'])
    # psi sums to 1 over the global batch, as the weights of a token mean do.
    policy = -(psi * log_probs).sum() * statistics['weight']

    top_weight = statistics['top_weights'].sum()
    log_mean = log_sum - jnp.log(jnp.where(top_weight > 0, top_weight, 1.0))
    dual = temperature * (self.target_divergence + log_mean)

    reference = model.logits(auxiliary.carried['bc'], batch)
    log_bc = jax.nn.log_softmax(reference.astype(jnp.float32), axis=-1)
    log_bc = jax.lax.stop_gradient(log_bc)
    divergence = (jnp.exp(log_bc) * (log_bc - log_pi)).sum(-1)  # [B, T]
    divergence = jnp.where(weights > 0, divergence * weights, 0.0).sum()
    coefficient = self.coefficient(auxiliary.carried['steps'])

    total = policy + count * dual + coefficient * divergence
    metrics = {
      'nll': (-(log_probs * weights).sum(), count),
      'kl_to_bc': (divergence, count),
      'temperature': (temperature * count, count),
      'kl_coefficient': (coefficient * count, count),
      'top_share': ((is_top * weights).sum(), count),
    }
    return base.LossOutput(total, count, metrics)


def _log_sum_exp(exponents: jax.Array, weights: jax.Array) -> jax.Array:
  """log sum_i w_i exp(e_i); 0 if no weight is positive."""
  counts = weights > 0
  is_any = counts.any()
  # Without weight there is still one exponent, so that no gradient is NaN.
  safe = jnp.where(counts, exponents, jnp.where(is_any, -jnp.inf, 0.0))
  total = jax.nn.logsumexp(safe, b=jnp.where(is_any, weights, 1.0))
  return jnp.where(is_any, total, 0.0)
