"""Weighted squared error, for reward models."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(base.Loss):
  """Squared error of a scalar model to given scores.

  L = sum_b w_b (R_theta(x_b, y_b) - s_b)^2 / sum_b w_b

  where the denominator is the mean over batches, so that a row has weight w_b
  in every batch. The batch has `scores` [B] (standardised by the caller) and
  `score_weights` [B] (such as the number of annotators; 0 for padding rows). R
  is the model's value at the last target position.
  """

  name: ClassVar[str] = 'regression'

  @property
  def hypotheses_per_row(self) -> int:
    """Maximum number of hypotheses of one source per row of the batch."""
    return 1

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    del lengths, rewards
    return weights.sum(axis=1)

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the sum of the rows' weights."""
    predicted, scores, weights = self.columns_of(inputs)
    total = (jnp.square(predicted - scores) * weights).sum()
    count = weights.sum()
    return base.LossOutput(total, count, {'squared_error': (total, count)})

  def columns_of(
    self, inputs: base.Inputs
  ) -> tuple[Float[Array, ' B'], Float[Array, ' B'], Float[Array, ' B']]:
    """Returns predicted rewards in float32, scores, and weights."""
    predicted = inputs.model.rewards(
      inputs.params, inputs.batch, dropout_key=inputs.dropout_key
    )
    columns = inputs.batch['scores'], inputs.batch['score_weights']
    return predicted.astype(jnp.float32), *columns
