"""Direct preference optimisation on the best and worst sample of a source."""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPO(base.Loss):
  """The logistic loss of the margin between a source's best and worst sample.

  L = - log sigma(beta [log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x)])

  y_w is the best sample of x in D_g and has to pass the filter, y_l the worst;
  pi_ref is the BC policy. It is a mean over pairs: the step divides by the pairs
  that a batch has on average, so that each weighs alike, short or long.

  Source: Rafailov et al. (2023), Eq. 7.

  Note: not among the paper's losses. Preferences are the order of the learned
  reward.

  Attributes:
    beta: > 0; how much of a margin over pi_ref is enough, per nat.
  """

  name: ClassVar[str] = 'dpo'
  layout: ClassVar[base.Layout] = base.Layout.BEST_WORST
  needs: ClassVar[tuple[str, ...]] = ('bc',)

  beta: float = 0.1

  def __post_init__(self):
    if not self.beta > 0:
      raise ValueError(f'beta must be positive; got {self.beta}')

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    del lengths, rewards
    return weights[:, 0]  # Of the best sample.

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del params
    return base.Auxiliary(carried={'bc': given['bc']})

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
    """See `Loss.__call__`; the normaliser is the weighted number of pairs."""
    del statistics
    # [2 * B, T], best before worst. A pair counts as much as its best sample.
    pair_weights = batch['decoder_loss_weights'].max(-1).reshape(-1, 2)[:, 0]
    is_token = batch['decoder_target_tokens'] != types.PAD_ID

    def sequences(log_probs):
      """[2 * B, T] -> [B, 2], log pi(y | x)."""
      return jnp.where(is_token, log_probs, 0.0).sum(-1).reshape(-1, 2)

    own = sequences(model.log_probs(params, batch, dropout_key=dropout_key))
    reference = sequences(model.log_probs(auxiliary.carried['bc'], batch))
    ratios = own - jax.lax.stop_gradient(reference)  # [B, 2]
    margin = self.beta * (ratios[:, 0] - ratios[:, 1])  # [B]
    loss = -jax.nn.log_sigmoid(margin)
    count = pair_weights.sum()
    is_right = (margin > 0).astype(jnp.float32)
    metrics = {
      'margin': ((margin * pair_weights).sum(), count),
      'accuracy': ((is_right * pair_weights).sum(), count),
    }
    return base.LossOutput((loss * pair_weights).sum(), count, metrics)
