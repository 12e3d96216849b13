"""The flags of `rest-jax run`, and which of them go together."""

import pathlib
from typing import Literal

from absl import app, flags

from rest_jax.cli import run_modes

_MODES = run_modes.all_modes()

# They change nothing that a run reads: ratings have a store of their own.
READING_MODES = ('sample', 'export', 'rate', 'plan')

# They read finished stages alone, and nothing has to be checked for others.
FINISHED_MODES = (*READING_MODES, 'report')

RUN_MODE = flags.DEFINE_enum(
  'run_mode',
  'rest',
  [mode.name for mode in _MODES],
  run_modes.describe(_MODES),
)
MODEL_DIR = flags.DEFINE_string(
  'model_dir',
  None,
  'The folder of the run, local or an address gs://bucket/folder; finished '
  'stages in it are used.',
)
CACHE_DIR = flags.DEFINE_string(
  'cache_dir',
  None,
  'A local folder for copies of what is read at random from a bucket; else '
  '~/.cache/rest_jax/objects. Runs may share it.',
)
CACHE_GB = flags.DEFINE_float(
  'cache_gb',
  50.0,
  'Gigabytes of copies to keep in --cache_dir.',
  lower_bound=0.0,
)
GIN_FILE = flags.DEFINE_multi_string(
  'gin_file', None, 'A gin file; several compose left to right.'
)
DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Build and check everything, print the plan, stop.'
)
OVERWRITE = flags.DEFINE_bool(
  'overwrite', False, 'Make stages again whose settings changed.'
)
VERIFY = flags.DEFINE_enum(
  'verify',
  'fast',
  ('fast', 'full'),
  'How finished stages are checked before they are used: that no file is '
  'missing or cut off, or the checksum of every file.',
)
GROW_STEP = flags.DEFINE_integer(
  'grow_step',
  1,
  'g of a --run_mode of one Grow step, from 1.',
  lower_bound=1,
)
IMPROVE_STEP = flags.DEFINE_integer(
  'improve_step',
  1,
  'i of a --run_mode of one Improve step, from 1.',
  lower_bound=1,
)
COMPARE = flags.DEFINE_list(
  'compare',
  None,
  'For --run_mode=report: folders of finished runs to show side by side, in '
  'report/compare.html of --model_dir; no --gin_file is read.',
)
POLICY = flags.DEFINE_string(
  'policy',
  '',
  'Of --run_mode=sample: bc, improve_1_3, ...; empty for the last finished.',
)
INPUT = flags.DEFINE_string(
  'input', None, 'Sources of --run_mode=sample, one a line; else stdin.'
)
OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'The file that --run_mode=sample writes, else stdout; the folder of export.',
)
WANDB_PROJECT = flags.DEFINE_string(
  'wandb_project',
  None,
  'A project of Weights & Biases that is given what TensorBoard is given; '
  'needs pip install wandb.',
)
DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'One of several processes that run together, as on the hosts of a TPU slice, '
  'where they find each other; elsewhere the three flags below say how.',
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
  'coordinator_address', None, 'host:port of process 0, for --distributed.'
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'How many they are, for --distributed.', lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Which one this is, from 0.', lower_bound=0
)
MEETING_TIMEOUT = flags.DEFINE_float(
  'meeting_timeout_s',
  300.0,
  'How long each of several processes waits for the others to start, in '
  'seconds; every 30 s it logs who is missing.',
  lower_bound=1.0,
)
TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  'Of --run_mode=plan: the TPU slice to compile for, such as v5e:4x4 (v4, v5e, '
  'v5p, v6e), or several, such as 2xv5e:4x4. Needs the extra [tpu], and no TPU.',
)
PLAN_SEARCH = flags.DEFINE_bool(
  'plan_search', True, 'Of plan: look for the largest batches that fit.'
)
PLAN_SOURCES = flags.DEFINE_integer(
  'plan_sources',
  None,
  'Of plan: sources of a Grow, where the text is not here to be counted.',
  lower_bound=1,
)
PLAN_ONLY = flags.DEFINE_list(
  'plan_only', [], 'Of plan: names of programs begin so: bc, improve, sampling.'
)
PLAN_EFFORT = flags.DEFINE_float(
  'plan_effort',
  -1.0,
  "Of plan: the compiler's effort; 0 is what a run compiles with, and takes "
  'several times as long.',
  lower_bound=-1.0,
  upper_bound=1.0,
)
PLAN_OUTPUT = flags.DEFINE_string(
  'plan_output', None, 'Of plan: a JSON file to write the figures to.'
)
PROFILE = flags.DEFINE_string(
  'profile',
  None,
  'Trace these steps of each stage that is made, such as 10:15, into '
  '<model_dir>/profiles/<stage>, for XProf or TensorBoard: steps of a training, '
  'or launches of a block on each device where samples are drawn.',
)
PROFILE_ALL = flags.DEFINE_bool(
  'profile_all', False, 'Of --profile: trace all processes, not the main one.'
)
TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where in the code an error was raised.'
)


def check(argv: list[str]) -> None:
  """Raises `app.UsageError` for what does not go together."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  if COMPARE.value and RUN_MODE.value != 'report':
    raise app.UsageError('--compare is for --run_mode=report')
  if not GIN_FILE.value and not COMPARE.value:
    raise app.UsageError('--gin_file must name an experiment; see gin_configs/')
  [mode] = [mode for mode in _MODES if mode.name == RUN_MODE.value]
  if is_distributed() and not mode.is_shared:
    raise app.UsageError(
      f'--run_mode={RUN_MODE.value} is for one process, without --distributed'
    )
  if PROFILE.value and not mode.is_profiled:
    profiled = ', '.join(each.name for each in _MODES if each.is_profiled)
    raise app.UsageError(f'--profile is for --run_mode={profiled}')
  if PROFILE_ALL.value and not PROFILE.value:
    raise app.UsageError('--profile_all needs --profile, such as 10:15')
  is_planned = RUN_MODE.value == 'plan'
  if is_planned and not TOPOLOGY.value:
    raise app.UsageError('--topology must name a TPU slice, such as v5e:4x4')
  if not (MODEL_DIR.value or DRY_RUN.value or is_planned):
    raise app.UsageError('--model_dir must name the folder of the run')


def is_distributed() -> bool:
  given = (COORDINATOR_ADDRESS, NUM_PROCESSES, PROCESS_ID)
  return DISTRIBUTED.value or any(flag.value is not None for flag in given)


def is_writing() -> bool:
  """Whether a mode changes the run."""
  return RUN_MODE.value not in READING_MODES


def model_dir() -> pathlib.Path:
  """The folder of the run."""
  from rest_jax.storage import paths

  return paths.of(MODEL_DIR.value or 'dry_run')


def how_to_verify() -> Literal['fast', 'full']:
  return 'full' if VERIFY.value == 'full' else 'fast'
