r"""What an experiment compiles: programs, loop bodies, seconds, and their use.

  python -m benchmarks.compile --gin_file=gin_configs/experiments/demo.gin
  python -m benchmarks.compile --gin_file=… --only=sampling --all_loops
  python -m benchmarks.compile --gin_file=… --topology=v5e:2x2

Compiles ahead of time and runs nothing, for this machine's first CPU, or for a
TPU slice (`pip install -e '.[tpu]'`). Prints a JSON line per program, and one of
sums. `compile_cpu_seconds` is the CPU time of all threads, which other processes
change less than wall time. Which loops sampling has depends on the number of
sources of a Grow (`--sources`) and their mean length.
"""

from collections.abc import Iterator
import json
import time

from absl import app, flags
import jax
import numpy as np

from rest_jax import experiment_run as run_lib
from rest_jax.config import gin_files, registry
from rest_jax.planning import chips, plan, programs, sampling_programs
from rest_jax.sampling import decoders, devices, estimates, sampler, work

_GIN_FILE = flags.DEFINE_multi_string('gin_file', [], 'Of an experiment.')
_GIN = flags.DEFINE_multi_string('bind', [], 'Gin bindings.')
_SOURCES = flags.DEFINE_integer('sources', 10_000, 'Sources of a Grow.')
_MEAN = flags.DEFINE_float('mean_length', 14, 'Tokens of a source on average.')
_TOPOLOGY = flags.DEFINE_string('topology', None, 'Such as v5e:2x2.')
_ALL = flags.DEFINE_bool(
  'all_loops', False, 'Sampling with all loops of the settings.'
)
_ONLY = flags.DEFINE_list('only', [], 'Beginnings of names of programs.')
_LIST = flags.DEFINE_bool('list', False, 'Compile nothing.')
_TINY = flags.DEFINE_bool('tiny', False, 'smoke.gin, for tests.')


def source_lengths(longest: int) -> np.ndarray:
  """Lengths of sources, gamma distributed with a deviation of half the mean."""
  quantiles = np.random.default_rng(0).gamma(4.0, size=_SOURCES.value)
  return np.clip(np.rint(quantiles / 4 * _MEAN.value), 1, longest).astype(int)


def decodes(run: run_lib.Run) -> dict[sampler.DecodeConfig, list[str]]:
  """Which stages use which settings of sampling."""
  experiment = run.experiment
  evaluate = experiment.evaluate
  found: dict[sampler.DecodeConfig, list[str]] = {}
  for name, config in (
    ('grow', experiment.grow.decode),
    ('selection', evaluate.selection),
    ('evaluate', evaluate.decode),
    ('KL to BC', evaluate.decode.untempered()),
    *evaluate.searches().items(),
  ):
    found.setdefault(config, []).append(name)
  return found


def sampling(
  run: run_lib.Run, target: programs.Target
) -> Iterator[tuple[programs.Program, list[str], int]]:
  """Yields what sampling compiles, its use and its number of loop bodies."""
  policy = plan.policy_of(run)
  device = devices.of_mesh(target.local_mesh)
  sizes = estimates.Sizes.of(policy.config)
  used: dict[tuple, tuple[programs.Program, list[str], int]] = {}
  for config, names in decodes(run).items():
    lengths = source_lengths(config.source_length_buckets[-1])
    found = work.every(config, device, lengths)
    if not _ALL.value:
      found = work.fitted(config, device, sizes, lengths)
    # In the order that they are compiled.
    items = work.items(config, found, lengths)
    chosen = list(dict.fromkeys(item.shape for item in items))
    chosen += [shape.longer for shape in chosen if shape.longer]
    decoder = decoders.decoder(
      policy, config, run.context.vocabulary_size, device
    )
    for shape in dict.fromkeys(chosen):
      key = (decoders.shaped(decoder, shape), shape)
      if key not in used:
        program = sampling_programs.of_shape(decoder, config, shape, target)
        used[key] = program, [], shape.loops.num_bodies
      used[key][1].extend(names)
  yield from used.values()


def measure(program: programs.Program) -> dict[str, float]:
  """Seconds to trace, lower and compile a program."""
  wall = [time.perf_counter()]
  cpu = [time.process_time()]

  def lap(value):
    wall.append(time.perf_counter())
    cpu.append(time.process_time())
    return value

  lowered = lap(program.trace().lower())
  lap(lowered.compile())
  return {
    'trace_seconds': round(wall[1] - wall[0], 2),
    'compile_seconds': round(wall[2] - wall[1], 2),
    'compile_cpu_seconds': round(cpu[2] - cpu[1], 2),
  }


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  files = _GIN_FILE.value
  if _TINY.value:
    files = ['gin_configs/experiments/smoke.gin']
  if not files:
    raise app.UsageError('give --gin_file, or --tiny')
  if _TOPOLOGY.value:
    chips.without_tpu()
  # Everything is compiled anew.
  jax.config.update('jax_enable_compilation_cache', False)
  registry.register()
  run = run_lib.Run(
    gin_files.parse_and_build(files, _GIN.value, root=registry.ROOT), 'none'
  )
  where = jax.devices('cpu')[:1]
  if _TOPOLOGY.value:
    where = chips.Slice(_TOPOLOGY.value).devices()
  target = programs.Target(devices=where, mesh_config=run.experiment.mesh)
  others = [
    (program, [program.name], None)
    for program in plan.programs_of(run, target)
    if program.name not in (sampling_programs.BLOCK, sampling_programs.STEP)
  ]
  sums = {'programs': 0, 'loop_bodies': 0}
  for program, use, bodies in (*others, *sampling(run, target)):
    if _ONLY.value and not program.name.startswith(tuple(_ONLY.value)):
      continue
    line = {'program': program.name, 'size': program.size, 'use': use}
    if bodies is not None:
      line['source_length'] = program.arguments[3][0].shape[1]
      line['loop_bodies'] = bodies
    seconds = {} if _LIST.value else measure(program)
    print(json.dumps(line | seconds), flush=True)
    for name, value in {
      'programs': 1,
      'loop_bodies': bodies or 0,
      **seconds,
    }.items():
      sums[name] = round(sums.get(name, 0) + value, 2)
  print(json.dumps({'sums': sums}), flush=True)


if __name__ == '__main__':
  app.run(main)
