"""Squared error and a logistic loss of pairs of one source: for reward models."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rest_jax import types
from rest_jax.losses import base, regression


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithinSource(regression.Regression):
  r"""Regression, and the order of the hypotheses of one source beside it.

  With R_i the model's value of hypothesis i of a source, s_i its standardised
  score, w_i its weight, n the hypotheses of the source in its row of the batch
  and H the cross-entropy:

    L = sum_i (a w_i (R_i - s_i)^2 + lambda / (n - 1) sum_{j != i} h_ij
        H(sigma((s_i - s_j) / tau), sigma((R_i - R_j) / tau))) / sum_i w_i

  h_ij = 2 w_i w_j / (w_i + w_j) is the precision of a difference of two means
  over w_i and w_j annotators. The cross-entropy is less the target's entropy, so
  that L is 0 at R = s.

  Source: Bradley and Terry, Rank Analysis of Incomplete Block Designs (1952),
  with graded preferences: the target of a pair is sigma of its difference, 1 or
  0 where it is many times tau.

  Note: of a source with more than `hypotheses` only pairs within a row of the
  batch are compared. Which share a row is fixed.

  Attributes:
    regression: a, at least 0.
    weight: lambda, above 0.
    temperature: tau, above 0, in standard deviations of the scores.
    hypotheses: n at most; at least 2.
  """

  name: ClassVar[str] = 'within_source'

  regression: float = 1.0
  weight: float = 1.0
  temperature: float = 0.5
  hypotheses: int = 4

  def __post_init__(self):
    if not self.regression >= 0:
      raise ValueError(f'regression must be at least 0; got {self.regression}.')
    for field in ('weight', 'temperature'):
      if not getattr(self, field) > 0:
        raise ValueError(
          f'{field} must be above 0; got {getattr(self, field)}. For '
          'regression alone: RewardStage.loss = @Regression().'
        )
    if self.hypotheses < 2:
      raise ValueError(
        f'hypotheses must be at least 2, a pair; got {self.hypotheses}.'
      )

  @property
  def hypotheses_per_row(self) -> int:
    return self.hypotheses

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
    """See `Loss.__call__`; the normaliser is the sum of the rows' weights."""
    del auxiliary, statistics
    predicted = model.rewards(params, batch, dropout_key=dropout_key)
    predicted = predicted.astype(jnp.float32)  # [B * N]
    num_sources = batch['encoder_input_tokens'].shape[0]
    rewards, scores, weights = (
      array.reshape(num_sources, -1)
      for array in (predicted, batch['scores'], batch['score_weights'])
    )  # [B, N] each
    squared = (jnp.square(rewards - scores) * weights).sum()

    def differences(values):
      return values[:, :, None] - values[:, None, :]  # [B, N, N]

    both = weights[:, :, None] + weights[:, None, :]
    precision = 2 * weights[:, :, None] * weights[:, None, :]
    precision /= jnp.where(both > 0, both, 1.0)
    precision *= 1 - jnp.eye(weights.shape[1])
    target = differences(scores) / self.temperature
    logits = differences(rewards) / self.temperature
    cross_entropy = _cross_entropy(target, logits) - _cross_entropy(
      target, target
    )
    others = jnp.maximum((weights > 0).sum(axis=1) - 1, 1)  # [B]
    pairs = (precision * cross_entropy).sum(axis=(1, 2)) / others
    count = weights.sum()
    is_right = (jnp.sign(logits) * jnp.sign(target) + 1) / 2
    ordered = precision * (target != 0)
    metrics = {
      'squared_error': (squared, count),
      'accuracy': ((is_right * ordered).sum(), ordered.sum()),
    }
    total = self.regression * squared + self.weight * pairs.sum()
    return base.LossOutput(total, count, metrics)


def _cross_entropy(target: jax.Array, logits: jax.Array) -> jax.Array:
  """H(sigma(target), sigma(logits)), in nats."""
  return jax.nn.softplus(logits) - jax.nn.sigmoid(target) * logits
