"""Optimisers from optax, with warm-up, decay and clipping."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rest_jax import settings

KINDS = ('adamw', 'adafactor')
DECAYS = ('constant', 'linear', 'cosine', 'rsqrt')
# Names of vectors in the parameter tree.
_VECTORS = ('scale', 'bias')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW or Adafactor. The paper names neither; all numbers here are ours.

  Attributes:
    kind: 'adamw' or 'adafactor'.
    learning_rate: peak learning rate, reached after the warm-up.
    warmup_steps: steps of linear increase from 0.
    decay: schedule until the last step: 'constant', 'linear' or 'cosine' to
      `final_fraction` of the peak, or 'rsqrt' (peak * sqrt(warmup / step)).
    final_fraction: fraction of the peak at the last step, for 'linear' and
      'cosine'.
    weight_decay: decoupled; applied to weight matrices, not to scales of norms.
    parameter_scale: multiply each weight matrix's update by its root mean
      square (at least 1e-3), as T5's Adafactor does. T5 initialises embeddings
      with standard deviation 1 and kernels with 1 / sqrt(fan-in), so without
      scaling one learning rate is too small for the former or too large for the
      latter. Scales of norms and scalars are not scaled.
    clip_norm: maximum global gradient norm of a network; None for no clipping.
      Scalars do not count and are not clipped.
    b1: decay of Adam's first moment.
    b2: decay of Adam's second moment.
    eps: Adam's epsilon.
  """

  kind: str = 'adamw'
  learning_rate: float = 1e-3
  warmup_steps: int = 0
  decay: str = 'constant'
  final_fraction: float = 0.0
  weight_decay: float = 0.0
  parameter_scale: bool = True
  clip_norm: float | None = 1.0
  b1: float = 0.9
  b2: float = 0.98
  eps: float = 1e-9

  def __post_init__(self):
    settings.one_of(self, KINDS, 'kind')
    settings.one_of(self, DECAYS, 'decay')
    settings.positive(self, 'learning_rate')
    settings.at_least(self, 0, 'warmup_steps')
    settings.positive(self, 'clip_norm', none='no clipping')

  def schedule(self, num_steps: int) -> optax.Schedule:
    """Returns step -> learning rate for a training of `num_steps` steps."""
    peak = self.learning_rate
    rest = max(num_steps - self.warmup_steps, 1)
    if self.decay == 'linear':
      after = optax.linear_schedule(peak, peak * self.final_fraction, rest)
    elif self.decay == 'cosine':
      after = optax.cosine_decay_schedule(peak, rest, self.final_fraction)
    elif self.decay == 'rsqrt':
      base = max(self.warmup_steps, 1)

      def rsqrt(step):
        # optax also calls it for steps before its start.
        return peak * jnp.sqrt(base / (base + jnp.maximum(step, 0)))

      after = rsqrt
    else:
      after = optax.constant_schedule(peak)
    if not self.warmup_steps:
      return after
    # The first step has the rate peak / warmup_steps: with 0 it would be
    # wasted.
    rise = optax.linear_schedule(
      peak / self.warmup_steps, peak, max(self.warmup_steps - 1, 1)
    )
    return optax.join_schedules([rise, after], [self.warmup_steps])

  def learning_rates(self, num_steps: int) -> np.ndarray:
    """Returns float32 [num_steps], the learning rate of each step."""
    steps = jnp.arange(num_steps)
    return np.asarray(jax.vmap(self.schedule(num_steps))(steps), np.float32)

  def direction(self) -> optax.GradientTransformation:
    """Returns the optax transformation of a network, without learning rate.

    The train step multiplies its updates by the learning rate, which is an
    argument, so that trainings with different schedules share one compilation.
    """
    steps = []
    if self.clip_norm is not None:
      clip = optax.clip_by_global_norm(self.clip_norm)
      steps.append(optax.masked(clip, _is_array))
    if self.kind == 'adafactor':
      steps += [
        optax.scale_by_factored_rms(decay_rate=0.8),
        optax.clip_by_block_rms(1.0),
      ]
    else:
      steps.append(optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps))
    if self.parameter_scale:
      steps.append(optax.masked(optax.scale_by_param_block_rms(), is_matrix))
    if self.weight_decay:
      steps.append(optax.add_decayed_weights(self.weight_decay, is_matrix))
    return optax.chain(*steps, optax.scale(-1.0))

  def without_schedule(self) -> 'OptimizerConfig':
    """Returns these settings with the fields of the schedule at defaults."""
    return dataclasses.replace(
      self,
      learning_rate=1.0,
      warmup_steps=0,
      decay='constant',
      final_fraction=0.0,
    )


def is_matrix(tree: Any) -> Any:
  """Returns which leaves of a network are weight matrices.

  Names matter too: vectors of several layers, stacked for a scan, have two
  axes.
  """

  def one(path, leaf):
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return jnp.ndim(leaf) >= 2 and name not in _VECTORS

  return jax.tree_util.tree_map_with_path(one, tree)


def _is_array(tree: Any) -> Any:
  return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 0, tree)
