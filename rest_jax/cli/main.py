"""`rest-jax run`, which is `python -m rest_jax.main` as well.

Kept short: which stages a run mode goes through. Flags are in `options.py`.
"""

import contextlib
import logging as std_logging
import os
import pathlib
import signal
import sys
import traceback
from typing import NoReturn
import warnings

from absl import flags, logging

from rest_jax.cli import options

# The exit status is this and the number of the signal that stopped the program.
_SIGNALLED = 128

# They log, in threads, pages of what they raise too.
_SAID_AGAIN = ('/orbax/', '/asyncio/', '/gcsfs/')
# Characters of other libraries' lines.
_SHOWN = 300

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
  options.check(argv)
  _quiet()
  if not options.is_distributed():
    return _main(overrides)
  return _main_of_several(overrides)


def _main_of_several(overrides: list[str]) -> int:
  """As `_main`, together with other processes."""
  from rest_jax.parallel import processes, rendezvous
  from rest_jax.runtime import terminal

  try:
    processes.initialize(
      options.COORDINATOR_ADDRESS.value,
      options.NUM_PROCESSES.value,
      options.PROCESS_ID.value,
      options.MEETING_TIMEOUT.value,
    )
  except (ValueError, RuntimeError) as error:
    terminal.show_error(str(error))
    if isinstance(error, rendezvous.MeetingError):
      _leave(1)  # A thread may still be waiting in JAX.
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


def _main(overrides: list[str]) -> int:
  # Here, so that --help answers at once.
  from rest_jax.config import gin_files, registry
  from rest_jax.parallel import processes
  from rest_jax.runtime import interruption
  from rest_jax.storage import cache, lock

  try:
    with contextlib.ExitStack() as stack:
      stack.enter_context(interruption.handled())
      cache.configure(options.CACHE_DIR.value, options.CACHE_GB.value)
      if options.COMPARE.value:
        return _side_by_side(options.COMPARE.value)
      registry.register()
      experiment = None
      if options.RUN_MODE.value != 'compare':
        experiment = gin_files.parse_and_build(
          options.GIN_FILE.value or (), overrides, root=registry.ROOT
        )
      if (
        options.MODEL_DIR.value
        and options.is_writing()
        and not options.DRY_RUN.value
      ):
        worker = None if experiment is None else experiment.grow.worker
        held = lock.held(options.model_dir(), worker)
        processes.by_main('lock', lambda: stack.enter_context(held))
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
    if options.TRACEBACK.value:
      raise
    from rest_jax.runtime import terminal

    terminal.show_error(_explain(error))
    return 1


def _profile(stack: contextlib.ExitStack) -> None:
  """Asks for traces until the stack is left."""
  from rest_jax.parallel import processes
  from rest_jax.runtime import profiling

  if options.PROFILE.value is None:
    return
  steps = profiling.Steps.parse(options.PROFILE.value)
  part = ''
  if options.PROFILE_ALL.value and processes.count() > 1:
    part = f'process_{processes.index()}'
  if part or processes.is_main():
    stack.enter_context(profiling.asked(steps, options.model_dir(), part))


def _reader_left() -> int:
  """Ends as a program does whose reader, such as `head`, wants no more."""
  # What is still buffered is written at exit, and must not fail again.
  with open(os.devnull, 'w', encoding='utf-8') as nowhere:
    os.dup2(nowhere.fileno(), sys.stdout.fileno())
  return _SIGNALLED + signal.SIGPIPE


def _explain(error: Exception) -> str:
  """Words for an error; where it arose is kept if nobody expected it."""
  from rest_jax.storage import files, paths

  in_bucket = paths.is_address(options.MODEL_DIR.value or '')
  if in_bucket and (explained := paths.explain(error)):
    return explained
  if isinstance(error, PermissionError) and error.filename:
    return files.refusal(error.filename, error)
  if isinstance(error, (*_EXPECTED, files.DiskError)):
    return str(error)
  if isinstance(error, OSError) and files.is_of_disk(error):
    path = error.filename or options.model_dir()
    return str(files.disk_error(path, error.errno or 0))
  where = '--traceback shows where it arose'
  if options.MODEL_DIR.value:
    path = options.model_dir() / 'traceback.txt'
    try:
      path.write_text(''.join(traceback.format_exception(error)), 'utf-8')
      where = f'{path} says where it arose'
    except Exception:
      pass  # Of a full disk, say; the error itself is worth more.
  return f'{type(error).__name__}: {error} (not expected; {where})'


def _run(experiment) -> int:
  from rest_jax import experiment_run as run_lib
  from rest_jax.cli import dry_run, modes
  from rest_jax.planning import chips
  from rest_jax.runtime import terminal

  mode, model_dir = options.RUN_MODE.value, options.model_dir()
  if mode == 'plan':
    # Before JAX looks for devices.
    chips.without_tpu()
  run = run_lib.Run(experiment, model_dir, overwrite=options.OVERWRITE.value)
  if options.DRY_RUN.value:
    terminal.show(dry_run.describe(run, mode))
    if mode == 'sample':
      terminal.show(
        f'    of {run.policy_named(options.POLICY.value).policy_folder}'
      )
    return 0
  if mode == 'plan':
    settings = {
      'topology': options.TOPOLOGY.value,
      'searches': options.PLAN_SEARCH.value,
      'num_sources': options.PLAN_SOURCES.value,
      'only': tuple(options.PLAN_ONLY.value),
      'effort': options.PLAN_EFFORT.value,
    }
    modes.plan(run, settings, options.PLAN_OUTPUT.value)
    return 0
  modes.verify(
    run,
    mode,
    options.how_to_verify(),
    policy=options.POLICY.value,
    grow_step=options.GROW_STEP.value,
    repairs=mode not in options.READING_MODES,
  )
  if mode == 'sample':
    modes.sample(
      run, options.POLICY.value, options.INPUT.value, options.OUTPUT.value
    )
    return 0
  if mode == 'export':
    modes.export(run, options.GROW_STEP.value, options.OUTPUT.value)
    return 0
  if mode not in options.FINISHED_MODES:
    modes.check(run)
  with modes.begun(model_dir, options.WANDB_PROJECT.value):
    is_good = modes.stage(
      run, mode, options.GROW_STEP.value, options.IMPROVE_STEP.value
    )
  return 0 if is_good else 1


def _compare(overrides: list[str]) -> int:
  from rest_jax.cli import modes

  modes.compare(
    options.GIN_FILE.value or (),
    overrides,
    options.model_dir(),
    overwrite=options.OVERWRITE.value,
    verify=options.how_to_verify(),
    is_dry=options.DRY_RUN.value,
    wandb_project=options.WANDB_PROJECT.value,
  )
  return 0


def _side_by_side(runs: list[str]) -> int:
  from rest_jax.report import compare_runs

  compare_runs.run(runs, options.model_dir(), is_dry=options.DRY_RUN.value)
  return 0


def _quiet() -> None:
  """Sets the log up, and keeps other libraries' notes out of it."""
  from rest_jax.runtime import terminal

  handler = terminal.set_up_log(
    flags.FLAGS.verbosity if flags.FLAGS['verbosity'].present else logging.INFO
  )
  handler.addFilter(_is_worth_a_line)


def _is_worth_a_line(record: std_logging.LogRecord) -> bool:
  if is_ours(record):
    return True
  if not options.TRACEBACK.value:
    # What it means for the run is said once, at the end.
    if any(name in record.pathname for name in _SAID_AGAIN):
      return False
    record.exc_info = None
    record.msg = ' '.join(record.getMessage().split())[:_SHOWN]
    record.args = ()
  return record.levelno > std_logging.WARNING


def _hide_closed_loops(unraisable: 'sys.UnraisableHookArgs') -> None:
  """Prints what could not be raised, but for reads that Orbax has given up."""
  is_closed_loop = str(unraisable.exc_value) == 'Event loop is closed'
  if unraisable.object is None and is_closed_loop:
    return
  sys.__unraisablehook__(unraisable)


def is_ours(record: std_logging.LogRecord) -> bool:
  """Whether a line of the log comes from this package.

  A checkout may be called rest_jax too, with other libraries inside of it.
  """
  package = pathlib.Path(__file__).resolve().parents[1]
  return pathlib.Path(record.pathname).resolve().is_relative_to(package)


def _end(status: int) -> NoReturn:
  """Ends the program."""
  if status > _SIGNALLED:
    _leave(status)
  sys.exit(status)


def _leave(status: int) -> NoReturn:
  """Ends the program at once.

  Threads of JAX that were stopped in the middle of something crash where Python
  takes itself apart; nothing is left to be written.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def entry_point() -> None:
  """Reads the command line and ends with the exit status."""
  from rest_jax.runtime import terminal

  terminal.use_utf8()
  sys.unraisablehook = _hide_closed_loops
  # Reads that Orbax had not begun when another failed.
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  from rest_jax.config import command

  command.start(
    lambda rest, overrides: _end(main(rest, overrides)), sys.argv, options
  )
