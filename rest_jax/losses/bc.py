"""Behavioural cloning: the negative log-likelihood of Eq. 1."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rest_jax import types
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class BC(base.Loss):
  """Negative log-likelihood of the target tokens.

  L(x, y; theta) = - sum_t log pi_theta(y_t | y_<t, x)

  with two regularisers of T5X, both off in the paper's equation: label smoothing
  replaces the target by (1 - s) one_hot + s / (V - 1) elsewhere (less its
  entropy, so that a perfect model has loss 0), and the z-loss adds
  z * (log sum_v exp logit_v)^2.

  Source: ReST (arXiv 2308.08998), Eq. 1; T5X `cross_entropy_with_logits`.

  Attributes:
    label_smoothing: s, in [0, 1).
    z_loss: z, at least 0.
  """

  name: ClassVar[str] = 'bc'
  packable: ClassVar[bool] = True

  label_smoothing: float = 0.0
  z_loss: float = 0.0

  def __post_init__(self):
    if not 0.0 <= self.label_smoothing < 1.0:
      raise ValueError(
        f'label_smoothing must be in [0, 1); got {self.label_smoothing}'
      )
    if self.z_loss < 0.0:
      raise ValueError(f'z_loss must be at least 0; got {self.z_loss}')

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
    del auxiliary, statistics
    targets = batch['decoder_target_tokens']  # [B, T]
    weights = batch['decoder_loss_weights']  # [B, T]
    logits = model.logits(params, batch, dropout_key=dropout_key)
    logits = logits.astype(jnp.float32)  # [B, T, V]

    # One reduction over the vocabulary serves all three terms.
    log_z = jax.nn.logsumexp(logits, axis=-1)  # [B, T]
    # A masked sum, not a look-up, whose gradient would be a scatter.
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    target_logits = jnp.where(is_target, logits, 0.0).sum(-1)  # [B, T]
    nll = log_z - target_logits  # [B, T]
    loss = nll
    if self.label_smoothing:
      loss = _smoothed(self.label_smoothing, logits, log_z, nll)
    if self.z_loss:
      loss = loss + self.z_loss * jnp.square(log_z)

    count = weights.sum()
    metrics = {'nll': ((nll * weights).sum(), count)}
    return base.LossOutput((loss * weights).sum(), count, metrics)


def _smoothed(
  smoothing: float, logits: jax.Array, log_z: jax.Array, nll: jax.Array
) -> jax.Array:
  """Cross-entropy against the smoothed target, less the target's entropy."""
  vocabulary = logits.shape[-1]
  confidence = 1.0 - smoothing
  low = smoothing / (vocabulary - 1)
  entropy = -(
    confidence * jnp.log(confidence)
    + (vocabulary - 1) * low * jnp.log(low + 1e-20)
  )
  # -sum_v q_v log p_v with q = low everywhere and confidence at the target.
  uniform = vocabulary * log_z - logits.sum(-1)
  return low * uniform + (confidence - low) * nll - entropy
