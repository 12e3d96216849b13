"""From a run's finished stages to the page of its report."""

from importlib import metadata
import pathlib
import platform
from typing import Any

from rest_jax.data import sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.report import (
  drawing,
  evidence,
  exhibits,
  gather_rewards,
  gather_samples,
  gather_stages,
  html,
  reward_figures,
  table,
)
from rest_jax.report import samples as samples_lib
from rest_jax.rewards import probe_results
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib

INDEX_FILE = 'index.html'
_PACKAGES = ('rest_jax', 'jax', 'flax', 'optax', 'numpy')


def write(
  run: Any,
  results: results_lib.Results,
  names: dict[Any, str],
) -> pathlib.Path:
  """Writes the page of a run, and pictures of the rewards of its Grow steps.

  Args:
    run: an `run.Run`.
    results: all that its `results.json` holds, at least one policy.
    names: of the run's policies in results, by their steps.

  Returns:
    The page.
  """
  directory = run.model_dir / 'report'
  evaluations = _evaluations(run, names)
  judged = _judged(run, evaluations)
  page = html.Page(
    title=f'{results.task}, {run.model_dir.resolve().name}',
    facts=_facts(run),
    results=results,
    stage_warnings=gather_stages.warnings(stages(run, names)),
    grown=_grown(run, directory),
    kept=gather_stages.kept(run.model_dir),
    trust=_trust(run, judged, names),
    trust_tables=_trust_tables(run, judged),
    training=_training(names),
    samples=_samples(run, evaluations),
    costs=gather_stages.costs(stages(run, names)),
    commands=_commands(run),
    versions=_versions(),
    listings=_listings(run.model_dir),
  )
  path = directory / INDEX_FILE
  html.write(page, path)
  return path


def write_pooled(
  model_dir: pathlib.Path, results: results_lib.Results
) -> pathlib.Path:
  """Writes the page of a comparison of variants and seeds.

  Args:
    model_dir: the folder of the comparison.
    results: pooled over seeds, at least one policy.

  Returns:
    The page.
  """
  path = model_dir / 'report' / INDEX_FILE
  html.write(
    html.Page(
      title=f'{results.task}, {model_dir.resolve().name}',
      facts={'seeds': ', '.join(map(str, results.variants[0].seeds))},
      results=results,
      versions=_versions(),
      listings=_listings(model_dir),
    ),
    path,
  )
  return path


def _evaluations(run: Any, names: dict[Any, str]) -> dict[str, pathlib.Path]:
  """Finished evaluations of the first split, by the policy's name."""
  split = run.experiment.evaluate.splits[0]
  return dict(
    gather_stages.finished(
      [
        (name, run.evaluation_directory(step, split))
        for step, name in names.items()
      ]
    )
  )


def _facts(run: Any) -> dict[str, str]:
  experiment = run.experiment
  facts = {
    'task': experiment.task.name,
    'variant': experiment.variant_name,
    'loss': experiment.improve.loss.name,
    'filter': f'{experiment.improve.filter.kind} '
    + '; '.join(
      ', '.join(f'{value:g}' for value in values)
      for values in experiment.improve.filter.lists
    ),
    'reward': experiment.reward.name,
    'seed': str(experiment.seed),
  }
  grow = run.grow_directory(1)
  if (grow / folder_lib.MANIFEST).exists():
    found = folder_lib.read_manifest(grow)
    facts['D_1'] = (
      f'{found["num_rows"]:,} rows, {found["num_sources"]:,} sources'
    )
    facts['sampling'] = (
      f'{found["num_samples_per_source"]} a source at temperature '
      f'{found["temperature"]:g}'
    )
    facts['device'] = f'{found["platform"]}, {found["dtype"]}'
  return facts


def _improve_directories(run: Any, grow_step: int) -> dict[int, pathlib.Path]:
  steps = range(1, run.experiment.improve_steps(grow_step) + 1)
  found = {i: run.improve_directory(grow_step, i) for i in steps}
  return {
    i: directory
    for i, directory in found.items()
    if (directory / folder_lib.MANIFEST).exists()
  }


def _grown(run: Any, directory: pathlib.Path) -> list[exhibits.Exhibit]:
  """Figures of every finished Grow; the histograms are files as well."""
  found = []
  config = run.experiment.improve
  name = run.experiment.reward.name
  for g in range(1, run.experiment.num_grow_steps + 1):
    grow = run.grow_directory(g)
    if not (grow / folder_lib.MANIFEST).exists():
      continue
    improved = _improve_directories(run, g)
    distribution = gather_rewards.distribution(
      grow,
      name,
      gather_rewards.thresholds(config.filter, improved, g),
      config,
    )
    figure = reward_figures.reward_histogram(
      distribution, title=f'Rewards of D_{g}'
    )
    drawing.save(figure, directory / f'rewards_grow_{g}.png')
    what = f'The {distribution.count:,} rows that may be trained on.'
    if not gather_rewards.is_global(config.filter):
      what += (
        f' The {config.filter.kind} filter has a threshold for each source, so '
        'none is drawn here.'
      )
    found.append(evidence.of_grow(g, distribution, what))
    if improved:
      kept, what = gather_rewards.kept(
        config,
        grow_step=g,
        directory=grow,
        reward_name=name,
        improve_directories=improved,
        edges=distribution.edges,
      )
      found.append(evidence.of_kept(g, kept, what))
  return found


def _trust(
  run: Any, judged: dict[str, evidence.Judged], names: dict[Any, str]
) -> list[exhibits.Exhibit]:
  found = []
  probe = run.probe_directory()
  if (probe / folder_lib.MANIFEST).exists():
    config = run.experiment.probe
    report = probe_results.from_json(folder_lib.read_manifest(probe)['report'])
    if any(answer.share is not None for answer in report.probed):
      title = f'{run.experiment.task.name}, {config.split}'
      found.append(evidence.of_probes(report, title, config.minimum))
  policies = [name for step, name in names.items() if not step.control]
  policies = [name for name in policies if name in judged]
  if policies:
    policy = policies[-1]
    split = run.experiment.evaluate.splits[0]
    found.append(evidence.of_judged(policy, split, judged[policy]))
  return found


def _judged(
  run: Any, evaluations: dict[str, pathlib.Path]
) -> dict[str, evidence.Judged]:
  """Scores of the policies that the judge has seen."""
  found = {}
  for name, directory in evaluations.items():
    scored = sample_store.SampleStore.open(directory).reward_names()
    if evaluate_stage.HUMAN not in scored:
      continue
    rewards, sources = evaluate_stage.read_scores(
      directory, run.experiment.reward.name
    )
    judgements, _ = evaluate_stage.read_scores(directory, evaluate_stage.HUMAN)
    found[name] = evidence.Judged(100 * judgements, 100 * rewards, sources)
  return found


def _trust_tables(
  run: Any, judged: dict[str, evidence.Judged]
) -> list[table.Cells]:
  found = []
  if run.experiment.trained_reward is not None:
    found.append(gather_stages.agreement(run.directory('reward')))
  if run.experiment.refresh is not None:
    found += [
      gather_stages.agreement(
        run.reward_directory(g), f'the reward refreshed after Grow {g - 1}'
      )
      for g in range(2, run.experiment.num_grow_steps + 1)
    ]
  if judged:
    found.append(evidence.correlations(judged))
  return [cells for cells in found if cells is not None]


def stages(run: Any, names: dict[Any, str]) -> gather_stages.Stages:
  """Finished stages of the run, in the order in which they are made."""
  found = [('data', run.directory('data')), ('bc', run.directory('bc'))]
  if run.experiment.trained_reward is not None:
    found.append(('reward', run.directory('reward')))
  for g in range(1, run.experiment.num_grow_steps + 1):
    found.append((f'grow {g}', run.grow_directory(g)))
    found.append((f'value {g}', run.value_directory(g)))
    found += [
      (f'improve {g}.{i}', directory)
      for i, directory in _improve_directories(run, g).items()
    ]
    found.append((f'refresh {g}', run.refresh_directory(g)))
  found += [
    ('online', step.directory) for step in run.policies() if step.is_online
  ]
  for step in run.controls():
    made = step.temperature_directory or step.directory
    found.append((made.name.replace('_', ' '), made))
  found += [
    (f'evaluate {name}, {split}', run.evaluation_directory(step, split))
    for split in run.experiment.evaluate.splits
    for step, name in names.items()
  ]
  return gather_stages.finished(found)


def _training(names: dict[Any, str]) -> list[exhibits.Exhibit]:
  curves = gather_stages.curves(
    [(name, step.directory) for step, name in names.items()]
  )
  return [evidence.of_training(curves)] if curves else []


def _samples(
  run: Any, evaluations: dict[str, pathlib.Path]
) -> samples_lib.Samples | None:
  if not evaluations:
    return None
  split = run.experiment.evaluate.splits[0]
  return gather_samples.browsed(
    evaluations,
    split=split,
    reward_name=run.experiment.reward.name,
    pairs=run.data.pairs(split),
    vocabulary=run.data.vocabulary,
  )


def _commands(run: Any) -> list[str]:
  if not (run.model_dir / 'operative_config.gin').exists():
    return []
  return [
    'python -m rest_jax.main --model_dir=runs/again \\',
    '  --gin_file=operative_config.gin',
  ]


def _versions() -> dict[str, str]:
  found = {'Python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = metadata.version(package)
    except metadata.PackageNotFoundError:  # A checkout that is not installed.
      continue
  return found


def _listings(model_dir: pathlib.Path) -> dict[str, str]:
  return {
    name: path.read_text(encoding='utf-8', errors='replace')
    for name in ('config.gin', 'operative_config.gin')
    for path in [model_dir / name]
    if path.exists()
  }
