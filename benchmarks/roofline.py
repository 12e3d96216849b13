r"""What one decoding step must read and write, and what XLA made of it for TPU.

  pip install -e '.[tpu]' -c launch/constraints.txt
  TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python -m benchmarks.roofline

Compiles ahead of time; no TPU is needed, and nothing is executed. A step is
compiled for each length of the self-attention cache, and the bytes that XLA's
cost model says it accesses are averaged over the positions that use it. The
analytic minimum reads weights and cross-attention keys and values once, the
self-attention cache at its mean filled length, and writes and reads the float32
logits once.
"""

import dataclasses
import functools
import json
import sys

from absl import app, flags
import jax
from jax.experimental import topologies
import jax.numpy as jnp
import numpy as np

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import categorical, decode, sampler

_TOPOLOGY = flags.DEFINE_string('topology', 'v5e:2x2', 'Compiled for one chip.')
_BLOCK = flags.DEFINE_integer('block', 64, 'B, sources.')
_SAMPLES = flags.DEFINE_integer('samples', 16, 'N, samples a source.')
_SOURCE_LENGTH = flags.DEFINE_integer('source_length', 64, 'S.')
_TARGET_LENGTH = flags.DEFINE_integer('target_length', 128, 'T.')
_STAGES = flags.DEFINE_list(
  'stages', ['16', '32', '64', '128'], 'Lengths of the cache.'
)

_CONFIG = network.NetworkConfig(
  vocab_size=32000,
  emb_dim=512,
  mlp_dim=1024,
  num_heads=4,
  head_dim=128,
  num_encoder_layers=6,
  num_decoder_layers=6,
  dtype='bfloat16',
)
_BYTES = 2  # of a bfloat16 number


def minimum(settings: sampler.DecodeConfig, source_length: int) -> dict:
  """Bytes and FLOPs of the mean step, by part."""
  rows = settings.block_sources * settings.block_samples
  width = _CONFIG.num_heads * _CONFIG.head_dim
  layers = _CONFIG.num_decoder_layers
  # Projections of both attentions but the cross keys and values, and the gated
  # feed-forward block.
  weights = layers * _CONFIG.emb_dim * (6 * width + 3 * _CONFIG.mlp_dim)
  weights += _CONFIG.emb_dim * _CONFIG.vocab_size
  mean_length = (settings.max_target_length + 1) / 2
  cross = 2 * layers * settings.block_sources * source_length * width
  return {
    'weights': weights * _BYTES,
    'self_cache': int(2 * layers * rows * width * mean_length) * _BYTES,
    'cross_cache': cross * _BYTES,
    'logits': 2 * rows * _CONFIG.vocab_size * 4,
    'flops': 2 * rows * weights
    + int(4 * layers * rows * width * (mean_length + source_length)),
  }


def compiled_steps(settings: sampler.DecodeConfig, source_length: int, device):
  """Yields (positions, cache length, compiled step) for each stage."""
  program = decode.Program(
    policy=policy_lib.Policy(_CONFIG),
    max_target_length=settings.max_target_length,
    cache_stages=settings.stages,
    greedy=False,
  )
  rows = (settings.block_sources, settings.block_samples)
  inputs = decode.BlockInputs(
    jax.ShapeDtypeStruct((rows[0], source_length), jnp.int32),
    jax.ShapeDtypeStruct((rows[0], 2), jnp.uint32),
    jax.ShapeDtypeStruct((rows[1],), jnp.uint32),
    jax.ShapeDtypeStruct(rows, bool),
  )

  def arguments(length, key):
    """All that a step is given, as `Program.decode` makes it."""
    params = sampler.rounded(program.policy.init(key))
    blank = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), inputs)
    apply = functools.partial(program.policy.module.apply, {'params': params})
    encoded = apply(blank.encoder_input_tokens, method='encode')
    cross = apply(encoded, method='cross_attention_cache')
    uniforms = categorical.uniforms(
      key, blank.source_words, blank.sample_ids, settings.max_target_length
    )
    one = dataclasses.replace(program, cache_stages=(length,))
    state = one.initial(blank)
    return params, cross, blank, uniforms, state

  def step(params, cross, blank, uniforms, state):
    return program.step(
      params, cross, None, blank, uniforms, jnp.float32(1.25), state, None
    )

  sharding = jax.sharding.SingleDeviceSharding(device)
  begin = 0
  for length in settings.stages:
    shapes = jax.eval_shape(
      functools.partial(arguments, length), categorical.base_key(0, 0)
    )
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      shapes,
    )
    compiled = jax.jit(step, donate_argnums=4).lower(*shapes).compile()
    yield length - begin, length, compiled
    begin = length


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  settings = sampler.DecodeConfig(
    num_samples_per_source=_SAMPLES.value,
    max_target_length=_TARGET_LENGTH.value,
    block_sources=_BLOCK.value,
    cache_stages=[int(length) for length in _STAGES.value],
    row_shares=(),
  )
  source_length = _SOURCE_LENGTH.value
  device = topologies.get_topology_desc(
    platform='tpu', topology_name=_TOPOLOGY.value
  ).devices[0]
  least = minimum(settings, source_length)
  least_bytes = sum(v for name, v in least.items() if name != 'flops')
  accessed, temporaries = [], []
  for positions, length, compiled in compiled_steps(
    settings, source_length, device
  ):
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    accessed.append((positions, cost['bytes accessed']))
    temporaries.append(memory.temp_size_in_bytes)
    line = {
      'cache_length': length,
      'positions': positions,
      'bytes_accessed': int(cost['bytes accessed']),
      'flops': int(cost['flops']),
      'temporary_bytes': int(memory.temp_size_in_bytes),
      'argument_bytes': int(memory.argument_size_in_bytes),
    }
    print(json.dumps(line))
  positions, totals = np.asarray(accessed).T
  mean_bytes = float(np.average(totals, weights=positions))
  print(json.dumps({'minimum': least, 'minimum_bytes': least_bytes}))
  print(
    f'a step accesses {mean_bytes / 1e6:,.0f} MB; at least '
    f'{least_bytes / 1e6:,.0f} MB',
    file=sys.stderr,
  )
  copies = _SAMPLES.value * least['cross_cache']
  ratios = {
    'bytes_vs_minimum': mean_bytes / least_bytes,
    'temporaries_vs_n_cross_caches': max(temporaries) / copies,
  }
  print(
    json.dumps({'ratios': {k: round(v, 3) for k, v in ratios.items()}}),
    flush=True,
  )


if __name__ == '__main__':
  app.run(main)
