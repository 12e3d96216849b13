r"""What one decoding step must read and write, and what XLA made of it for TPU.

  pip install -e '.[tpu]' -c launch/constraints.txt
  python -m benchmarks.roofline

Compiles ahead of time; no TPU is needed, and nothing is executed. A whole block
is compiled, whose loops, one for each length of the self-attention cache, make
the
steps: what one turn of each moves to and from the chip's memory (`hbm.py`) is
averaged over the positions that use it. A step by itself is compiled for each
length too, for its temporaries and for what XLA's cost model counts, which has
what is moved inside of the chip as well.

The analytic minimum reads weights and cross-attention keys and values once, the
self-attention cache at its mean filled length, and writes and reads the float32
logits once.
"""

import dataclasses
import json
import sys

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hbm
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.planning import chips, counts, programs, sampling_programs
from rest_jax.sampling import blocks, decoders, devices, sampler

_TOPOLOGY = flags.DEFINE_string('topology', 'v5e:2x2', 'Compiled for one chip.')
_BLOCK = flags.DEFINE_integer('block', 64, 'B, sources.')
_SAMPLES = flags.DEFINE_integer('samples', 16, 'N, samples a source.')
_SOURCE_LENGTH = flags.DEFINE_integer('source_length', 64, 'S.')
_TARGET_LENGTH = flags.DEFINE_integer('target_length', 128, 'T.')
_STAGES = flags.DEFINE_list(
  'stages', None, "Lengths of the cache; a run's own unless given."
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
  """Yields (cache length, compiled step) for each stage."""
  program = decoders.decoder(
    policy_lib.Policy(_CONFIG), settings, device=devices.TPU
  )
  for length in settings.stages:
    step, shapes = sampling_programs.decoding_step(
      program, settings, source_length=source_length, cache_length=length
    )
    shapes = _on(device, shapes)
    yield length, jax.jit(step, donate_argnums=2).lower(*shapes).compile()


def loop_traffic(
  settings: sampler.DecodeConfig, source_length: int, device
) -> dict[int, hbm.Traffic]:
  """What a turn of the loop of each stage moves, in a whole block."""
  policy = policy_lib.Policy(_CONFIG)
  shapes = (
    sampling_programs.sampling_params(policy, settings),
    programs.abstract_key(),
    jax.ShapeDtypeStruct((), jnp.float32),
    sampling_programs.block_inputs(
      policy, settings.block_sources, settings.block_samples, source_length
    ),
  )
  block = blocks.compiled(
    decoders.decoder(policy, settings, device=devices.TPU),
    jax.sharding.Mesh(np.array([device]), ('data',)),
  )
  text = block.lower(*_on(device, shapes)).compile().as_text()
  # Each loop begins with what the one before gives, so that the text has them
  # in their order.
  return dict(zip(settings.stages, hbm.loop_bodies(text), strict=True))


def _on(device, shapes):
  sharding = jax.sharding.SingleDeviceSharding(device)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
  )


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  chips.without_tpu()
  settings = sampler.DecodeConfig(
    num_samples_per_source=_SAMPLES.value,
    max_target_length=_TARGET_LENGTH.value,
    block_sources=_BLOCK.value,
    row_shares=(),
    weights_dtype='bfloat16',
  )
  if _STAGES.value:
    stages = [int(length) for length in _STAGES.value]
    settings = dataclasses.replace(settings, cache_stages=stages)
  source_length = _SOURCE_LENGTH.value
  device = chips.Slice(_TOPOLOGY.value).devices()[0]
  least = counts.decoding_step(_CONFIG, settings, source_length)
  loops = loop_traffic(settings, source_length, device)
  lines, begin = [], 0
  for length, compiled in compiled_steps(settings, source_length, device):
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    line = {
      'cache_length': length,
      'positions': length - begin,
      'hbm_bytes_read': loops[length].read,
      'hbm_bytes_written': loops[length].written,
      'xla_bytes_accessed': int(cost['bytes accessed']),
      'flops': int(cost['flops']),
      'temporary_bytes': int(memory.temp_size_in_bytes),
      'argument_bytes': int(memory.argument_size_in_bytes),
    }
    lines.append(line)
    print(json.dumps(line), flush=True)
    begin = length
  print(
    json.dumps(
      {'minimum': least._asdict(), 'minimum_bytes': least.accessed_bytes}
    )
  )

  def mean(*names):
    values = [sum(line[name] for name in names) for line in lines]
    positions = [line['positions'] for line in lines]
    return float(np.average(values, weights=positions))

  moved = mean('hbm_bytes_read', 'hbm_bytes_written')
  print(
    f'a step moves {moved / 1e6:,.0f} MB; at least '
    f'{least.accessed_bytes / 1e6:,.0f} MB',
    file=sys.stderr,
  )
  copies = _SAMPLES.value * least.cross_cache
  temporaries = max(line['temporary_bytes'] for line in lines)
  ratios = {
    'hbm_bytes_vs_minimum': moved / least.accessed_bytes,
    'xla_bytes_vs_minimum': mean('xla_bytes_accessed') / least.accessed_bytes,
    'temporaries_vs_n_cross_caches': temporaries / copies,
  }
  print(
    json.dumps({'ratios': {k: round(v, 3) for k, v in ratios.items()}}),
    flush=True,
  )


if __name__ == '__main__':
  app.run(main)
