"""The actions of `--run_mode`, called after flags and gin files are read."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import json
import pathlib
import sys
from typing import Any

from absl import logging

from rest_jax import experiment_run as run_lib
from rest_jax.cli import checks, dry_run, rate, verification
from rest_jax.cli import compare as compare_lib
from rest_jax.config import comparison as comparison_lib
from rest_jax.config import gin_files as gin_lib
from rest_jax.data import text_files, vocabularies
from rest_jax.parallel import processes
from rest_jax.planning import described
from rest_jax.planning import plan as plan_lib
from rest_jax.runtime import compiled_programs, terminal, tracking
from rest_jax.stages import answers as sample_stage
from rest_jax.stages import export as export_stage
from rest_jax.stages import grow as grow_stage
from rest_jax.storage import files, inventory


def stage(
  run: run_lib.Run, mode: str, grow_step: int, improve_step: int
) -> bool:
  """Runs all of Algorithm 1 or one stage of it.

  Args:
    mode: `rest`, or the mode of a stage.

  Returns:
    False if a reward failed the probes of `test_reward`, otherwise True.

  Raises:
    ValueError: if the experiment has no such stage, or GROW_WORKER is set for
      another mode than `grow`.
  """
  grow = grow_stage.Grow.run_mode
  if run.experiment.grow.worker is not None and mode != grow:
    raise ValueError(
      f'GROW_WORKER is only for --run_mode={grow}; got {mode!r}. Once all '
      'workers are done, run without it.'
    )
  if mode == 'rest':
    run.rest()
  elif mode == 'rate':
    rate.run(run)
  elif mode == 'report':
    run.report()
  else:
    return run.make_mode(mode, grow_step, improve_step)
  return True


def verify(
  run: run_lib.Run,
  mode: str,
  how: inventory.Verify,
  *,
  policy: str,
  grow_step: int,
  repairs: bool,
) -> None:
  """Checks the finished stages that a mode reads; see `verification.check`."""
  only = None
  if mode == 'sample':
    only = {stage.folder for stage in run.reward.inputs.values()}
    only |= {run.context.data_folder, run.policy_named(policy).policy_folder}
  elif mode == 'export':
    only = {run.context.data_folder, _grow(run, grow_step).folder}
  # Another worker may be writing files that a repair would remove.
  repairs = repairs and run.experiment.grow.worker is None
  processes.by_main(
    'verify',
    lambda: verification.check(run, how, only=only, repairs=repairs),
  )


def check(run: run_lib.Run) -> None:
  """Checks settings and input of all stages; see `checks.check`."""

  def check_here() -> None:
    checks.check(run)

  processes.by_main('check', check_here)


def plan(
  run: run_lib.Run, settings: Mapping[str, Any], output: str | None
) -> None:
  """Compiles an experiment for a TPU slice and shows memory, work and hours.

  Args:
    settings: fields of `planning.plan.Settings`.
    output: JSON file to write; None for none.
  """
  made = plan_lib.make(run, plan_lib.Settings(**settings))
  terminal.show('\n'.join(described.lines(made)))
  if output:
    with files.atomic_write(output) as temporary:
      text = json.dumps(made.record(), indent=2)
      temporary.write_text(text + '\n', encoding='utf-8')


def export(run: run_lib.Run, grow_step: int, output: str | None) -> None:
  """Writes D_g as Parquet files to the folder `output`."""
  if not output:
    raise ValueError('--output must name the folder to export to; got none.')
  num_rows = export_stage.run(
    grow_directory=_grow(run, grow_step).folder,
    reward_name=run.experiment.reward.name,
    data=run.data,
    directory=pathlib.Path(output),
  )
  logging.info('export: %d rows to %s', num_rows, output)


def _grow(run: run_lib.Run, grow_step: int) -> grow_stage.Grow:
  grows = run.of_kind(grow_stage.Grow)
  if grow_step > len(grows):
    raise ValueError(
      f'grow_step must be at most G={len(grows)}; got {grow_step}.'
    )
  return grows[grow_step - 1]


def sample(
  run: run_lib.Run,
  policy: str,
  input_path: str | None,
  output: str | None,
  languages: Sequence[str] | None = None,
) -> None:
  """Generates an output for each source, the best of N samples.

  Args:
    policy: name of the policy; '' for the last finished one.
    input_path: file with one source per line; None for standard input.
    output: file to write; None for standard output. In a terminal each line is
      answered when it is entered.
    languages: codes of the source and of the output, in a run with several
      language pairs.
  """
  if input_path:
    text_files.check_files('input', [input_path])
    lines = text_files.read_lines(input_path)
  else:
    # readline returns each line of a terminal when it is entered.
    lines = text_files.decode_lines(
      iter(sys.stdin.buffer.readline, b''), 'stdin', 'input'
    )
  is_interactive = (
    not (input_path or output) and sys.stdin.isatty() and sys.stdout.isatty()
  )
  compiled_programs.keep(run.model_dir / '.jax_cache')
  answerer = run.answerer(
    policy,
    at_once=is_interactive,
    languages=languages_of(run, languages),
  )
  config = run.experiment.sample.output
  if is_interactive:
    sample_stage.converse(answerer, lines, config, sys.stdout)
  elif output:
    with (
      files.atomic_write(output) as temporary,
      open(temporary, 'w', encoding='utf-8', newline='\n') as opened,
    ):
      sample_stage.write_answers(answerer, lines, config, opened)
  else:
    if isinstance(sys.stdout, io.TextIOWrapper):
      sys.stdout.reconfigure(encoding='utf-8')
    sample_stage.write_answers(answerer, lines, config, sys.stdout)


def languages_of(
  run: run_lib.Run, codes: Sequence[str] | None
) -> vocabularies.Languages | None:
  """Returns the languages of `--languages`, if the run needs them.

  Raises:
    ValueError: the run needs them and they are not given, or the reverse.
  """
  is_needed = run.data.vocabulary.languages == vocabularies.OF_EACH_PAIR
  if is_needed and not codes:
    raise ValueError(
      'this run has several language pairs: --languages must name those of the '
      'text and of the answers, such as --languages=deu_Latn,eng_Latn.'
    )
  if codes and not is_needed:
    raise ValueError(
      '--languages is for runs whose pairs of text name their own languages; '
      f'got {",".join(codes)}. Leave it out.'
    )
  return vocabularies.Languages(*codes) if codes else None


def compare(
  gin_files: Sequence[str],
  overrides: Sequence[str],
  model_dir: pathlib.Path,
  *,
  overwrite: bool,
  verify: inventory.Verify,
  is_dry: bool,
  wandb_project: str | None = None,
) -> None:
  """Runs every variant of a `Comparison` with every seed.

  Args:
    overrides: gin overrides, `NAME=VALUE` each, applied after the files.
    is_dry: only print the plans.
  """

  def read(more_files, changes):
    return gin_lib.parse_and_build(
      [*gin_files, *more_files],
      [*overrides, *changes],
      root=comparison_lib.Comparison,
    )

  comparison = read([], [])
  settings = {
    'build': lambda spec: read(spec.gin_files, spec.overrides).experiment,
    'model_dir': model_dir,
    'overwrite': overwrite,
  }
  if is_dry:
    for name, runs in compare_lib.plan(comparison, **settings).items():
      terminal.show(f'variant {name}, seeds {comparison.seeds}')
      terminal.show(dry_run.describe(runs[0], 'rest'))
    return
  with begun(model_dir, wandb_project):
    compare_lib.run(comparison, verify=verify, **settings)


@contextlib.contextmanager
def begun(
  model_dir: pathlib.Path, wandb_project: str | None = None
) -> Iterator[None]:
  """Records the configuration, and caches compiled programs in the folder."""
  if processes.is_main():
    model_dir.mkdir(parents=True, exist_ok=True)
    for name, text in (
      ('config.gin', gin_lib.config_text()),
      ('operative_config.gin', gin_lib.operative_config_text()),
    ):
      with files.atomic_write(model_dir / name) as temporary:
        temporary.write_text(text, encoding='utf-8')
  compiled_programs.keep(model_dir / '.jax_cache')
  project = wandb_project if processes.is_main() else None
  with tracking.wandb(project, model_dir):
    yield
