"""The command line: `python -m rest_jax.main --run_mode=... --model_dir=...`.

Kept short: flags, configuration, and which stages a run mode goes through.
"""

import contextlib
import logging as std_logging
import os
import pathlib
import signal
import sys
import traceback
from typing import Literal, NoReturn

from absl import app, flags, logging

RUN_MODES = (
  'rest',
  'prepare',
  'bc',
  'reward',
  'test_reward',
  'grow',
  'value',
  'improve',
  'refresh',
  'online',
  'evaluate',
  'sample',
  'export',
  'compare',
  'rate',
  'report',
  'plan',
)

# What several processes can do together.
_SHARED_MODES = (
  'rest',
  'prepare',
  'bc',
  'reward',
  'grow',
  'value',
  'improve',
  'evaluate',
)

# They change nothing that a run reads: ratings have a store of their own.
_READING_MODES = ('sample', 'export', 'rate', 'plan')

_RUN_MODE = flags.DEFINE_enum(
  'run_mode',
  'rest',
  RUN_MODES,
  'All of Algorithm 1, one stage of it, a comparison of several variants, or '
  'the page on which people rate outputs.',
)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir',
  None,
  'The folder of the run; finished stages in it are used. Or an address, such as '
  'gs://bucket/run, which then mirrors --work_dir.',
)
_WORK_DIR = flags.DEFINE_string(
  'work_dir',
  None,
  'The folder of this machine in which a run works whose --model_dir is an '
  'address; else runs/<last part of the address>.',
)
_GIN_FILE = flags.DEFINE_multi_string(
  'gin_file', None, 'A gin file; several compose left to right.'
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Build and check everything, print the plan, stop.'
)
_OVERWRITE = flags.DEFINE_bool(
  'overwrite', False, 'Make stages again whose settings changed.'
)
_VERIFY = flags.DEFINE_enum(
  'verify',
  'fast',
  ('fast', 'full'),
  'How finished stages are checked before they are used: that no file is '
  'missing or cut off, or the checksum of every file.',
)
_GROW_STEP = flags.DEFINE_integer(
  'grow_step',
  1,
  'g of --run_mode=grow, value, improve, refresh, export; from 1.',
  lower_bound=1,
)
_IMPROVE_STEP = flags.DEFINE_integer(
  'improve_step', 1, 'i of --run_mode=improve, from 1.', lower_bound=1
)
_COMPARE = flags.DEFINE_list(
  'compare',
  None,
  'For --run_mode=report: folders of finished runs to show side by side, in '
  'report/compare.html of --model_dir; no --gin_file is read.',
)
_POLICY = flags.DEFINE_string(
  'policy',
  '',
  'Of --run_mode=sample: bc, improve_1_3, ...; empty for the last finished.',
)
_INPUT = flags.DEFINE_string(
  'input', None, 'Sources of --run_mode=sample, one a line; else stdin.'
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'The file that --run_mode=sample writes, else stdout; the folder of export.',
)
_WANDB_PROJECT = flags.DEFINE_string(
  'wandb_project',
  None,
  'A project of Weights & Biases that is given what TensorBoard is given; '
  'needs pip install wandb.',
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'One of several processes that run together, as on the hosts of a TPU slice, '
  'where they find each other; elsewhere the three flags below say how.',
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
  'coordinator_address', None, 'host:port of process 0, for --distributed.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'How many they are, for --distributed.', lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Which one this is, from 0.', lower_bound=0
)
_TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  'Of --run_mode=plan: the TPU slice to compile for, such as v5e:4x4 (v4, v5e, '
  'v5p, v6e), or several, such as 2xv5e:4x4. Needs the extra [tpu], and no TPU.',
)
_PLAN_SEARCH = flags.DEFINE_bool(
  'plan_search', True, 'Of plan: look for the largest batches that fit.'
)
_PLAN_SOURCES = flags.DEFINE_integer(
  'plan_sources',
  None,
  'Of plan: sources of a Grow, where the text is not here to be counted.',
  lower_bound=1,
)
_PLAN_ONLY = flags.DEFINE_list(
  'plan_only', [], 'Of plan: names of programs begin so: bc, improve, sampling.'
)
_PLAN_EFFORT = flags.DEFINE_float(
  'plan_effort',
  -1.0,
  "Of plan: the compiler's effort; 0 is what a run compiles with, and takes "
  'several times as long.',
  lower_bound=-1.0,
  upper_bound=1.0,
)
_PLAN_OUTPUT = flags.DEFINE_string(
  'plan_output', None, 'Of plan: a JSON file to write the figures to.'
)
_PROFILE = flags.DEFINE_string(
  'profile',
  None,
  'Trace these steps of each stage that is made, such as 10:15, into '
  '<model_dir>/profiles/<stage>, for XProf or TensorBoard: steps of a training, '
  'or launches of a block on each device where samples are drawn.',
)
_PROFILE_ALL = flags.DEFINE_bool(
  'profile_all', False, 'Of --profile: trace all processes, not the main one.'
)
_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where in the code an error was raised.'
)

# What --profile can trace.
_PROFILED_MODES = (
  'rest',
  'bc',
  'reward',
  'grow',
  'value',
  'improve',
  'refresh',
  'evaluate',
  'compare',
)

# The exit status is this and the number of the signal that stopped the program.
_SIGNALLED = 128

# Errors that mean a wrong input, setting, file or environment.
_EXPECTED = (
  ValueError,
  FileNotFoundError,
  PermissionError,
  FloatingPointError,
  ImportError,
)


def main(argv: list[str], overrides: list[str]) -> int:
  """Runs what the flags say; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  if _COMPARE.value and _RUN_MODE.value != 'report':
    raise app.UsageError('--compare is for --run_mode=report')
  if not _GIN_FILE.value and not _COMPARE.value:
    raise app.UsageError('--gin_file must name an experiment; see gin_configs/')
  if _is_distributed() and _RUN_MODE.value not in _SHARED_MODES:
    raise app.UsageError(
      f'--run_mode={_RUN_MODE.value} is for one process, without --distributed'
    )
  if _PROFILE.value and _RUN_MODE.value not in _PROFILED_MODES:
    raise app.UsageError(
      f'--profile is for --run_mode={", ".join(_PROFILED_MODES)}'
    )
  if _PROFILE_ALL.value and not _PROFILE.value:
    raise app.UsageError('--profile_all needs --profile, such as 10:15')
  is_planned = _RUN_MODE.value == 'plan'
  if is_planned and not _TOPOLOGY.value:
    raise app.UsageError('--topology must name a TPU slice, such as v5e:4x4')
  if not (_MODEL_DIR.value or _DRY_RUN.value or is_planned):
    raise app.UsageError('--model_dir must name the folder of the run')
  if _WORK_DIR.value and not _is_remote():
    raise app.UsageError(
      '--work_dir is for a --model_dir such as gs://bucket/run'
    )
  if _is_remote() and _is_distributed():
    raise app.UsageError(
      'several processes need a --model_dir that all of them see as a folder, '
      f'such as one of Filestore (NFS); got {_MODEL_DIR.value}'
    )
  _quiet()
  if not _is_distributed():
    return _main(overrides)
  return _main_of_several(overrides)


def _main_of_several(overrides: list[str]) -> int:
  """As `_main`, together with other processes."""
  from rest_jax import terminal
  from rest_jax.parallel import processes

  try:
    processes.initialize(
      _COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  except (ValueError, RuntimeError) as error:
    terminal.show_error(str(error))
    return 1
  if not processes.is_main() and not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  try:
    status = _main(overrides)
  except Exception:  # With --traceback.
    traceback.print_exc()
    status = 1
  if status:
    was_signalled = status > _SIGNALLED
    processes.end(status, status - _SIGNALLED if was_signalled else None)
  return status


def _is_distributed() -> bool:
  given = (_COORDINATOR_ADDRESS, _NUM_PROCESSES, _PROCESS_ID)
  return _DISTRIBUTED.value or any(flag.value is not None for flag in given)


def _main(overrides: list[str]) -> int:
  # Here, so that --help answers at once.
  from rest_jax import configurables, gin_utils, interruption
  from rest_jax.data import lock
  from rest_jax.parallel import processes

  try:
    with contextlib.ExitStack() as stack:
      stack.enter_context(interruption.handled())
      if _COMPARE.value:
        if _is_remote():
          if not _DRY_RUN.value:
            stack.enter_context(lock.held(_model_dir()))
          _open_mirror(stack, None)
        return _side_by_side(_COMPARE.value)
      configurables.register()
      experiment = None
      if _RUN_MODE.value != 'compare':
        experiment = gin_utils.parse_and_build(
          _GIN_FILE.value or (), overrides, root=configurables.ROOT
        )
      if _MODEL_DIR.value and _is_writing() and not _DRY_RUN.value:
        worker = None if experiment is None else experiment.grow.worker
        held = lock.held(_model_dir(), worker)
        processes.by_main('lock', lambda: stack.enter_context(held))
      if _is_remote():
        _open_mirror(stack, experiment)
      # After the mirror: traces are written before it sends the last time.
      _profile(stack)
      if experiment is None:
        return _compare(overrides)
      return _run(experiment)
  except interruption.Interrupted as interrupted:
    print(
      f'stopped by {interrupted}; run the same command to resume',
      file=sys.stderr,
    )
    return _SIGNALLED + interrupted.number
  except BrokenPipeError:
    return _reader_left()
  except Exception as error:
    if _TRACEBACK.value:
      raise
    from rest_jax import terminal

    terminal.show_error(_explain(error))
    return 1


def _profile(stack: contextlib.ExitStack) -> None:
  """Asks for traces until the stack is left."""
  from rest_jax import profiling
  from rest_jax.parallel import processes

  if _PROFILE.value is None:
    return
  steps = profiling.Steps.parse(_PROFILE.value)
  part = ''
  if _PROFILE_ALL.value and processes.count() > 1:
    part = f'process_{processes.index()}'
  if part or processes.is_main():
    stack.enter_context(profiling.asked(steps, _model_dir(), part))


def _is_remote() -> bool:
  from rest_jax.data import files

  return files.is_address(_MODEL_DIR.value or '')


def _is_writing() -> bool:
  """Whether a mode changes the run; of a mirror, ratings are a part too."""
  mode = _RUN_MODE.value
  return mode not in _READING_MODES or (_is_remote() and mode == 'rate')


def _open_mirror(stack: contextlib.ExitStack, experiment) -> None:
  """Fetches the run from its address; it is sent there until `stack` ends."""
  from rest_jax import terminal
  from rest_jax.data import remote

  if experiment is not None and experiment.grow.worker is not None:
    raise ValueError(
      'GROW_WORKER needs a --model_dir that all workers see as a folder, such as '
      f'one of Filestore (NFS); got {_MODEL_DIR.value}.'
    )
  opened = remote.open_mirror(
    _MODEL_DIR.value or '', _model_dir(), adopts=_WORK_DIR.value is not None
  )
  if _DRY_RUN.value:
    terminal.show(opened.describe())
  elif _is_writing():
    stack.enter_context(remote.kept(opened))
  else:
    remote.fetch(opened, _model_dir())


def _reader_left() -> int:
  """Ends as a program does whose reader, such as `head`, wants no more."""
  # What is still buffered is written at exit, and must not fail again.
  with open(os.devnull, 'w', encoding='utf-8') as nowhere:
    os.dup2(nowhere.fileno(), sys.stdout.fileno())
  return _SIGNALLED + signal.SIGPIPE


def _explain(error: Exception) -> str:
  """Words for an error; where it arose is kept if nobody expected it."""
  from rest_jax.data import files

  if isinstance(error, (*_EXPECTED, files.DiskError)):
    return str(error)
  if isinstance(error, OSError) and files.is_of_disk(error):
    path = error.filename or _model_dir()
    return str(files.disk_error(path, error.errno or 0))
  where = '--traceback shows where it arose'
  if _MODEL_DIR.value and _model_dir().is_dir():
    path = _model_dir() / 'traceback.txt'
    try:
      path.write_text(''.join(traceback.format_exception(error)), 'utf-8')
      where = f'{path} says where it arose'
    except OSError:
      pass  # Of a full disk, say; the error itself is worth more.
  return f'{type(error).__name__}: {error} (not expected; {where})'


def _run(experiment) -> int:
  from rest_jax import dry_run, modes, terminal
  from rest_jax import run as run_lib
  from rest_jax.planning import chips

  mode, model_dir = _RUN_MODE.value, _model_dir()
  if mode == 'plan':
    # Before JAX looks for devices.
    chips.without_tpu()
  run = run_lib.Run(experiment, model_dir, overwrite=_OVERWRITE.value)
  if _DRY_RUN.value:
    terminal.show(dry_run.describe(run, mode))
    if mode == 'sample':
      terminal.show(f'    of {run.policy_named(_POLICY.value).directory}')
    return 0
  if mode == 'plan':
    settings = {
      'topology': _TOPOLOGY.value,
      'searches': _PLAN_SEARCH.value,
      'num_sources': _PLAN_SOURCES.value,
      'only': tuple(_PLAN_ONLY.value),
      'effort': _PLAN_EFFORT.value,
    }
    modes.plan(run, settings, _PLAN_OUTPUT.value)
    return 0
  modes.verify(
    run,
    mode,
    _how_to_verify(),
    policy=_POLICY.value,
    grow_step=_GROW_STEP.value,
    repairs=mode not in _READING_MODES,
  )
  if mode == 'sample':
    modes.sample(run, _POLICY.value, _INPUT.value, _OUTPUT.value)
    return 0
  if mode == 'export':
    modes.export(run, _GROW_STEP.value, _OUTPUT.value)
    return 0
  with modes.begun(model_dir, _WANDB_PROJECT.value):
    is_good = modes.stage(run, mode, _GROW_STEP.value, _IMPROVE_STEP.value)
  return 0 if is_good else 1


def _compare(overrides: list[str]) -> int:
  from rest_jax import modes

  modes.compare(
    _GIN_FILE.value or (),
    overrides,
    _model_dir(),
    overwrite=_OVERWRITE.value,
    verify=_how_to_verify(),
    is_dry=_DRY_RUN.value,
    wandb_project=_WANDB_PROJECT.value,
  )
  return 0


def _side_by_side(runs: list[str]) -> int:
  from rest_jax.data import files
  from rest_jax.stages import compare_runs

  for folder in runs:
    files.check_local('--compare', folder)
  compare_runs.run(runs, _model_dir(), is_dry=_DRY_RUN.value)
  return 0


def _model_dir() -> pathlib.Path:
  """The folder of the run on this machine."""
  if not _is_remote():
    return pathlib.Path(_MODEL_DIR.value or 'dry_run')
  from rest_jax.data import remote

  return pathlib.Path(
    _WORK_DIR.value or remote.default_folder(_MODEL_DIR.value or '')
  )


def _how_to_verify() -> Literal['fast', 'full']:
  return 'full' if _VERIFY.value == 'full' else 'fast'


def _quiet() -> None:
  """Sets the log up, and keeps other libraries' notes out of it."""
  from rest_jax import terminal

  handler = terminal.set_up_log(
    flags.FLAGS.verbosity if flags.FLAGS['verbosity'].present else logging.INFO
  )
  handler.addFilter(_is_worth_a_line)


def _is_worth_a_line(record: std_logging.LogRecord) -> bool:
  if not is_ours(record) and not _TRACEBACK.value:
    # What it means for the run is said once, at the end.
    record.exc_info = None
  return is_ours(record) or record.levelno > std_logging.WARNING


def is_ours(record: std_logging.LogRecord) -> bool:
  """Whether a line of the log comes from this package.

  A checkout may be called rest_jax too, with other libraries inside of it.
  """
  package = pathlib.Path(__file__).resolve().parent
  return pathlib.Path(record.pathname).resolve().is_relative_to(package)


def _end(status: int) -> NoReturn:
  """Ends the program."""
  if status > _SIGNALLED:
    # Threads of JAX that were stopped in the middle of something crash where
    # Python takes itself apart; nothing is left to be written.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)


def entry_point() -> None:
  """Splits gin's flags off and hands the rest to absl."""
  from rest_jax import gin_utils

  try:
    argv, overrides = gin_utils.split_flags(sys.argv)
  except ValueError as error:
    sys.exit(f'error: {error}')
  app.run(lambda rest: _end(main(rest, overrides)), argv=argv)


if __name__ == '__main__':
  entry_point()
