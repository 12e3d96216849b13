r"""What one decoding step must read and write, and what XLA made of it for TPU.

  pip install -e '.[tpu]' -c launch/constraints.txt
  python -m benchmarks.roofline

Compiles ahead of time; no TPU is needed, and nothing is executed. A step is
compiled for each length of the self-attention cache, and the bytes that XLA's
cost model says it accesses are averaged over the positions that use it. The
analytic minimum reads weights and cross-attention keys and values once, the
self-attention cache at its mean filled length, and writes and reads the float32
logits once.
"""

import json
import sys

from absl import app, flags
import jax
import numpy as np

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.planning import chips, counts, sampling_programs
from rest_jax.sampling import sampler

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


def compiled_steps(settings: sampler.DecodeConfig, source_length: int, device):
  """Yields (positions, cache length, compiled step) for each stage."""
  program = sampler.program(policy_lib.Policy(_CONFIG), settings)
  sharding = jax.sharding.SingleDeviceSharding(device)
  begin = 0
  for length in settings.stages:
    step, shapes = sampling_programs.decoding_step(
      program, settings, source_length=source_length, cache_length=length
    )
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      shapes,
    )
    compiled = jax.jit(step, donate_argnums=5).lower(*shapes).compile()
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
    weights_dtype='bfloat16',
  )
  source_length = _SOURCE_LENGTH.value
  device = chips.Slice(_TOPOLOGY.value).devices()[0]
  least = counts.decoding_step(_CONFIG, settings, source_length)
  least_bytes = least.accessed_bytes
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
  print(json.dumps({'minimum': least._asdict(), 'minimum_bytes': least_bytes}))
  print(
    f'a step accesses {mean_bytes / 1e6:,.0f} MB; at least '
    f'{least_bytes / 1e6:,.0f} MB',
    file=sys.stderr,
  )
  copies = _SAMPLES.value * least.cross_cache
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
