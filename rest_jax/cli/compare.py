"""`--run_mode=compare`: several variants and seeds of one experiment.

The variants of a seed share its BC policy, reward model and first Grow step, as
variants in one folder always do; the seeds share the data.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

from absl import logging

from rest_jax import experiment as experiment_lib
from rest_jax import experiment_run as run_lib
from rest_jax.cli import checks, verification
from rest_jax.config import comparison as comparison_lib
from rest_jax.evaluation import costs
from rest_jax.evaluation import results as results_lib
from rest_jax.report import index_page, summary
from rest_jax.report.gather import pool
from rest_jax.report.gather import run_costs as costs_stage
from rest_jax.report.render import cost_table, figures, result_tables
from rest_jax.runtime import terminal
from rest_jax.storage import inventory, lock, paths

# Fields of an experiment that all variants share.
_SHARED = ('task', 'network', 'bc', 'reward', 'refresh', 'evaluate')

# Builds the experiment of a variant.
Build = Callable[[comparison_lib.VariantSpec], experiment_lib.Experiment]


def run(
  comparison: comparison_lib.Comparison,
  *,
  build: Build,
  model_dir: str | pathlib.Path,
  overwrite: bool = False,
  verify: inventory.Verify = 'fast',
) -> results_lib.Results:
  """Trains every variant with every seed; finished stages are reused.

  Args:
    build: builds the experiment of a variant.
    model_dir: folder of the comparison: `data`, `seed_<n>` (the folder of a
      run), `results.json` and `report`.
  """
  runs = plan(comparison, build=build, model_dir=model_dir, overwrite=overwrite)
  base = run_lib.Run(comparison.experiment, model_dir, overwrite=overwrite)
  for of_seeds in runs.values():
    of_seeds[0].context.check_vocabularies()
  verification.check(base, verify, only={base.folder('data')})
  # The checks of the other runs are the same.
  checks.check(next(iter(runs.values()))[0])
  base.make('data')
  for of_seeds in runs.values():
    for one in of_seeds:
      logging.info('compare: %s', one.variant_dir)
      one.context.forget_data()  # `base` may have made them again.
      with lock.held(one.model_dir):
        verification.check(one, verify)
        one.rest()
      one.context.forget_data()  # Rewards would stay on the devices.
  return write(list(runs.values()), base)


def plan(
  comparison: comparison_lib.Comparison,
  *,
  build: Build,
  model_dir: str | pathlib.Path,
  overwrite: bool = False,
) -> dict[str, list[run_lib.Run]]:
  """Builds the runs of each variant, one per seed, without starting them.

  Raises:
    ValueError: if a variant changes a field that all variants share.
  """
  base = comparison.experiment
  root = paths.of(model_dir)
  data_dir = base.data_dir or str(root / 'data')
  runs = {}
  for spec in comparison.specs():
    changed = build(spec)
    for field in _SHARED:
      if getattr(changed, field) != getattr(base, field):
        raise ValueError(
          f'variant {spec.name} changes {field}, which all variants share. '
          'Run it in another folder.'
        )
    runs[spec.name] = [
      run_lib.Run(
        dataclasses.replace(
          changed, seed=seed, variant=spec.name, data_dir=data_dir
        ),
        root / f'seed_{seed}',
        overwrite=overwrite,
      )
      for seed in comparison.seeds
    ]
  return runs


def write(
  runs: Sequence[Sequence[run_lib.Run]], base: run_lib.Run
) -> results_lib.Results:
  """Pools finished evaluations into `results.json`, a table and figures.

  Args:
    base: run whose `model_dir` is written to.
  """
  pooled = [variant for of_seeds in runs for variant in pool.variants(of_seeds)]
  results = results_lib.update(
    base.model_dir / summary.RESULTS_FILE, base.experiment.task.name, pooled
  )
  shown = results.shown
  figures.write_all(shown, base.model_dir / 'report')
  page = index_page.write_pooled(base.model_dir, shown)
  more = []
  for of_seeds in runs:
    if of_seeds[0].experiment.online is None:
      continue
    gathered = [costs_stage.gather(run) for run in of_seeds]
    if all(gathered):
      reached = costs.mean(gathered)
      costs.write(base.model_dir / costs_stage.COSTS_FILE, reached)
      more.append(cost_table.render(reached))
  terminal.show(result_tables.render(shown, more=more))
  logging.info(
    'results: %s, report: %s', base.model_dir / summary.RESULTS_FILE, page
  )
  return results
