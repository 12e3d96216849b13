"""A pairwise loss within a source beside squared error, for reward models."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from rest_jax import settings
from rest_jax.losses import base, ops, regression


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithinSource(regression.Regression):
  r"""Regression with a pairwise loss on the hypotheses of one source.

  With R_i the model's value of hypothesis i of a source, s_i its standardised
  score, w_i its weight, n the number of hypotheses in the row of the batch and
  H the cross-entropy:

    L = sum_i (a w_i (R_i - s_i)^2 + lambda / (n - 1) sum_{j != i} h_ij
        H(sigma((s_i - s_j) / tau), sigma((R_i - R_j) / tau))) / sum_i w_i

  h_ij = 2 w_i w_j / (w_i + w_j) is the precision of a difference of two means
  over w_i and w_j annotators. The target's entropy is subtracted from the
  cross-entropy, so that L is 0 at R = s.

  Source: `ops.graded_preferences`; the target of a pair is sigma of its
  difference, which is 1 or 0 if the difference is many times tau.

  Note: if a source has more than `hypotheses`, only pairs within a row of the
  batch are compared. The assignment to rows is fixed.

  Attributes:
    regression: a, at least 0.
    weight: lambda, above 0.
    temperature: tau, above 0, in standard deviations of the scores.
    hypotheses: maximum of n; at least 2.
  """

  name: ClassVar[str] = 'within_source'

  regression: float = 1.0
  weight: float = 1.0
  temperature: float = 0.5
  hypotheses: int = 4

  def __post_init__(self):
    settings.at_least(self, 0, 'regression')
    alone = 'For regression only, set RewardStage.loss = @Regression().'
    settings.positive(self, 'weight', 'temperature', hint=alone)
    settings.at_least(self, 2, 'hypotheses', hint='A pair has two hypotheses.')

  @property
  def hypotheses_per_row(self) -> int:
    return self.hypotheses

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the sum of the rows' weights."""
    num_sources = inputs.batch['encoder_input_tokens'].shape[0]
    rewards, scores, weights = (
      column.reshape(num_sources, -1) for column in self.columns_of(inputs)
    )  # [B, N] each
    squared = (jnp.square(rewards - scores) * weights).sum()
    pairs, accuracy = ops.graded_preferences(
      rewards, scores, weights, self.temperature
    )
    count = weights.sum()
    metrics = {'squared_error': (squared, count), 'accuracy': accuracy}
    total = self.regression * squared + self.weight * pairs
    return base.LossOutput(total, count, metrics)
