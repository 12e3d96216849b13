"""What sampling compiles, with shapes in place of arrays."""

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
  beam,
  categorical,
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
  """What sampling compiles: blocks, one on each device; and a last step alone.

  The block is that of the longest bucket, with all loops of the settings. The
  step is that of the longest cache, every hypothesis in a row of its own, on one
  device: a part of the block's program, which runs it in loops.
  """
  device = devices.of_mesh(target.local_mesh)
  program = decoders.decoder(policy, config, vocabulary_size, device)
  shape = shapes.block(config, device, config.source_length_buckets[-1])

  def resized(size):
    # One loop to compile: the caches have their full length from the start, and
    # the fewer rows that a step may compute need less memory.
    changed = dataclasses.replace(
      config,
      block_sources=size,
      row_shares=(),
      cache_stages=config.stages[-1:],
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
      function=jax.jit(step, donate_argnums=5),
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
  decoder: decode.Program | beam.Beam,
  config: sampler.DecodeConfig,
  shape: shapes.Shape,
  target: programs.Target,
) -> programs.Program:
  """What a sampler compiles for a shape: one on each device.

  Args:
    decoder: of `decoders.decoder`.
    config: of the same sampler.
    shape: what is decoded at once.
    target: where it is to run.
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
    _inputs(shape.num_sources, shape.num_samples, shape.source_length),
  )
  return programs.Program(
    name=BLOCK if shape.num_places is None else QUEUE,
    function=decode.compiled(decoders.shaped(decoder, shape), mesh),
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
  """Shapes of the parameters as a sampler holds them."""
  params = jax.eval_shape(policy.init, jax.random.key(0))
  if config.weights_dtype == 'bfloat16':
    params = jax.eval_shape(decoders.rounded, params)
  return params


def block_inputs(
  config: sampler.DecodeConfig, source_length: int
) -> decode.BlockInputs:
  """Shapes of a block of one device."""
  return _inputs(config.block_sources, config.block_samples, source_length)


def _inputs(
  num_sources: int, num_samples: int, source_length: int
) -> decode.BlockInputs:
  rows = (num_sources, num_samples)
  arrays: list[Any] = [
    jax.ShapeDtypeStruct((num_sources, source_length), jnp.int32),
    jax.ShapeDtypeStruct((num_sources, 2), jnp.uint32),
    jax.ShapeDtypeStruct((num_samples,), jnp.uint32),
    jax.ShapeDtypeStruct(rows, bool),
  ]
  return decode.BlockInputs(*arrays)


def decoding_step(
  program: decode.Program,
  config: sampler.DecodeConfig,
  *,
  source_length: int | None = None,
  cache_length: int | None = None,
) -> tuple[Callable[..., decode.State], tuple]:
  """One step of a block on one device, and the shapes of all that it is given.

  Args:
    program: of `decoders.decoder`.
    config: of the same sampler.
    source_length: S; None for the longest bucket.
    cache_length: positions that are attended to, of a cache of the longest
      stage; None for all.

  Returns:
    A function of (params, cross_caches, turned_embeddings, inputs, uniforms,
    state), and these. Each hypothesis has a row of its own.
  """
  inputs = block_inputs(
    config, source_length or config.source_length_buckets[-1]
  )
  program = dataclasses.replace(program, grows_caches=False)

  def given(key, params, inputs):
    """As `Program.decode` makes it."""
    with nn.logical_axis_rules(()):
      cross = program.cross_caches(params, inputs.encoder_input_tokens)
    uniforms = categorical.uniforms(
      key, inputs.source_words, inputs.sample_ids, config.max_target_length
    )
    turned = decode.turned_embeddings(program.policy, params)
    return cross, turned, uniforms, program.initial(inputs)

  def step(params, cross, turned, inputs, uniforms, state):
    inverse_temperature = jnp.float32(1 / (config.temperature or 1))
    with nn.logical_axis_rules(()):
      return program.step(
        decode.Given(
          params=params,
          turned_embeddings=turned,
          inverse_temperature=inverse_temperature,
          encoder_input_tokens=inputs.encoder_input_tokens,
          cross_caches=cross,
          uniforms=uniforms,
        ),
        state,
        capacity=None,
        length=cache_length or config.stages[-1],
      )

  params = sampling_params(program.policy, config)
  cross, turned, uniforms, state = jax.eval_shape(
    given, programs.abstract_key(), params, inputs
  )
  return step, (params, cross, turned, inputs, uniforms, state)
