"""What the paper's three sizes need on TPU slices: writes docs/tpu.md.

  pip install -e '.[tpu]' -c launch/constraints.txt
  python -m benchmarks.tpu_plan --cache=/tmp/tpu_plan

Compiles every program ahead of time; no TPU is needed, and nothing is executed.
Each program's figures are kept in the folder `--cache`, so that what was cut off
goes on; `--seconds` begins no other program after that time. The document is
written from what is there: the rest says "not measured". Empty the folder after
a change of the code.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import json
import pathlib
import sys
import time

from absl import app, flags
import jax

from rest_jax import experiment_run as run_lib
from rest_jax.config import gin_files, registry
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.planning import chips, measured, meshes, sampling_programs
from rest_jax.planning import plan as plan_lib
from rest_jax.planning import programs as programs_lib
from rest_jax.rewards import metricx
from rest_jax.storage import files

_CACHE = flags.DEFINE_string('cache', None, 'Keeps the figures.', required=True)
TOPOLOGIES = ('v5e:2x2', 'v5e:16x16', 'v4:2x2x1', 'v5p:2x2x1')
_TOPOLOGIES = flags.DEFINE_list(
  'topologies', [*TOPOLOGIES, 'v5e:2x4'], 'Slices.'
)
_SIZES = flags.DEFINE_list('sizes', ['iwslt', 'wmt', 'web'], 'Experiments.')
_ONLY = flags.DEFINE_list('only', [], 'Beginnings of names of programs.')
_SECONDS = flags.DEFINE_integer('seconds', 10**9, 'Begin nothing after that.')
_EFFORT = flags.DEFINE_float(
  'effort', -1.0, "The compiler's; 0 is what a run compiles with, and slower."
)
_DOCUMENT = flags.DEFINE_string('document', 'docs/tpu.md', 'What is written.')

EXPERIMENTS = {
  'iwslt': 'iwslt14_de_en',
  'wmt': 'wmt20_zh_en',
  'web': 'web_en_zh',
}
TITLES = {
  'iwslt': 'IWSLT (`iwslt14_de_en.gin`)',
  'wmt': 'WMT-base (`wmt20_zh_en.gin`)',
  'web': 'Web-big (`web_en_zh.gin`)',
}
_LOSSES = (
  'bc', 'gold_p', 'gold_s', 'oac', 'bvmpo', 'dpo', 'bve',
  'reward_weighted_bc', 'reward_conditioned',
)  # fmt: skip
# The slice on which BC steps of several batches are compared, and the batches:
# tokens a side of all chips together.
_STEP_SLICE = 'v5e:2x4'
_STEP_TOKENS = (16_384, 32_768, 65_536, 131_072, 262_144)
_STEP_SIZES = ('wmt', 'web')
# How a training step is compiled that did not fit, and what its name gets.
_REMAT_BINDING, _REMAT = "NetworkConfig.remat='full'", ', remat'
# A MetricX of mT5-XXL's sizes, and the slice that it is planned for.
_SCORER, _SCORER_SLICE = 'metricx-xxl', 'v5e:4x4'


def _experiment(size: str, loss: str, *bindings: str) -> run_lib.Run:
  """An experiment whose texts need not be there."""
  text = [
    f"{split}_{side}=('none',)"
    for split in ('TRAIN', 'VALIDATION', 'TEST')
    for side in ('SOURCES', 'REFERENCES')
  ]
  text.append("RATINGS_FILE='none'")
  if size == 'web':
    text.append("GROW_SOURCES=('none',)")
  text += ["NetworkConfig.dtype='bfloat16'", *bindings]
  experiment = gin_files.parse_and_build(
    [
      f'gin_configs/experiments/{EXPERIMENTS[size]}.gin',
      f'gin_configs/losses/{loss}.gin',
    ],
    text,
    root=registry.ROOT,
  )
  return run_lib.Run(experiment, 'none')


def _wanted(size: str) -> Iterator[tuple[str, str, str]]:
  """(name, loss, name in the plan) of each program of a size."""
  yield 'bc', 'bc', 'bc'
  yield 'sampling step', 'bc', 'sampling step'
  yield 'scorer sources', 'bc', 'scorer sources'
  yield 'scorer candidates', 'bc', 'scorer candidates'
  yield 'sampling block', 'bc', 'sampling block'
  yield 'reward ratings', 'bc', 'reward ratings'
  yield 'value', 'oac', 'value'
  for loss in _LOSSES:
    yield f'improve {loss}', loss, 'improve'


@functools.cache
def _programs(size: str, loss: str, topology: str, *bindings: str):
  run = _experiment(size, loss, *bindings)
  target = programs_lib.Target(
    devices=chips.Slice(topology).devices(), mesh_config=run.experiment.mesh
  )
  found = plan_lib.programs_of(run, target)
  return {program.name: program for program in found}


def _program(name: str, *of) -> programs_lib.Program:
  """One of the programs that `_programs` makes."""
  return _programs(*of)[name]


def _scorer(topology: str) -> programs_lib.Program:
  """MetricX at the size of mT5-XXL, over as few devices of `model` as will do."""
  experiment = gin_files.parse_and_build(
    [
      'gin_configs/experiments/smoke.gin',
      'gin_configs/models/mt5_xxl.gin',
    ],
    [],
    root=registry.ROOT,
  )
  network = experiment.network
  config = metricx.MetricX(directory='none', dtype='bfloat16', name=_SCORER)
  where = chips.Slice(topology)
  shapes = jax.eval_shape(scalar.ScalarModel(network).init, jax.random.key(0))
  # Two bytes each: bfloat16.
  chosen = meshes.suggest(
    where.chip,
    where.num_chips,
    2 * policy_lib.num_params(shapes),
    num_heads=network.num_heads,
    emb_dim=network.emb_dim,
    can_shard_fully=False,
  )
  if chosen is None:
    raise ValueError(f'{_SCORER} fits no mesh of {topology}')
  target = programs_lib.Target(
    devices=where.devices(), mesh_config=mesh_lib.MeshConfig(model=chosen.model)
  )
  return programs_lib.metricx_scorer(config, network, target)


_Task = tuple[str, str, str, Callable[[], programs_lib.Program]]


def _tasks() -> Iterator[_Task]:
  """(topology, size, name, what makes the program), the smallest first.

  A step that turned out not to fit comes once more, with rematerialisation.
  """
  for size in _SIZES.value:
    for topology in _TOPOLOGIES.value:
      if topology not in TOPOLOGIES:
        continue
      for name, loss, planned in _wanted(size):
        make = functools.partial(_program, planned, size, loss, topology)
        yield topology, size, name, make
        if _is_too_large(topology, size, name):
          again = functools.partial(make, _REMAT_BINDING)
          yield topology, size, name + _REMAT, again
  for size in _STEP_SIZES:
    if size not in _SIZES.value or _STEP_SLICE not in _TOPOLOGIES.value:
      continue
    for tokens in _STEP_TOKENS:
      binding = f'TOKENS_PER_BATCH={tokens}'
      make = functools.partial(_program, 'bc', size, 'bc', _STEP_SLICE, binding)
      yield _STEP_SLICE, size, _step_name(tokens), make
  yield _SCORER_SLICE, _SCORER, 'scorer', lambda: _scorer(_SCORER_SLICE)


def _is_too_large(topology: str, size: str, name: str) -> bool:
  """Whether a program was compiled and does not fit."""
  found = _read(topology, size, name)
  return found is not None and not found.fits


def _rows(topology: str, size: str) -> Iterator[str]:
  """Names of a size's programs on a slice, as in its table."""
  for name, _, _ in _wanted(size):
    yield name
    if _is_too_large(topology, size, name):
      yield name + _REMAT


def _step_name(tokens: int) -> str:
  return f'step of {tokens} tokens'


def _path(topology: str, size: str, name: str) -> pathlib.Path:
  words = f'{topology}-{size}-{name}'.replace(':', '-').replace(', ', '-')
  return pathlib.Path(_CACHE.value) / f'{words.replace(" ", "_")}.json'


def _read(topology: str, size: str, name: str) -> measured.Measured | None:
  path = _path(topology, size, name)
  if not path.exists():
    return None
  return measured.Measured(**json.loads(path.read_text('utf-8')))


def _compile_all() -> int:
  """Compiles what is missing; returns how much of it is left."""
  began, left = time.monotonic(), 0
  pathlib.Path(_CACHE.value).mkdir(parents=True, exist_ok=True)
  for topology, size, name, make in _tasks():
    path = _path(topology, size, name)
    wanted = not _ONLY.value or any(name.startswith(o) for o in _ONLY.value)
    if path.exists() or not wanted:
      continue
    if time.monotonic() - began > _SECONDS.value:
      left += 1
      continue
    found = measured.measure(make(), _EFFORT.value)
    found = dataclasses.replace(found, name=name)
    with files.atomic_write(path) as temporary:
      temporary.write_text(json.dumps(dataclasses.asdict(found)), 'utf-8')
    print(
      f'{topology} {size} {name}: '
      f'{found.memory / chips.GIB:.2f} GiB, fits: {found.fits}, '
      f'{found.compile_seconds:.0f} s',
      file=sys.stderr,
      flush=True,
    )
  return left


def _table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
  yield '| ' + ' | '.join(header) + ' |'
  yield '|' + '---|' * len(header)
  for row in rows:
    yield '| ' + ' | '.join(row) + ' |'


def _cells(found: measured.Measured, chip: chips.Chip) -> list[str]:
  """Memory, work, bound and collectives of one program."""
  if not found.fits:
    return ['does not fit', f'{found.flops / 1e9:,.1f}', '', '', '']
  collectives = ', '.join(f'{n} {k}' for k, n in found.collectives.items())
  memory = f'{found.memory / chips.GIB:.2f}'
  if found.name == sampling_programs.BLOCK:
    return [memory, '', '', '', collectives or 'none']
  kind, seconds = found.bound(chip)
  return [
    memory,
    f'{found.flops / 1e9:,.1f}',
    f'{found.accessed_bytes / 1e9:,.2f}',
    f'{kind}, {1e3 * seconds:.2f}',
    collectives or 'none',
  ]


_COLUMNS = [
  'program', 'batch', 'GiB on a chip', 'GFLOP', 'GB accessed', 'bound, ms',
  'collectives',
]  # fmt: skip


_STEP_COLUMNS = [
  'batch', *_COLUMNS[2:-1], 'share of peak FLOP/s, at most',
  'tokens per second, at most',
]  # fmt: skip


def _section(topology: str, size: str, names: list[str]) -> Iterator[str]:
  """The table of what was compiled, and the names of what was not."""
  chip = chips.Slice(topology).chip
  found = {name: _read(topology, size, name) for name in names}
  rows = [
    [name, f'{each.size:,}', *_cells(each, chip)]
    for name, each in found.items()
    if each is not None
  ]
  if rows:
    yield from _table(_COLUMNS, rows)
  missing = [name for name, each in found.items() if each is None]
  if missing and rows:
    yield ''
  if missing:
    named = '; '.join(missing) if rows else 'all programs'
    yield f'Not measured: {named}.'


def _steps(size: str) -> Iterator[str]:
  """BC steps of one size by batch, and which of them is best."""
  chip = chips.Slice(_STEP_SLICE).chip
  rows, rates, missing = [], {}, []
  for tokens in _STEP_TOKENS:
    found = _read(_STEP_SLICE, size, _step_name(tokens))
    if found is None:
      missing.append(f'{tokens:,}')
      continue
    cells = _cells(found, chip)
    if found.fits:
      _, seconds = found.bound(chip)
      rates[tokens] = tokens / seconds
      utilisation = found.flops / chip.peak_flops / seconds
      cells[4:] = [f'{utilisation:.0%}', f'{rates[tokens]:,.0f}']
    else:
      cells.append('')
    rows.append([f'{tokens:,}', *cells])
  if rows:
    yield from _table(_STEP_COLUMNS, rows)
  if rates:
    best = max(rates, key=rates.__getitem__)
    yield from ('', f'Most tokens per second: a batch of {best:,}.')
  if missing:
    yield from ('', f'Not measured: batches of {", ".join(missing)} tokens.')


def _listed(sections: list[tuple[str, str, str]]) -> str:
  return '; '.join(', '.join(section) for section in sections)


def _summary() -> Iterator[str]:
  """How much was compiled, what did not fit, and whether sampling is alone."""
  sections = [
    (topology, size, name)
    for topology in TOPOLOGIES
    for size in EXPERIMENTS
    for name in _rows(topology, size)
  ]
  sections += [
    (_STEP_SLICE, size, _step_name(tokens))
    for size in _STEP_SIZES
    for tokens in _STEP_TOKENS
  ]
  sections.append((_SCORER_SLICE, _SCORER, 'scorer'))
  found = {section: _read(*section) for section in sections}
  done = {section: each for section, each in found.items() if each is not None}
  unfit = [section for section, each in done.items() if not each.fits]
  remat = [
    (topology, size, name)
    for topology, size, name in unfit
    if (again := done.get((topology, size, name + _REMAT))) and again.fits
  ]
  tried = sum(name.endswith(_REMAT) for _, _, name in done)
  yield (
    f'{len(done) - tried} of {len(sections) - tried} programs were compiled.'
  )
  if remat:
    yield f'These fit only with `{_REMAT_BINDING}`: {_listed(remat)}.'
  if unfit := [section for section in unfit if section not in remat]:
    yield f'These do not fit: {_listed(unfit)}.'
  if done:
    yield f'{"The others" if unfit or remat else "All of these"} fit.'
  blocks = [
    each for each in done.values() if each.name == sampling_programs.BLOCK
  ]
  if blocks:
    busy = sum(bool(each.collectives) for each in blocks)
    yield (
      f'{busy or "None"} of {len(blocks)} sampling blocks '
      f'{"have" if busy > 1 else "has"} a collective in the HLO.'
    )


def _document() -> Iterator[str]:
  yield from _HEAD.format(effort=_EFFORT.value).splitlines()
  yield ''
  yield from _summary()
  for size, title in TITLES.items():
    yield from ('', f'## {title}')
    for topology in TOPOLOGIES:
      memory = chips.Slice(topology).chip.hbm_bytes / chips.GIB
      yield from ('', f'### {topology}, {memory:g} GiB per chip', '')
      yield from _section(topology, size, list(_rows(topology, size)))
  memory = chips.Slice(_STEP_SLICE).chip.hbm_bytes / chips.GIB
  title = f'## Batches of BC on {_STEP_SLICE}'
  yield from ('', f'{title}, {memory:g} GiB per chip', '')
  yield from _STEP_NOTE.splitlines()
  for size in _STEP_SIZES:
    yield from ('', f'### {TITLES[size]}', '')
    yield from _steps(size)
  memory = chips.Slice(_SCORER_SLICE).chip.hbm_bytes / chips.GIB
  title = f'## A MetricX of mT5-XXL size on {_SCORER_SLICE}'
  yield from ('', f'{title}, {memory:g} GiB per chip', '')
  yield from (*_SCORER_NOTE.splitlines(), '')
  yield from _section(_SCORER_SLICE, _SCORER, ['scorer'])


_HEAD = """\
# TPU

`--run_mode=plan` compiles an experiment for a TPU slice on any machine and prints what each
of its programs needs there. Nothing is executed; no TPU and no data are needed.

```
pip install -e '.[tpu]' -c launch/constraints.txt
rest-jax run --run_mode=plan --topology=v5e:4x4 \\
  --gin_file=gin_configs/experiments/demo.gin --plan_output=plan.json
```

It prints memory on a chip, FLOPs, bytes, the bound, the largest batch that fits, a mesh,
and an estimate of hours.

| flag | |
|---|---|
| `--topology` | `v4:2x2x1`, `v5e:4x4`, `v5p:2x2x1`, `v6e:2x2`, …: the chip and the shape of the slice; `2xv5e:4x4`: two such slices, with `--gin_file=gin_configs/meshes/multislice.gin` |
| `--plan_search=false` | skip the search for the largest batch that fits, which needs several compilations per program |
| `--plan_only=bc,sampling` | only programs whose names start with one of these |
| `--plan_sources=160000` | number of sources of a Grow step, where the texts are not available |
| `--plan_effort=0` | compile as a run does; the default, -1, is several times faster and differs slightly in memory and bytes |
| `--plan_output` | a JSON file with all figures |

How to read the tables:

- **Memory** is arguments, temporaries, outputs that do not reuse the memory of an argument,
  and the program's code, on one chip. A program that the compiler cannot place in the chip's
  memory "does not fit".
- A program that does not fit may fit with `NetworkConfig.remat='full'`, which recomputes
  activations in the backward pass (rows "remat" below); with fewer `TOKENS_PER_BATCH`; or,
  where parameters and moments are large, with `meshes/fsdp.gin`.
- **GFLOP** are the FLOPs of all matrix products in a chip's part, counted by us: XLA counts
  the body of a loop once.
- **GB accessed** are XLA's, which may include data that stay in a chip's fast memory.
- **Bound**: the longer of FLOPs over the chip's peak and bytes over its bandwidth, in ms: a
  lower bound. For a decoding *block* only memory and collectives are given; its work is that
  of its steps.
- In a run of several hosts each host samples and scores by itself. XLA compiles no program
  with a collective for some chips of a v5e or v6e slice, and no program at all for some of
  32 or more chips of v5e. There each chip has its own programs, and the plan is for one
  chip. A reward model too large for one such chip needs independent workers (`GROW_WORKER`)
  whose host is a slice: not tried.
- For several slices, neither the bound nor the hours include the data-centre network.
- **Hours** are an estimate: calls of each program times its bound, of which 40 % is assumed
  to be reached; every step is taken, and every block decodes to the maximum length. Of
  evaluations only the sampling that chooses checkpoints counts; host work and compilation
  do not. Not measured on TPU.
- v4 has two cores per chip. By default the compiler plans each core as a device (`v4:2x2x1`
  then has 8); here both work as one, as on a TPU VM ("megacore"), and figures are per chip.
- Chip figures are from Google Cloud's documents "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e"
  (https://docs.cloud.google.com/tpu/docs/v5e and so on).

The rest of this page is written by `python -m benchmarks.tpu_plan --cache=FOLDER`, at effort
{effort:g}, with the batches of the gin files, their longest shapes and bfloat16 activations.
`--cache` stores the figures of each program, so that an interrupted command resumes.
Programs that were not compiled are listed as not measured."""

_STEP_NOTE = """\
One v5e-8, data-parallel; a batch is the number of tokens per side on all chips together,
padding included. The last two columns follow from the bound, which no program quite
reaches."""

_SCORER_NOTE = """\
d_model 4,096, d_ff 10,240, 64 heads of 64, 24+24 layers, vocabulary 250,112; inputs of 1,024
tokens; parameters split over as few devices of `model` as fit. Compiled for one process
that has all chips."""


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  chips.without_tpu()
  registry.register()
  left = _compile_all()
  pathlib.Path(_DOCUMENT.value).write_text(
    '\n'.join(_document()) + '\n', encoding='utf-8'
  )
  if left:
    print(f'{left} programs are left; run the same again', file=sys.stderr)


if __name__ == '__main__':
  app.run(main)
