"""Several variants of one experiment, several seeds, one table.

The variants of a seed share its BC policy, reward model and first Grow, as
variants in one folder always do; the seeds share the data.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
from typing import NamedTuple

from absl import logging

from rest_jax import checks, rest, settings, terminal, verification
from rest_jax import experiment as experiment_lib
from rest_jax import run as run_lib
from rest_jax.data import inventory, lock
from rest_jax.evaluation import costs
from rest_jax.evaluation import results as results_lib
from rest_jax.report import cost_table, figures, table
from rest_jax.stages import costs as costs_stage
from rest_jax.stages import pool, report_page, summary


class VariantSpec(NamedTuple):
  """What one variant changes.

  Attributes:
    name: of its folder and in the results.
    gin_files: read after those of the comparison.
    overrides: `NAME=VALUE`, after those of the command line.
  """

  name: str
  gin_files: tuple[str, ...]
  overrides: tuple[str, ...]


# Fields of an experiment in which variants may not differ.
_SHARED = ('task', 'network', 'bc', 'reward', 'refresh', 'evaluate')

# Builds the experiment of a variant.
Build = Callable[[VariantSpec], experiment_lib.Experiment]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """What is compared.

  Attributes:
    experiment: what all variants start from.
    variants: for each its name, and then the gin files (`….gin`) and settings
      (`NAME=VALUE`) in which it differs.
    seeds: everything random is repeated with each.
  """

  experiment: experiment_lib.Experiment
  variants: tuple[tuple[str, ...], ...]
  seeds: tuple[int, ...] = (0, 1, 2)

  def __post_init__(self):
    settings.make_tuples(self, 'variants', 'seeds')
    names = [spec.name for spec in self.specs()]
    for what, values in (('variants', names), ('seeds', self.seeds)):
      if not values:
        raise ValueError(f'{what} must name at least one; got none')
      if len(set(values)) < len(values):
        raise ValueError(f'{what} must differ; got {tuple(values)}')

  def specs(self) -> list[VariantSpec]:
    """Returns the variants, each taken apart."""
    return [_spec(entry) for entry in self.variants]


def _spec(entry: tuple[str, ...]) -> VariantSpec:
  if (
    isinstance(entry, str)
    or not entry
    or '=' in entry[0]
    or '/' in entry[0]
    or '.gin' in entry[0]
  ):
    raise ValueError(
      'each of variants must open with its name, a word for a folder, before '
      f'gin files and NAME=VALUE; got {entry!r}'
    )
  name, *changes = entry
  for change in changes:
    if '=' not in change and not change.endswith('.gin'):
      raise ValueError(
        f'variant {name}: {change!r} is neither a gin file nor NAME=VALUE'
      )
  overrides = tuple(change for change in changes if '=' in change)
  files = tuple(change for change in changes if '=' not in change)
  return VariantSpec(name, files, overrides)


def run(
  comparison: Comparison,
  *,
  build: Build,
  model_dir: str | pathlib.Path,
  overwrite: bool = False,
  verify: inventory.Verify = 'fast',
) -> results_lib.Results:
  """Trains every variant with every seed; finished stages are used as they are.

  Args:
    comparison: what to compare.
    build: makes the experiment of a variant.
    model_dir: receives `data`, `seed_<n>` (an ordinary run's folder each),
      `results.json` and `report`.
    overwrite: see `run.Run`.
    verify: how finished stages are checked first, see `verification.check`.

  Returns:
    The results, pooled over seeds.
  """
  runs = plan(comparison, build=build, model_dir=model_dir, overwrite=overwrite)
  base = run_lib.Run(comparison.experiment, model_dir, overwrite=overwrite)
  for of_seeds in runs.values():
    of_seeds[0].check_vocabularies()
  verification.check(base, verify, only={base.directory('data')})
  # Of the others, what is checked is the same.
  checks.check(next(iter(runs.values()))[0])
  base.prepare()
  for of_seeds in runs.values():
    for one in of_seeds:
      logging.info('compare: %s', one.variant_dir)
      with lock.held(one.model_dir):
        verification.check(one, verify)
        rest.rest(one)
  return write(list(runs.values()), base)


def plan(
  comparison: Comparison,
  *,
  build: Build,
  model_dir: str | pathlib.Path,
  overwrite: bool = False,
) -> dict[str, list[run_lib.Run]]:
  """Builds all runs without starting one; see `run`.

  Returns:
    By variant, a run for each seed.

  Raises:
    ValueError: if a variant changes what all share.
  """
  base = comparison.experiment
  root = pathlib.Path(model_dir)
  data_dir = base.data_dir or str(root / 'data')
  runs = {}
  for spec in comparison.specs():
    changed = build(spec)
    for field in _SHARED:
      if getattr(changed, field) != getattr(base, field):
        raise ValueError(
          f'variant {spec.name} changes {field}, which all variants share. '
          'Compare it in a folder of its own.'
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
  """Pools finished evaluations into one `results.json`, table and figures.

  Args:
    runs: for each variant, a run for each seed.
    base: whose `model_dir` is written to.

  Returns:
    The results.
  """
  pooled = [variant for of_seeds in runs for variant in pool.variants(of_seeds)]
  results = results_lib.update(
    base.model_dir / summary.RESULTS_FILE, base.experiment.task.name, pooled
  )
  figures.write_all(results, base.model_dir / 'report')
  page = report_page.write_pooled(base.model_dir, results)
  text = table.render(results)
  for of_seeds in runs:
    if of_seeds[0].experiment.online is None:
      continue
    gathered = [costs_stage.gather(run) for run in of_seeds]
    if all(gathered):
      reached = costs.mean(gathered)
      costs.write(base.model_dir / costs_stage.COSTS_FILE, reached)
      text += '\n\n' + cost_table.render(reached)
  terminal.show(text)
  logging.info(
    'results: %s, report: %s', base.model_dir / summary.RESULTS_FILE, page
  )
  return results
