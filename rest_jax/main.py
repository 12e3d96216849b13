"""The command line: `python -m rest_jax.main --run_mode=... --model_dir=...`.

Kept short: flags, configuration, and which stages a run mode goes through.
"""

import contextlib
import io
import logging as std_logging
import os
import pathlib
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
  except Exception as error:
    if _TRACEBACK.value:
      raise
    from rest_jax import terminal

    terminal.show_error(_explain(error))
    return 1


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
  from rest_jax import experiment as experiment_lib
  from rest_jax import plan, rest, terminal

  model_dir = pathlib.Path(_MODEL_DIR.value or 'dry_run')
  run = experiment_lib.Run(experiment, model_dir, overwrite=_OVERWRITE.value)
  if _DRY_RUN.value:
    terminal.show(plan.describe(run, _RUN_MODE.value))
    if _RUN_MODE.value == 'sample':
      terminal.show(f'    of {run.policy_named(_POLICY.value).directory}')
    return 0
  if _RUN_MODE.value == 'sample':
    return _sample(run)
  if _RUN_MODE.value == 'export':
    if not _OUTPUT.value:
      raise ValueError('--output must name the folder to export to; got none.')
    run.export(_GROW_STEP.value, pathlib.Path(_OUTPUT.value))
    return 0
  _begin(model_dir)
  g, i = _GROW_STEP.value, _IMPROVE_STEP.value
  mode = _RUN_MODE.value
  if mode == 'rest':
    rest.rest(run)
  elif mode == 'grow':
    run.grow(g, run.policy_before(g, 1))
  elif mode == 'value':
    if run.value(g, run.grow_directory(g)) is None:
      raise ValueError(
        f'the loss {experiment.improve.loss.name} reads no value function; add '
        'one that does: --gin_file=gin_configs/losses/oac.gin or bvmpo.gin'
      )
  elif mode == 'improve':
    run.improve(g, i, run.grow_directory(g), run.policy_before(g, i))
  elif mode == 'report':
    run.report()
  elif mode == 'test_reward':
    return 0 if run.test_reward() else 1
  else:
    {
      'prepare': run.prepare,
      'bc': run.bc,
      'reward': run.reward,
      'online': run.online,
      'evaluate': run.evaluate_finished,
      'rate': run.rate,
    }[mode]()
  return 0


def _side_by_side(runs: list[str]) -> int:
  from rest_jax.stages import compare_runs

  compare_runs.run(
    runs,
    pathlib.Path(_MODEL_DIR.value or 'dry_run'),
    is_dry=_DRY_RUN.value,
  )
  return 0


def _sample(run) -> int:
  from rest_jax.data import files, text_files
  from rest_jax.stages import sample

  if _INPUT.value:
    text_files.check_files('input', [_INPUT.value])
    lines = text_files.read_lines(_INPUT.value)
  else:
    # By readline: a line that is typed is there before the next one.
    lines = text_files.decode_lines(
      iter(sys.stdin.buffer.readline, b''), 'stdin', 'input'
    )
  at_once = (
    not (_INPUT.value or _OUTPUT.value)
    and sys.stdin.isatty()
    and sys.stdout.isatty()
  )
  _cache_programs(run.model_dir)
  answerer = run.answerer(_POLICY.value, at_once=at_once)
  output = run.experiment.sample.output
  if at_once:
    sample.converse(answerer, lines, output, sys.stdout)
  elif _OUTPUT.value:
    with (
      files.atomic_write(_OUTPUT.value) as temporary,
      open(temporary, 'w', encoding='utf-8', newline='\n') as opened,
    ):
      sample.write_answers(answerer, lines, output, opened)
  else:
    if isinstance(sys.stdout, io.TextIOWrapper):
      sys.stdout.reconfigure(encoding='utf-8')
    sample.write_answers(answerer, lines, output, sys.stdout)
  return 0


def _compare(overrides: list[str]) -> int:
  from rest_jax import comparison as comparison_lib
  from rest_jax import gin_utils, plan, terminal

  def read(files, changes):
    return gin_utils.parse_and_build(
      [*(_GIN_FILE.value or ()), *files],
      [*overrides, *changes],
      root=comparison_lib.Comparison,
    )

  comparison = read([], [])
  model_dir = pathlib.Path(_MODEL_DIR.value or 'dry_run')
  settings = {
    'build': lambda spec: read(spec.gin_files, spec.overrides).experiment,
    'model_dir': model_dir,
    'overwrite': _OVERWRITE.value,
  }
  if _DRY_RUN.value:
    for name, runs in comparison_lib.plan(comparison, **settings).items():
      terminal.show(f'variant {name}, seeds {comparison.seeds}')
      terminal.show(plan.describe(runs[0], 'rest'))
    return 0
  _begin(model_dir)
  comparison_lib.run(comparison, **settings)
  return 0


def _begin(model_dir: pathlib.Path) -> None:
  """Writes down what was asked, and keeps compiled programs in the folder."""
  from rest_jax import gin_utils
  from rest_jax.data import files

  model_dir.mkdir(parents=True, exist_ok=True)
  for name, text in (
    ('config.gin', gin_utils.config_text()),
    ('operative_config.gin', gin_utils.operative_config_text()),
  ):
    with files.atomic_write(model_dir / name) as temporary:
      temporary.write_text(text, encoding='utf-8')
  _cache_programs(model_dir)


def _cache_programs(model_dir: pathlib.Path) -> None:
  import jax

  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    # Programs compiled by one stage or run are there for the next.
    jax.config.update(
      'jax_compilation_cache_dir', str(model_dir.absolute() / '.jax_cache')
    )


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
