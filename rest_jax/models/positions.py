"""Positions as vectors, as rotations, and as windows."""

from collections.abc import Sequence
import functools
from typing import NamedTuple

from flax import linen as nn
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from rest_jax.models import layers, parts

# Wavelengths of sinusoids grow from 2π to 2π times this.
_LONGEST = 10_000.0


class Rotation(NamedTuple):
  """Angles by which pairs of features are turned.

  Attributes:
    sin: broadcasts to [..., H, K/2].
    cos: likewise.
  """

  sin: Float[Array, '...']
  cos: Float[Array, '...']

  def turn(self, x: Float[Array, '... K']) -> Float[Array, '... K']:
    """Turns feature i with feature i + K/2.

    Source: Su et al., RoFormer (arXiv 2104.09864), Eq. 34, by halves.
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate(
      [
        first * self.cos - second * self.sin,
        second * self.cos + first * self.sin,
      ],
      axis=-1,
    )
    return turned.astype(x.dtype)


def rotation(
  config: parts.PositionConfig,
  head_dim: int,
  numbers: Int[Array, '*positions'] | np.ndarray,
  length: int,
  *,
  is_windowed: bool,
) -> Rotation:
  """The rotation of queries and keys [*positions, H, K].

  Args:
    config: of the stack.
    head_dim: K.
    numbers: of the positions, which may be traced.
    length: all of them are below it.
    is_windowed: whether it is for layers that have a window.
  """
  base = config.theta, config.stretch
  if is_windowed:
    base = config.window_theta, config.window_stretch
  angles = _angles(length, head_dim, *base)
  sin, cos = (
    _rows(table, numbers)[..., None, :]
    for table in (np.sin(angles), np.cos(angles))
  )
  return Rotation(sin, cos)


@functools.lru_cache
def _angles(
  length: int, head_dim: int, theta: float, stretch: float
) -> np.ndarray:
  """[length, K/2] in float64, as float32 would be off at long distances."""
  frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
  return np.arange(length)[:, None] / stretch * frequencies


@functools.lru_cache
def sinusoids(
  first: int, length: int, width: int, is_inclusive: bool
) -> Float[np.ndarray, 'length D']:
  """Sines in one half, cosines in the other.

  Source: Vaswani et al. (2017), section 3.5, without alternation.

  Args:
    first: number of the first position.
    length: number of positions.
    width: D; an odd one has a sine more, or 0 last if `is_inclusive`.
    is_inclusive: see `PositionConfig`.
  """
  num_sines = width // 2 if is_inclusive else -(-width // 2)
  steps = max(num_sines - 1, 1) if is_inclusive else width / 2
  frequencies = _LONGEST ** -(np.arange(num_sines) / steps)
  angles = (first + np.arange(length))[:, None] * frequencies
  num_cosines = width // 2
  table = np.zeros((length, width), np.float32)
  table[:, :num_sines] = np.sin(angles)
  table[:, num_sines : num_sines + num_cosines] = np.cos(
    angles[:, :num_cosines]
  )
  return table


class PositionVectors(nn.Module):
  """Vectors that are added to embeddings, learned or sinusoidal."""

  config: parts.PositionConfig
  features: int

  @nn.compact
  def __call__(
    self, numbers: Int[Array, '*R'] | np.ndarray, length: int
  ) -> Float[Array, '*R D']:
    """The vectors of positions that are numbered from 0, all below `length`."""
    config = self.config
    if config.kind == 'sinusoidal':
      table = sinusoids(
        config.first, length, self.features, config.is_inclusive
      )
      return _rows(table, numbers)
    if length > config.max_length:
      raise ValueError(
        f'sources and targets must have at most the {config.max_length} '
        'positions that the network has learned vectors for; got room for '
        f'{length}. Lower max_target_length and the length buckets.'
      )
    table = self.param(
      'embedding',
      layers.named_axes(nn.initializers.normal(0.02), (None, 'embed')),
      (config.first + config.max_length, self.features),
      jnp.float32,
    )
    return _rows(table[config.first :], numbers)


def _rows(table, numbers) -> Array:
  return jnp.take(jnp.asarray(table, jnp.float32), numbers, 0, mode='clip')


def numbers(
  length: int, segment_ids: Int[Array, 'B T'] | None
) -> Int[Array, 'B T'] | np.ndarray:
  """The number of each position, from 0 in each segment of a row."""
  places = np.arange(length)
  if segment_ids is None:
    return places
  before = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  starts = jnp.where(segment_ids != before, places, 0)
  return places - lax.cummax(starts, axis=1)


def within_window(
  window: Sequence[int], length: int
) -> Bool[np.ndarray, 'T T']:
  """Which keys each query of a windowed layer sees, to its left and right."""
  distance = np.arange(length)[:, None] - np.arange(length)
  left, right = window
  return (distance <= left) & (-distance <= right)
