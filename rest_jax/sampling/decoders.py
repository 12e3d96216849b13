"""From settings of sampling to what is compiled."""

import dataclasses

import jax
import jax.numpy as jnp

from rest_jax import types
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import beam, blocks, decode, devices, refill, shapes
from rest_jax.sampling import decode_config as config_lib

# Parameters of matrix products, by their names in T5X's tree.
_ROUNDED = ('kernel', 'embedding')


def decoder(
  policy: policy_lib.Policy,
  config: config_lib.DecodeConfig,
  vocabulary_size: int | None = None,
  device: devices.Device = devices.CPU,
) -> blocks.Decoder:
  """Returns what decodes a block with all loops, for `blocks.compiled`."""
  vocab = policy.config.vocab_size
  if vocabulary_size is None:
    vocabulary_size = vocab
  ids = policy.config.special_ids
  # Something is left to draw beside them.
  least = len({*ids.undrawable, ids.eos})
  if not least <= vocabulary_size <= vocab:
    raise ValueError(
      f'vocabulary_size must lie between {least} and the '
      f"network's vocab_size={vocab}; got {vocabulary_size}. Sample with "
      'the vocabulary that the policy was trained with.'
    )
  beyond = range(vocabulary_size, vocab)
  forbidden = (*ids.undrawable, *(i for i in beyond if i not in ids.undrawable))
  loops = shapes.block(config, device, config.source_length_buckets[-1]).loops
  if config.beam_size is not None:
    return beam.Beam(
      policy=policy,
      loops=loops,
      beam_size=config.beam_size,
      length_penalty=config.length_penalty,
      forbidden=forbidden,
    )
  return decode.Program(
    policy=policy,
    loops=loops,
    grows_caches=device.grows_caches,
    top_k=config.top_k,
    top_p=config.top_p,
    greedy=config.temperature == 0,
    forbidden=forbidden,
  )


def shaped(decoder: blocks.Decoder, shape: shapes.Shape) -> blocks.Decoder:
  """Returns the decoder of a shape."""
  decoder = dataclasses.replace(decoder, loops=shape.loops)
  if shape.num_places is None:
    return decoder
  return refill.Refill(
    **vars(decoder), num_places=shape.num_places, num_waiting=shape.num_waiting
  )


@jax.jit
def rounded(params: types.Params) -> types.Params:
  """Rounds kernels and embeddings, but not scales and position biases."""

  def one(path, leaf):
    name = path[-1].key
    return leaf.astype(jnp.bfloat16) if name in _ROUNDED else leaf

  return jax.tree_util.tree_map_with_path(one, params)
