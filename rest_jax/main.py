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
  'online',
  'evaluate',
  'sample',
  'export',
  'compare',
  'rate',
  'report',
)

# They change nothing that a run reads: ratings have a store of their own.
_READING_MODES = ('sample', 'export', 'rate')

_RUN_MODE = flags.DEFINE_enum(
  'run_mode',
  'rest',
  RUN_MODES,
  'All of Algorithm 1, one stage of it, a comparison of several variants, or '
  'the page on which people rate outputs.',
)
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'The folder of the run; finished stages in it are used.'
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
_GROW_STEP = flags.DEFINE_integer(
  'grow_step',
  1,
  'g of --run_mode=grow, value, improve, export; from 1.',
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
_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where in the code an error was raised.'
)

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
  if not _MODEL_DIR.value and not _DRY_RUN.value:
    raise app.UsageError('--model_dir must name the folder of the run')
  _quiet()
  # Here, so that --help answers at once.
  from rest_jax import configurables, gin_utils, interruption
  from rest_jax.data import lock

  try:
    with contextlib.ExitStack() as stack:
      stack.enter_context(interruption.handled())
      if _COMPARE.value:
        return _side_by_side(_COMPARE.value)
      is_writing = _RUN_MODE.value not in _READING_MODES
      if _MODEL_DIR.value and is_writing and not _DRY_RUN.value:
        stack.enter_context(lock.held(_MODEL_DIR.value))
      configurables.register()
      if _RUN_MODE.value == 'compare':
        return _compare(overrides)
      experiment = gin_utils.parse_and_build(
        _GIN_FILE.value or (), overrides, root=configurables.ROOT
      )
      return _run(experiment)
  except interruption.Interrupted as interrupted:
    print(
      f'stopped by {interrupted}; run the same command to resume',
      file=sys.stderr,
    )
    return 128 + interrupted.number
  except BrokenPipeError:
    return _reader_left()
  except Exception as error:
    if _TRACEBACK.value:
      raise
    from rest_jax import terminal

    terminal.show_error(_explain(error))
    return 1


def _reader_left() -> int:
  """Ends as a program does whose reader, such as `head`, wants no more."""
  # What is still buffered is written at exit, and must not fail again.
  with open(os.devnull, 'w', encoding='utf-8') as nowhere:
    os.dup2(nowhere.fileno(), sys.stdout.fileno())
  return 128 + signal.SIGPIPE


def _explain(error: Exception) -> str:
  """Words for an error; where it arose is kept if nobody expected it."""
  if isinstance(error, _EXPECTED):
    return str(error)
  where = '--traceback shows where it arose'
  if _MODEL_DIR.value and pathlib.Path(_MODEL_DIR.value).is_dir():
    path = pathlib.Path(_MODEL_DIR.value) / 'traceback.txt'
    try:
      path.write_text(''.join(traceback.format_exception(error)), 'utf-8')
      where = f'{path} says where it arose'
    except OSError:
      pass  # Of a full disk, say; the error itself is worth more.
  return f'{type(error).__name__}: {error} (not expected; {where})'


def _run(experiment) -> int:
  from rest_jax import dry_run, modes, terminal
  from rest_jax import run as run_lib

  mode, model_dir = _RUN_MODE.value, _model_dir()
  run = run_lib.Run(experiment, model_dir, overwrite=_OVERWRITE.value)
  if _DRY_RUN.value:
    terminal.show(dry_run.describe(run, mode))
    if mode == 'sample':
      terminal.show(f'    of {run.policy_named(_POLICY.value).directory}')
    return 0
  if mode == 'sample':
    modes.sample(run, _POLICY.value, _INPUT.value, _OUTPUT.value)
    return 0
  if mode == 'export':
    modes.export(run, _GROW_STEP.value, _OUTPUT.value)
    return 0
  modes.begin(model_dir)
  is_good = modes.stage(run, mode, _GROW_STEP.value, _IMPROVE_STEP.value)
  return 0 if is_good else 1


def _compare(overrides: list[str]) -> int:
  from rest_jax import modes

  modes.compare(
    _GIN_FILE.value or (),
    overrides,
    _model_dir(),
    overwrite=_OVERWRITE.value,
    is_dry=_DRY_RUN.value,
  )
  return 0


def _side_by_side(runs: list[str]) -> int:
  from rest_jax.stages import compare_runs

  compare_runs.run(runs, _model_dir(), is_dry=_DRY_RUN.value)
  return 0


def _model_dir() -> pathlib.Path:
  return pathlib.Path(_MODEL_DIR.value or 'dry_run')


def _quiet() -> None:
  """Sets the log up, and keeps other libraries' notes out of it."""
  from rest_jax import terminal

  handler = terminal.set_up_log(
    flags.FLAGS.verbosity if flags.FLAGS['verbosity'].present else logging.INFO
  )
  handler.addFilter(_is_worth_a_line)


def _is_worth_a_line(record: std_logging.LogRecord) -> bool:
  return is_ours(record) or record.levelno > std_logging.WARNING


def is_ours(record: std_logging.LogRecord) -> bool:
  """Whether a line of the log comes from this package.

  A checkout may be called rest_jax too, with other libraries inside of it.
  """
  package = pathlib.Path(__file__).resolve().parent
  return pathlib.Path(record.pathname).resolve().is_relative_to(package)


def entry_point() -> None:
  """Splits gin's flags off and hands the rest to absl."""
  from rest_jax import gin_utils

  try:
    argv, overrides = gin_utils.split_flags(sys.argv)
  except ValueError as error:
    sys.exit(f'error: {error}')
  app.run(lambda rest: sys.exit(main(rest, overrides)), argv=argv)


if __name__ == '__main__':
  entry_point()
