"""FLOPs and bytes, counted from traced programs and network sizes.

XLA's cost analysis counts the body of a loop only once.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import numpy as np

from rest_jax.models import network
from rest_jax.sampling import decode_config as sampling_config
from rest_jax.sampling import estimates


class StepWork(NamedTuple):
  """Minimum work of one decoding step at the mean position.

  Attributes:
    weights: bytes of weights that it reads.
    self_cache: bytes of self-attention keys and values that it reads.
    cross_cache: bytes of cross-attention keys and values that it reads.
    logits: bytes of float32 logits that it writes and reads.
    flops: FLOP of its matrix products.
  """

  weights: int
  self_cache: int
  cross_cache: int
  logits: int
  flops: int

  @property
  def accessed_bytes(self) -> int:
    return self.weights + self.self_cache + self.cross_cache + self.logits


def decoding_step(
  config: network.NetworkConfig,
  decode: sampling_config.DecodeConfig,
  source_length: int,
) -> StepWork:
  """Returns the minimum work of a decoding step of one block on one device.

  Weights are read once, cross-attention keys and values once for all hypotheses
  of a source, the self-attention cache at its mean length; logits are written
  and read once.

  Args:
    config: sizes of the network.
    decode: sizes of the block, maximum length and type of the weights.
    source_length: S, padded length of the sources.
  """
  rows = decode.block_sources * decode.block_samples
  width = config.num_heads * config.head_dim
  key_width = config.decoder_stack.num_key_value_heads * config.head_dim
  layers = config.num_decoder_layers
  size = np.dtype(jax.numpy.dtype(config.dtype)).itemsize
  weights = estimates.step_weights(config)
  mean_length = (decode.max_target_length + 1) / 2
  cross = 2 * layers * decode.block_sources * source_length * key_width
  weight_size = 2 if decode.weights_dtype == 'bfloat16' else 4
  return StepWork(
    weights=weights * weight_size,
    self_cache=int(2 * layers * rows * key_width * mean_length) * size,
    cross_cache=cross * size,
    logits=2 * rows * config.vocab_size * 4,
    flops=2 * rows * weights
    + int(4 * layers * rows * width * (mean_length + source_length)),
  )


def product_flops(traced: core.ClosedJaxpr, *, loops_once: bool = False) -> int:
  """Returns the FLOPs of all matrix products in a traced program.

  A product of [M, K] and [K, N] has 2 M K N. The body of a `scan` counts once
  per iteration and that of a `while` loop once, the most expensive branch of a `cond` counts, and the body of a
  `shard_map` counts once per device.

  Args:
    traced: program, such as `jax.jit(f).trace(...).jaxpr`.
    loops_once: count the body of every loop once, as XLA does.

  Returns:
    The total of all devices.
  """

  def count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
      name, params = equation.primitive.name, equation.params
      if name == 'dot_general':
        total += _product(equation)
        continue
      inner = [count(each) for each in _jaxprs(params)]
      if not inner:
        continue
      times = 1
      if name == 'shard_map':
        times = params['mesh'].size
      elif name == 'scan' and not loops_once:
        times = params['length']
      total += max(inner) if name == 'cond' else times * sum(inner)
    return total

  return count(traced.jaxpr)


def _product(equation: Any) -> int:
  left, right = (variable.aval.shape for variable in equation.invars)
  (left_summed, _), (left_batch, _) = equation.params['dimension_numbers']
  summed = math.prod(left[i] for i in left_summed)
  batch = math.prod(left[i] for i in left_batch)
  rows = math.prod(left) // (summed * batch)
  columns = math.prod(right) // (summed * batch)
  return 2 * batch * summed * rows * columns


def _jaxprs(params: Mapping[str, Any]) -> list[core.Jaxpr]:
  """Returns the programs inside an equation."""
  jaxprs = []
  for value in params.values():
    for each in value if isinstance(value, tuple | list) else (value,):
      if isinstance(each, core.ClosedJaxpr):
        jaxprs.append(each.jaxpr)
      elif isinstance(each, core.Jaxpr):
        jaxprs.append(each)
  return jaxprs
