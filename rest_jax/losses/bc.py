"""Behavioural cloning: the negative log-likelihood of Eq. 1."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from rest_jax import settings
from rest_jax.losses import base, ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class BC(base.Loss):
  """Negative log-likelihood of the target tokens.

  L(x, y; theta) = - sum_t log pi_theta(y_t | y_<t, x)

  with two regularisers of T5X that the paper's equation does not have: label
  smoothing and the z-loss; see `ops.cross_entropy`.

  Source: ReST (arXiv 2308.08998), Eq. 1.

  Attributes:
    label_smoothing: s, in [0, 1).
    z_loss: z, at least 0.
  """

  name: ClassVar[str] = 'bc'
  packable: ClassVar[bool] = True

  label_smoothing: float = 0.0
  z_loss: float = 0.0

  def __post_init__(self):
    settings.inside(self, '[0, 1)', 'label_smoothing')
    settings.at_least(self, 0, 'z_loss')

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    loss, nll = ops.cross_entropy(
      inputs.logits().astype(jnp.float32),
      inputs.targets,
      label_smoothing=self.label_smoothing,
      z_loss=self.z_loss,
    )
    weights = inputs.weights
    count = weights.sum()
    metrics = {'nll': ((nll * weights).sum(), count)}
    return base.LossOutput((loss * weights).sum(), count, metrics)
