"""Several variants of one experiment, several seeds, one table.

The variants of a seed share its BC policy, reward model and first Grow, as
variants in one folder always do; the seeds share the data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from rest_jax import experiment as experiment_lib
from rest_jax import rest, terminal
from rest_jax import run as run_lib
from rest_jax.data import lock
from rest_jax.evaluation import costs, metrics
from rest_jax.evaluation import results as results_lib
from rest_jax.report import cost_table, figures, table
from rest_jax.stages import costs as costs_stage
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import report_page, summary


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
  if not entry or '=' in entry[0] or '/' in entry[0] or '.gin' in entry[0]:
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
) -> results_lib.Results:
  """Trains every variant with every seed; finished stages are used as they are.

  Args:
    comparison: what to compare.
    build: makes the experiment of a variant.
    model_dir: receives `data`, `seed_<n>` (an ordinary run's folder each),
      `results.json` and `report`.
    overwrite: see `run.Run`.

  Returns:
    The results, pooled over seeds.
  """
  runs = plan(comparison, build=build, model_dir=model_dir, overwrite=overwrite)
  base = run_lib.Run(comparison.experiment, model_dir, overwrite=overwrite)
  base.prepare()
  for of_seeds in runs.values():
    for one in of_seeds:
      logging.info('compare: %s', one.variant_dir)
      with lock.held(one.model_dir):
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
  pooled = [variant for of_seeds in runs for variant in _pooled(of_seeds)]
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


def _pooled(
  runs: Sequence[run_lib.Run],
) -> Iterator[results_lib.Variant]:
  """The policies of one variant on every split, over all seeds."""
  gathered = [summary.gather(run) for run in runs]
  seeds = [run.experiment.seed for run in runs]
  names = {'reward': runs[0].reward_model.name, 'human': evaluate_stage.HUMAN}
  for split in runs[0].experiment.evaluate.splits:
    bc, previous = None, None
    for number, step in enumerate(runs[0].policies()):
      variants = [of_run[split][number] for of_run in gathered]
      own = {
        what: _Scores.read(runs, number, split, name)
        for what, name in names.items()
        if getattr(variants[0], what) is not None
      }
      if step.is_bc:
        bc = own
      # The online baseline follows no other policy but BC.
      before = bc if step.is_online else previous
      yield pool(
        variants,
        seeds=seeds,
        own=own,
        bc=None if step.is_bc else bc,
        previous=before,
      )
      previous = own


class _Scores(NamedTuple):
  """Normalised scores of all seeds: float [seeds][n], source ids [seeds][n]."""

  values: list[np.ndarray]
  sources: list[np.ndarray]

  @classmethod
  def read(
    cls,
    runs: Sequence[run_lib.Run],
    number: int,
    split: str,
    name: str,
  ) -> '_Scores':
    found = [
      evaluate_stage.read_scores(
        run.evaluation_directory(run.policies()[number], split), name
      )
      for run in runs
    ]
    return cls([scores for scores, _ in found], [ids for _, ids in found])

  def mean(self) -> metrics.Estimate:
    """Over seeds and samples. The seeds saw the same sources."""
    return metrics.clustered_mean(
      np.concatenate(self.values), np.concatenate(self.sources)
    ).scaled(100)

  def minus(self, other: '_Scores') -> metrics.Difference:
    """Paired by source."""
    return metrics.paired_difference(
      np.concatenate(self.values),
      np.concatenate(other.values),
      np.concatenate(self.sources),
      np.concatenate(other.sources),
    ).scaled(100)

  def means(self) -> np.ndarray:
    """Of each seed, x100."""
    return np.array([values.mean() * 100 for values in self.values])


def pool(
  variants: Sequence[results_lib.Variant],
  *,
  seeds: Sequence[int],
  own: Mapping[str, _Scores],
  bc: Mapping[str, _Scores] | None,
  previous: Mapping[str, _Scores] | None,
) -> results_lib.Variant:
  """One entry for the same policy of several seeds.

  Standard errors of rewards and judgements are clustered by source over all
  seeds: they say how sure the mean of *these* trainings is.
  `stderr_across_seeds` says how much trainings differ. Everything else is the
  mean over seeds, standard errors too: the seeds saw the same sources, so their
  errors need not cancel.

  Args:
    variants: the entries, one a seed.
    seeds: theirs.
    own: the policy's scores by 'reward' and, with a judge, 'human'.
    bc: those of BC; None if it is BC itself.
    previous: those of the policy it was trained from; None for BC.

  Returns:
    The entry.
  """
  reward = own['reward']
  changes: dict[str, Any] = {}
  if bc is not None:
    changes['difference_to_bc'] = reward.minus(bc['reward'])
    changes['difference_stderr_across_seeds'] = _spread(
      reward.means() - bc['reward'].means()
    )
    if 'human' in own:
      changes['human_difference_to_bc'] = own['human'].minus(bc['human'])
  if previous is not None:
    changes['difference_to_previous'] = reward.minus(previous['reward'])
  return dataclasses.replace(
    _mean(variants),
    seed=seeds[0],
    seeds=tuple(seeds),
    reward=reward.mean(),
    stderr_across_seeds=_spread(reward.means()),
    human=own['human'].mean() if 'human' in own else None,
    **changes,
  )


def _mean(values: Sequence[Any]) -> Any:
  """The mean of numbers, and of what is made of numbers, part by part."""
  first = values[0]
  if any(value is None for value in values):
    return None
  if dataclasses.is_dataclass(first) and not isinstance(first, type):
    return dataclasses.replace(
      first,
      **{
        field.name: _mean([getattr(value, field.name) for value in values])
        for field in dataclasses.fields(first)
      },
    )
  if isinstance(first, Mapping):
    return {key: _mean([value[key] for value in values]) for key in first}
  if isinstance(first, int):
    return round(np.mean(values))
  if isinstance(first, float):
    return float(np.mean(values))
  return first  # Words, which are the same in all.


def _spread(means: np.ndarray) -> float | None:
  """The standard error of a mean over seeds; None of one seed."""
  if len(means) < 2:
    return None
  return float(means.std(ddof=1) / np.sqrt(len(means)))
