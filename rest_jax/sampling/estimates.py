"""Estimates of how long sampling takes, by which loop bodies are chosen.

Rough: the lengths of hypotheses are not known before they are sampled. For
sources of m tokens on average, the share of hypotheses with more than t tokens is
assumed to be (1 - t / 2.5 m)^1.5, whose mean is m.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rest_jax.models import network
from rest_jax.sampling import devices
from rest_jax.sampling import shapes as shapes_lib

_LONGEST, _POWER = 2.5, 1.5
# Rows per unfinished hypothesis.
_DISTINCT = 0.8
# Rows of the steps of a queue, relative to their mean.
_SPREAD = np.linspace(0.5, 1.5, 11)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What a network computes and reads.

  Attributes:
    row_flops: FLOPs of a row of a step without attention.
    source_flops: FLOPs to encode a token of a source.
    position_bytes: bytes of the keys and values of one position.
    position_flops: FLOPs to attend to a position.
    weight_bytes: bytes of the weights of a step.
  """

  row_flops: int
  source_flops: int
  position_bytes: int
  position_flops: int
  weight_bytes: int
  num_layers: int

  @classmethod
  @functools.lru_cache(maxsize=64)
  def of(cls, config: network.NetworkConfig) -> 'Sizes':
    stack, encoder = config.decoder_stack, config.encoder_stack
    width = 2 * stack.num_layers * stack.num_key_value_heads * stack.head_dim
    heads = encoder.num_heads + encoder.num_key_value_heads
    products = len(encoder.mlp_activations) + 1
    layer = 2 * heads * encoder.head_dim + products * encoder.mlp_dim
    weights = encoder.emb_dim * (encoder.num_layers * layer + width)
    return cls(
      row_flops=2 * step_weights(config),
      source_flops=2 * weights,
      position_bytes=width * jnp.dtype(config.dtype).itemsize,
      position_flops=2 * width * stack.num_heads // stack.num_key_value_heads,
      weight_bytes=4 * step_weights(config),
      num_layers=stack.num_layers,
    )


def step_weights(config: network.NetworkConfig) -> int:
  """Returns the number of weights that a decoding step multiplies with.

  Both attentions' projections except the sources' keys and values, the
  feed-forward blocks, and the logits.
  """
  width = config.num_heads * config.head_dim
  key_width = config.decoder_stack.num_key_value_heads * config.head_dim
  products = len(config.mlp_activations) + 1
  projections = 2 * width + 2 * key_width
  if not config.attention.is_merged:
    projections += 2 * width
  layer = config.emb_dim * (projections + products * config.mlp_dim)
  return config.num_decoder_layers * layer + config.emb_dim * config.vocab_size


class Part(NamedTuple):
  """Sources of similar length, counted once per group of samples."""

  num_sources: float
  mean_length: float

  def longer(self, max_length: int) -> np.ndarray:
    """Returns the share of hypotheses with more than 0, 1, ... tokens."""
    longest = _LONGEST * max(self.mean_length, 1)
    return (1 - np.arange(min(max_length, longest)) / longest) ** _POWER


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Estimates for some sources."""

  sizes: Sizes
  device: devices.Device
  parts: tuple[Part, ...]

  def seconds(self, shape: shapes_lib.Shape) -> float:
    """Returns the seconds to compile a shape and to decode all sources."""
    if not self.parts:
      return 0.0
    return self.compiling(shape.loops) + self.running(shape)

  def compiling(self, loops: shapes_lib.Loops) -> float:
    device = self.device
    body = device.body_seconds + self.sizes.num_layers * device.layer_seconds
    return device.program_seconds + loops.num_bodies * body

  def running(self, shape: shapes_lib.Shape) -> float:
    source = shape.source_length * self.sizes.source_flops / self.device.flops
    decoded = self._blocks if shape.num_places is None else self._queue
    return sum(
      part.num_sources * source + decoded(shape, part) for part in self.parts
    )

  def _step(self, shape, rows, hypotheses, length) -> np.ndarray:
    """Returns the seconds of steps.

    Args:
      shape: what decodes.
      rows: rows that are computed.
      hypotheses: hypotheses whose caches are read.
      length: positions that are read of each.
    """
    sizes, device = self.sizes, self.device
    own = np.asarray(hypotheses * length) * sizes.position_bytes
    source = shape.num_rows * shape.source_length
    flops = np.asarray(rows) * sizes.row_flops + source * sizes.position_flops
    read = sizes.weight_bytes + own
    return device.step_seconds + flops / device.flops + read / device.bandwidth

  def _blocks(self, shape: shapes_lib.Shape, part: Part) -> float:
    longer, loops = part.longer(shape.max_length), shape.loops
    unfinished = shape.num_rows * longer
    is_run = 1 - (1 - longer) ** shape.num_rows
    rows = _least(
      (*loops.row_capacities, shape.num_rows), _DISTINCT * unfinished
    )
    hypotheses = np.full(len(longer), shape.num_rows)
    for size in loops.compact_sizes:
      rows = np.where(unfinished <= size, size, rows)
      hypotheses = np.where(unfinished <= size, size, hypotheses)
    stages = _least(loops.cache_stages, 1 + np.arange(len(longer)))
    block = np.sum(is_run * self._step(shape, rows, hypotheses, stages))
    return float(part.num_sources / shape.num_sources * block)

  def _queue(self, shape: shapes_lib.Shape, part: Part) -> float:
    places, max_length = shape.num_places or 1, shape.max_length
    longer = part.longer(
      shape.longer.max_length if shape.longer else max_length
    )
    is_taken = 1 - (1 - longer) ** shape.num_samples
    taken = is_taken[:max_length].sum()
    needed = _DISTINCT * longer[:max_length].sum() / taken * shape.num_rows
    rows = _least(
      (*shape.loops.row_capacities, shape.num_rows), needed * _SPREAD
    )
    steps = taken * part.num_sources / places
    step = self._step(shape, rows, shape.num_rows, max_length).mean()
    # New sources are loaded by a pass over the inputs of all slots.
    inputs = 2 * places * shape.source_length * self.sizes.position_bytes
    loads = part.num_sources / shape.num_waiting
    total = steps * step + loads * inputs / self.device.bandwidth
    if shape.longer is not None and len(longer) > max_length:
      # Blocks that compute these hypotheses alone.
      again = part._replace(num_sources=part.num_sources * longer[max_length])
      total += self._blocks(shape.longer, again)
    return float(total)


def _least(choices: tuple[int, ...], needed: np.ndarray) -> np.ndarray:
  """Returns the smallest sufficient choice for each need."""
  at = np.searchsorted(choices, needed)
  return np.asarray(choices)[np.minimum(at, len(choices) - 1)]
