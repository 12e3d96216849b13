"""The flags of `rest-jax run`, and checks of their combinations."""

import pathlib
from typing import Literal

from absl import app, flags

from rest_jax.cli import run_modes

_MODES = run_modes.all_modes()

# Modes that change no file that a run reads; ratings have their own store.
READING_MODES = ('sample', 'export', 'rate', 'plan')

# Modes that only read finished stages, so that settings need no check.
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
  'Folder of the run, local or gs:// or s3://bucket/folder; finished stages in it '
  'are reused.',
)
CACHE_DIR = flags.DEFINE_string(
  'cache_dir',
  None,
  'Local folder for copies of files in a bucket that are read at random. '
  'Default: ~/.cache/rest_jax/objects. Runs may share it.',
)
CACHE_GB = flags.DEFINE_float(
  'cache_gb',
  50.0,
  'Maximum size of --cache_dir, in GB.',
  lower_bound=0.0,
)
GIN_FILE = flags.DEFINE_multi_string(
  'gin_file', None, 'Gin file; several are composed left to right.'
)
DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Build and check everything, print the plan and stop.'
)
OVERWRITE = flags.DEFINE_bool(
  'overwrite', False, 'Rerun finished stages whose settings have changed.'
)
VERIFY = flags.DEFINE_enum(
  'verify',
  'fast',
  ('fast', 'full'),
  'Check of finished stages before they are used: presence and size of every '
  'file (fast), or its checksum (full).',
)
GROW_STEP = flags.DEFINE_integer(
  'grow_step',
  1,
  'Grow step g, from 1, for a --run_mode of one Grow step.',
  lower_bound=1,
)
IMPROVE_STEP = flags.DEFINE_integer(
  'improve_step',
  1,
  'Improve step i, from 1, for a --run_mode of one Improve step.',
  lower_bound=1,
)
COMPARE = flags.DEFINE_list(
  'compare',
  None,
  'For --run_mode=report: folders of finished runs to compare, in '
  'report/compare.html of --model_dir; no --gin_file is read.',
)
POLICY = flags.DEFINE_string(
  'policy',
  '',
  'For --run_mode=sample: policy, such as bc, improve_1_3 or bc_trained_on. '
  'Default: the last finished one.',
)
INPUT = flags.DEFINE_string(
  'input',
  None,
  'For --run_mode=sample: file with one source per line. Default: stdin.',
)
OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'For --run_mode=sample: file to write, else stdout. For export: folder.',
)
LANGUAGES = flags.DEFINE_list(
  'languages',
  None,
  'For --run_mode=sample of a run with several language pairs: codes of the '
  'source and of the output, such as deu_Latn,eng_Latn.',
)
WANDB_PROJECT = flags.DEFINE_string(
  'wandb_project',
  None,
  'Weights & Biases project that receives the same metrics as TensorBoard; '
  'needs pip install wandb.',
)
DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Run as one of several processes, such as on the hosts of a TPU slice. '
  'Elsewhere the next three flags are needed too.',
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
  'coordinator_address', None, 'For --distributed: host:port of process 0.'
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes',
  None,
  'For --distributed: number of processes.',
  lower_bound=1,
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'For --distributed: its number, from 0.', lower_bound=0
)
MEETING_TIMEOUT = flags.DEFINE_float(
  'meeting_timeout_s',
  300.0,
  'Time limit for all processes to start, in seconds; missing ones are logged '
  'every 30 s.',
  lower_bound=1.0,
)
TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  'For --run_mode=plan: TPU slice to compile for, such as v5e:4x4 (v4, v5e, '
  'v5p, v6e), or several, such as 2xv5e:4x4. Needs the extra [tpu], but no TPU.',
)
PLAN_SEARCH = flags.DEFINE_bool(
  'plan_search', True, 'For plan: search the largest batches that fit.'
)
PLAN_SOURCES = flags.DEFINE_integer(
  'plan_sources',
  None,
  'For plan: number of sources of a Grow step, if the data are not available.',
  lower_bound=1,
)
PLAN_ONLY = flags.DEFINE_list(
  'plan_only', [], 'For plan: prefixes of programs, such as bc,improve.'
)
PLAN_EFFORT = flags.DEFINE_float(
  'plan_effort',
  -1.0,
  'For plan: effort of the compiler. Runs compile with 0, which takes several '
  'times as long as -1.',
  lower_bound=-1.0,
  upper_bound=1.0,
)
PLAN_OUTPUT = flags.DEFINE_string(
  'plan_output', None, 'For plan: JSON file for the results.'
)
PROFILE = flags.DEFINE_string(
  'profile',
  None,
  'Steps of each stage to trace, such as 10:15, into '
  '<model_dir>/profiles/<stage>, for XProf or TensorBoard: training steps or, '
  'for sampling, launches of a block on each device.',
)
PROFILE_ALL = flags.DEFINE_bool(
  'profile_all', False, 'For --profile: trace all processes, not only one.'
)
TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show the traceback of an error.'
)


def check(argv: list[str]) -> None:
  """Raises `app.UsageError` for flags that cannot be combined."""
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
  if LANGUAGES.value is not None and len(LANGUAGES.value) != 2:
    raise app.UsageError('--languages must be two codes: deu_Latn,eng_Latn')
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
  """Returns whether the mode changes the run."""
  return RUN_MODE.value not in READING_MODES


def model_dir() -> pathlib.Path:
  """Returns the folder of the run."""
  from rest_jax.storage import paths

  return paths.of(MODEL_DIR.value or 'dry_run')


def how_to_verify() -> Literal['fast', 'full']:
  return 'full' if VERIFY.value == 'full' else 'fast'
