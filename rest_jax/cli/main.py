"""`rest-jax run`, the same as `python -m rest_jax.main`.

Flags are in `options.py`, run modes in `modes.py`.
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

# Exit status after a signal: this plus the number of the signal.
_SIGNALLED = 128

# Libraries that log long tracebacks in threads, of errors that they also raise.
_NOISY_LIBRARIES = ('/orbax/', '/asyncio/', '/gcsfs/')
# Maximum number of characters of a log line of other libraries.
_MAX_CHARACTERS = 300

# Errors caused by wrong input, settings, files or environment.
_EXPECTED = (
  ValueError,
  FileNotFoundError,
  PermissionError,
  FloatingPointError,
  ImportError,
)


def main(argv: list[str], overrides: list[str]) -> int:
  """Executes the run of the flags; returns the exit status."""
  options.check(argv)
  _set_up_log()
  if not options.is_distributed():
    return _main(overrides)
  return _main_distributed(overrides)


def _main_distributed(overrides: list[str]) -> int:
  """Runs `_main` together with other processes."""
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
      _exit_now(1)  # A thread may still be waiting in JAX.
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
  # Imported here, so that --help is fast.
  from rest_jax.config import gin_files, registry
  from rest_jax.parallel import processes
  from rest_jax.runtime import compiled_programs, interruption
  from rest_jax.storage import cache, lock, paths

  try:
    with contextlib.ExitStack() as stack:
      stack.enter_context(interruption.handled())
      cache.configure(options.CACHE_DIR.value, options.CACHE_GB.value)
      programs = os.environ.get(compiled_programs.VARIABLE, '')
      if paths.is_address(programs):
        compiled_programs.share(paths.of(programs))
      if options.COMPARE.value:
        return _compare_runs(options.COMPARE.value)
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
    return _close_stdout()
  except Exception as error:
    if options.TRACEBACK.value:
      raise
    from rest_jax.runtime import terminal

    terminal.show_error(_explain(error))
    return 1


def _profile(stack: contextlib.ExitStack) -> None:
  """Enables the profiler of --profile until the stack is closed."""
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


def _close_stdout() -> int:
  """Handles a broken pipe, such as to `head`; returns the exit status."""
  # Buffered output is written at exit, and must not raise again.
  with open(os.devnull, 'w', encoding='utf-8') as devnull:
    os.dup2(devnull.fileno(), sys.stdout.fileno())
  return _SIGNALLED + signal.SIGPIPE


def _explain(error: Exception) -> str:
  """Returns a message for an error; writes the traceback of unexpected ones."""
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
  where = '--traceback shows the traceback'
  if options.MODEL_DIR.value:
    path = options.model_dir() / 'traceback.txt'
    try:
      path.write_text(''.join(traceback.format_exception(error)), 'utf-8')
      where = f'{path} has the traceback'
    except Exception:
      pass  # Such as a full disk: the first error matters more.
  return f'{type(error).__name__}: {error} (not expected; {where})'


def _run(experiment) -> int:
  from rest_jax import experiment_run as run_lib
  from rest_jax.cli import dry_run, modes
  from rest_jax.planning import chips
  from rest_jax.runtime import terminal

  mode, model_dir = options.RUN_MODE.value, options.model_dir()
  if mode == 'plan':
    # Must come before JAX initialises its devices.
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
      run,
      options.POLICY.value,
      options.INPUT.value,
      options.OUTPUT.value,
      options.LANGUAGES.value,
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


def _compare_runs(runs: list[str]) -> int:
  from rest_jax.report import compare_runs

  compare_runs.run(runs, options.model_dir(), is_dry=options.DRY_RUN.value)
  return 0


def _set_up_log() -> None:
  """Sets up logging, and filters the messages of other libraries."""
  from rest_jax.runtime import terminal

  handler = terminal.set_up_log(
    flags.FLAGS.verbosity if flags.FLAGS['verbosity'].present else logging.INFO
  )
  handler.addFilter(_is_shown)


def _is_shown(record: std_logging.LogRecord) -> bool:
  if is_ours(record):
    return True
  if not options.TRACEBACK.value:
    # The error is shown once, when it ends the run.
    if any(name in record.pathname for name in _NOISY_LIBRARIES):
      return False
    record.exc_info = None
    record.msg = ' '.join(record.getMessage().split())[:_MAX_CHARACTERS]
    record.args = ()
  return record.levelno > std_logging.WARNING


def _hide_closed_loops(unraisable: 'sys.UnraisableHookArgs') -> None:
  """Prints unraisable errors, except those of reads that Orbax cancelled."""
  is_closed_loop = str(unraisable.exc_value) == 'Event loop is closed'
  if unraisable.object is None and is_closed_loop:
    return
  sys.__unraisablehook__(unraisable)


def is_ours(record: std_logging.LogRecord) -> bool:
  """Returns whether a log record comes from this package.

  The checkout may also be called rest_jax, and contain other libraries.
  """
  package = pathlib.Path(__file__).resolve().parents[1]
  return pathlib.Path(record.pathname).resolve().is_relative_to(package)


def _exit(status: int) -> NoReturn:
  if status > _SIGNALLED:
    _exit_now(status)
  sys.exit(status)


def _exit_now(status: int) -> NoReturn:
  """Exits without Python's cleanup.

  After an interruption, threads of JAX may crash during the cleanup. All files
  have been written before.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def entry_point() -> None:
  """Executes the command line, and exits."""
  from rest_jax.runtime import terminal

  terminal.use_utf8()
  sys.unraisablehook = _hide_closed_loops
  # Reads that Orbax had not started when another one failed.
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  from rest_jax.config import command

  command.start(
    lambda rest, overrides: _exit(main(rest, overrides)), sys.argv, options
  )
