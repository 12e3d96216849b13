"""Direct preference optimisation on the best and worst sample of a source."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import settings
from rest_jax.losses import base, ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPO(base.Loss):
  """The logistic loss of the margin between a source's best and worst sample.

  L = - log sigma(beta [log pi(y_w|x)/pi_ref(y_w|x) - log
  pi(y_l|x)/pi_ref(y_l|x)])

  y_w is the best sample of x in D_g and must pass the filter, y_l the worst;
  pi_ref is the BC policy. The loss is a mean over pairs: the step divides by
  the mean number of pairs per batch, so that short and long pairs have equal
  weight.

  Source: Rafailov et al. (2023), Eq. 7.

  Note: not among the paper's losses. Preferences are the order of the rewards.

  Attributes:
    beta: above 0, per nat; a larger beta is satisfied with a smaller margin
      over pi_ref.
  """

  name: ClassVar[str] = 'dpo'
  layout: ClassVar[base.Layout] = base.Layout.BEST_WORST
  needs: ClassVar[tuple[str, ...]] = ('bc',)

  beta: float = 0.1

  def __post_init__(self):
    settings.positive(self, 'beta')

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    del lengths, rewards
    return weights[:, 0]  # Weights of the best samples.

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the weighted number of pairs."""
    # [2 * B, T], best before worst. The weight of a pair is that of its best.
    pair_weights = inputs.weights.max(-1).reshape(-1, 2)[:, 0]

    def sequences(log_probs):
      """[2 * B, T] -> [B, 2], log pi(y | x)."""
      return jnp.where(inputs.is_token, log_probs, 0.0).sum(-1).reshape(-1, 2)

    margin = ops.preference_margins(
      sequences(inputs.log_probs()),
      sequences(inputs.model.log_probs(inputs.given['bc'], inputs.batch)),
      self.beta,
    )  # [B]
    loss = -jax.nn.log_sigmoid(margin)
    count = pair_weights.sum()
    is_right = (margin > 0).astype(jnp.float32)
    metrics = {
      'margin': ((margin * pair_weights).sum(), count),
      'accuracy': ((is_right * pair_weights).sum(), count),
    }
    return base.LossOutput((loss * pair_weights).sum(), count, metrics)
