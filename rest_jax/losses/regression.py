"""Weighted squared error: how reward models and value functions are fitted."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(base.Loss):
  """Squared error of a scalar model to given scores.

  L = sum_b w_b (R_theta(x_b, y_b) - s_b)^2 / sum_b w_b

  with the sum of weights that a batch has on average, so that a row weighs w_b
  in any batch. The batch has `scores` [B] (standardised by the caller) and
  `score_weights` [B] (such as the number of annotators; 0 for padding rows). R
  is the model's value at the last target position.
  """

  name: ClassVar[str] = 'regression'

  @property
  def hypotheses_per_row(self) -> int:
    """Hypotheses of one source that share a row of the batch, at most."""
    return 1

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    del lengths, rewards
    return weights.sum(axis=1)

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
    predicted = model.rewards(params, batch, dropout_key=dropout_key)  # [B]
    weights = batch['score_weights']
    squared = jnp.square(predicted.astype(jnp.float32) - batch['scores'])
    total = (squared * weights).sum()
    count = weights.sum()
    return base.LossOutput(total, count, {'squared_error': (total, count)})
