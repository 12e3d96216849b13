"""The programs of sampling, with shapes in place of arrays."""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.models import policy as policy_lib
from rest_jax.planning import programs
from rest_jax.sampling import (
  blocks,
  decode,
  decoders,
  devices,
  sampler,
  shapes,
)

BLOCK, QUEUE, STEP = 'sampling block', 'sampling queue', 'sampling step'


def sampling(
  policy: policy_lib.Policy,
  config: sampler.DecodeConfig,
  vocabulary_size: int,
  target: programs.Target,
) -> list[programs.Program]:
  """Returns the programs of sampling: a block per device, and one step.

  The block has the longest bucket and all loops of the settings. The step,
  which the loops of the block repeat, has the longest cache and one row per
  hypothesis, on one device.
  """
  device = devices.of_mesh(target.local_mesh)
  program = decoders.decoder(policy, config, vocabulary_size, device)
  shape = shapes.block(config, device, config.source_length_buckets[-1])

  def resized(size):
    # One loop to compile, with full caches and all rows: it needs most memory.
    changed = dataclasses.replace(
      config,
      block_sources=size,
      row_shares=(),
      cache_stages=(config.max_target_length,),
    )
    return sampling(policy, changed, vocabulary_size, target)[0]

  block = dataclasses.replace(
    of_shape(program, config, shape, target), resized=resized
  )
  if not isinstance(program, decode.Program):
    return [block]
  one = jax.sharding.Mesh(np.array(target.devices[:1]), ('data',))
  step, arguments = decoding_step(program, config)
  return [
    block,
    programs.Program(
      name=STEP,
      function=jax.jit(step, donate_argnums=2),
      arguments=target.placed(
        arguments,
        jax.sharding.NamedSharding(one, jax.sharding.PartitionSpec()),
      ),
      mesh=one,
      rules=None,
      size=config.block_sources,
      unit='sources of a block',
      items=config.block_sources * config.block_samples,
      network=policy.config,
    ),
  ]


def of_shape(
  decoder: blocks.Decoder,
  config: sampler.DecodeConfig,
  shape: shapes.Shape,
  target: programs.Target,
) -> programs.Program:
  """Returns the program of a sampler for one shape per device.

  Args:
    decoder: result of `decoders.decoder`.
    config: settings of the same sampler.
    shape: sizes of a block.
    target: devices to compile for.
  """
  policy = decoder.policy
  mesh = jax.sharding.Mesh(target.local_mesh.devices.reshape(-1), ('data',))
  each = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  params = sampling_params(policy, config)
  everywhere = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      (mesh.size * leaf.shape[0], *leaf.shape[1:]), leaf.dtype
    ),
    block_inputs(
      policy, shape.num_sources, shape.num_samples, shape.source_length
    ),
  )
  return programs.Program(
    name=BLOCK if shape.num_places is None else QUEUE,
    function=blocks.compiled(decoders.shaped(decoder, shape), mesh),
    arguments=(
      *target.placed(
        (
          params,
          programs.abstract_key(),
          jax.ShapeDtypeStruct((), jnp.float32),
        ),
        whole,
      ),
      target.placed(everywhere, each),
    ),
    mesh=mesh,
    rules=None,
    size=shape.num_sources,
    unit='sources of a block',
    items=mesh.size * shape.num_sources * shape.num_samples,
    network=policy.config,
  )


def sampling_params(
  policy: policy_lib.Policy, config: sampler.DecodeConfig
) -> Any:
  """Returns the shapes of the parameters of a sampler."""
  params = jax.eval_shape(policy.init, jax.random.key(0))
  if config.weights_dtype == 'bfloat16':
    params = jax.eval_shape(decoders.rounded, params)
  return params


def block_inputs(
  policy: policy_lib.Policy,
  num_sources: int,
  num_samples: int,
  source_length: int,
) -> blocks.BlockInputs:
  """Returns the shapes of the inputs of a block."""
  arrays: list[Any] = [
    jax.ShapeDtypeStruct((num_sources, source_length), jnp.int32),
    jax.ShapeDtypeStruct((num_sources, 2), jnp.uint32),
    jax.ShapeDtypeStruct((num_samples,), jnp.uint32),
    jax.ShapeDtypeStruct((num_sources, num_samples), bool),
  ]
  if policy.config.special_ids.is_first_given:
    arrays.append(jax.ShapeDtypeStruct((num_sources,), jnp.int32))
  return blocks.BlockInputs(*arrays)


def decoding_step(
  program: decode.Program,
  config: sampler.DecodeConfig,
  *,
  source_length: int | None = None,
  cache_length: int | None = None,
) -> tuple[Callable[..., decode.State], tuple]:
  """Returns one decoding step of a block on one device, and its arguments.

  Args:
    program: result of `decoders.decoder`.
    config: settings of the same sampler.
    source_length: S; None for the longest bucket.
    cache_length: number of positions to attend to; None for the whole cache.

  Returns:
    A function of (model, sources, state), and the shapes of its arguments. Each
    hypothesis has its own row.
  """
  inputs = block_inputs(
    program.policy,
    config.block_sources,
    config.block_samples,
    source_length or config.source_length_buckets[-1],
  )
  program = dataclasses.replace(program, grows_caches=False)
  length = cache_length or config.max_target_length

  def given(params, key, inputs):
    """Returns the values that `Program.decode` computes before its loops."""
    inverse_temperature = jnp.float32(1 / (config.temperature or 1))
    transposed = blocks.transpose_embeddings(program.policy, params)
    model = blocks.Model(params, key, inverse_temperature, transposed)
    with nn.logical_axis_rules(()):
      sources = program.sources(model, inputs)
    return model, sources, program.initial(inputs.active)

  def step(model, sources, state):
    with nn.logical_axis_rules(()):
      return program.step(model, sources, state, capacity=None, length=length)

  params = sampling_params(program.policy, config)
  return step, jax.eval_shape(given, params, programs.abstract_key(), inputs)
