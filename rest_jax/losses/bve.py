"""Behaviour value estimation: the policy's logits as one-step Q-values."""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rest_jax import types
from rest_jax.losses import base
from rest_jax.losses import value as value_lib
from rest_jax.models import policy as policy_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class BVE(base.Loss):
  """Temporal differences of the behaviour's action values.

  L(x, y; theta) = sum_t (Q_theta(s_t, y_t) - r_t - gamma Q'(s_{t+1}, y_{t+1}))^2
  Q_theta(s, a) = alpha z_theta(s, a),  pi(a | s) = softmax(Q_theta(s, .) / alpha)

  z are the logits. r_t is R at the last token and 0 before, the value after it
  is 0, and Q' is Q of earlier parameters. Only actions that D_g took are
  learned, so that nothing keeps the others low: that the result is a poor policy
  is what the paper reports.

  Source: Gulcehre et al. (arXiv 2103.09575), section 2; ReST (arXiv 2308.08998),
  A.2, which starts from BC and gives no other detail. That the policy samples in
  proportion to exp(Q / alpha) is ours.

  Attributes:
    discount: gamma, in (0, 1].
    temperature: alpha > 0, reward a nat.
    lag: steps, at least 1, after which the parameters of Q' are renewed.
  """

  name: ClassVar[str] = 'bve'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)

  discount: float = 1.0
  temperature: float = 0.1
  lag: int = 20

  def __post_init__(self):
    value_lib.check_discount(self.discount)
    if not self.temperature > 0:
      raise ValueError(f'temperature must be positive; got {self.temperature}')
    if self.lag < 1:
      raise ValueError(f'lag must be at least 1; got {self.lag}')

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> base.Auxiliary:
    del given
    return base.with_lagged(base.Auxiliary(), params)

  def update_auxiliary(
    self, auxiliary: base.Auxiliary, *, params: types.Params, step: jax.Array
  ) -> base.Auxiliary:
    return base.renew_lagged(auxiliary, params=params, step=step, lag=self.lag)

  def action_values(
    self, logits: Float[Array, 'B T V'], batch: types.Batch
  ) -> Float[Array, 'B T']:
    """Q(s_t, y_t) of the tokens that were taken."""
    targets = batch['decoder_target_tokens']
    taken = policy_lib.target_logits(logits.astype(jnp.float32), targets)
    return self.temperature * taken

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
    del statistics
    weights = batch['decoder_loss_weights']  # [B, T]
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    logits = model.logits(params, batch, dropout_key=dropout_key)
    values = self.action_values(logits, batch)
    lagged = self.action_values(
      model.logits(auxiliary.carried[base.LAGGED], batch), batch
    )
    # An advantage over the lagged values, plus them, is r_t + gamma Q'.
    targets = lagged + value_lib.advantages(
      lagged, batch['rewards'], is_token, self.discount
    )
    targets = jax.lax.stop_gradient(targets)
    squared = (jnp.square(values - targets) * weights).sum()
    count = weights.sum()
    metrics = {
      'nll': (
        -(
          policy_lib.target_log_probs(logits, batch['decoder_target_tokens'])
          * weights
        ).sum(),
        count,
      ),
      'action_value': ((values * weights).sum(), count),
      'squared_error': (squared, count),
    }
    return base.LossOutput(squared, count, metrics)
