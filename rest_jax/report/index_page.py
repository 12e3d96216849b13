"""The page of a run's report, made from its finished stages."""

import contextlib
from importlib import metadata
import pathlib
import platform

from rest_jax import rest
from rest_jax.data import sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.report import table
from rest_jax.report.gather import finished_stages, grow_rewards, policy_samples
from rest_jax.report.gather import samples as samples_lib
from rest_jax.report.render import (
  drawing,
  evidence,
  exhibits,
  html,
  reward_figures,
)
from rest_jax.stages import base, train_reward
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import improve as improve_stage
from rest_jax.stages import probe as probe_stage
from rest_jax.stages import refresh as refresh_stage

INDEX_FILE = 'index.html'
_PACKAGES = ('rest_jax', 'jax', 'flax', 'optax', 'numpy')


def write(
  run: rest.Layout,
  results: results_lib.Results,
  names: dict[base.PolicyStage, str],
) -> pathlib.Path:
  """Writes the page of a run, and pictures of the rewards of its Grow steps.

  Args:
    results: content of its `results.json`, at least one policy.
    names: names of the run's policies in results, by stage.
  """
  directory = run.model_dir / 'report'
  evaluations = _evaluations(run, names)
  judged = _judged(run, evaluations)
  stages = finished(run, names)
  page = html.Page(
    title=f'{results.task}, {run.model_dir.resolve().name}',
    facts=_facts(run),
    results=results,
    stage_warnings=finished_stages.warnings(stages),
    grown=_grown(run, directory),
    kept=finished_stages.kept(run.model_dir),
    trust=_trust(run, judged, names),
    trust_tables=_trust_tables(run, judged),
    training=_training(names),
    samples=_samples(run, evaluations),
    times=finished_stages.times(stages, is_brief=True),
    costs=finished_stages.times(stages),
    training_times=finished_stages.trainings(stages),
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
    results: results pooled over seeds, at least one policy.
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


def _evaluations(
  run: rest.Layout, names: dict[base.PolicyStage, str]
) -> dict[str, pathlib.Path]:
  """Returns folders of finished evaluations of the first split, by policy."""
  split = run.experiment.evaluate.splits[0]
  return {
    name: evaluation.folder
    for step, name in names.items()
    for evaluation in [run.evaluation(step, split)]
    if evaluation.is_finished
  }


def _facts(run: rest.Layout) -> dict[str, str]:
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
  grow = run.of_kind(grow_stage.Grow)[0]
  if grow.is_finished:
    manifest = grow.manifest()
    facts['D_1'] = (
      f'{manifest["num_rows"]:,} rows, {manifest["num_sources"]:,} sources'
    )
    facts['sampling'] = (
      f'{manifest["num_samples_per_source"]} samples per source at temperature '
      f'{manifest["temperature"]:g}'
    )
    facts['device'] = f'{manifest["platform"]}, {manifest["dtype"]}'
  return facts


def _improved(run: rest.Layout, grow_step: int) -> dict[int, pathlib.Path]:
  """Returns the folders of the finished Improve steps of a Grow step, by i."""
  return {
    stage.improve_step: stage.folder
    for stage in run.of_kind(improve_stage.Improve)
    if stage.grow_step == grow_step and stage.is_finished
  }


def _grown(run: rest.Layout, directory: pathlib.Path) -> list[exhibits.Exhibit]:
  """Returns the figures of finished Grow steps; also writes the histograms."""
  shown = []
  config = run.experiment.improve
  name = run.experiment.reward.name
  for stage in run.of_kind(grow_stage.Grow):
    if not stage.is_finished:
      continue
    g, grow = stage.grow_step, stage.folder
    improved = _improved(run, g)
    distribution = grow_rewards.distribution(
      grow,
      name,
      grow_rewards.thresholds(config.filter, improved, g),
      config,
    )
    figure = reward_figures.reward_histogram(
      distribution, title=f'Rewards of D_{g}'
    )
    drawing.save(figure, directory / f'rewards_grow_{g}.png')
    what = f'The {distribution.count:,} rows that may be trained on.'
    if not grow_rewards.is_global(config.filter):
      what += (
        f' The {config.filter.kind} filter has one threshold per source; they '
        'are not drawn.'
      )
    shown.append(evidence.of_grow(g, distribution, what))
    if improved:
      kept, what = grow_rewards.kept(
        config,
        grow_step=g,
        directory=grow,
        reward_name=name,
        improve_directories=improved,
        edges=distribution.edges,
      )
      shown.append(evidence.of_kept(g, kept, what))
  return shown


def _trust(
  run: rest.Layout,
  judged: dict[str, evidence.Judged],
  names: dict[base.PolicyStage, str],
) -> list[exhibits.Exhibit]:
  shown = []
  for probe in run.of_kind(probe_stage.Probe):
    if not probe.is_finished:
      continue
    config, report = probe.config, probe.report()
    if any(answer.share is not None for answer in report.probed):
      title = f'{run.experiment.task.name}, {config.split}'
      shown.append(evidence.of_probes(report, title, config.minimum))
  policies = [name for step, name in names.items() if not step.control]
  policies = [name for name in policies if name in judged]
  if policies:
    policy = policies[-1]
    split = run.experiment.evaluate.splits[0]
    shown.append(evidence.of_judged(policy, split, judged[policy]))
  return shown


def _judged(
  run: rest.Layout, evaluations: dict[str, pathlib.Path]
) -> dict[str, evidence.Judged]:
  """Returns the scores of policies that have scores of the judge."""
  judged = {}
  for name, directory in evaluations.items():
    scored = sample_store.SampleStore.open(directory).reward_names()
    if evaluate_stage.HUMAN not in scored:
      continue
    rewards, sources = evaluate_stage.read_scores(
      directory, run.experiment.reward.name
    )
    judgements, _ = evaluate_stage.read_scores(directory, evaluate_stage.HUMAN)
    judged[name] = evidence.Judged(100 * judgements, 100 * rewards, sources)
  return judged


def _trust_tables(
  run: rest.Layout, judged: dict[str, evidence.Judged]
) -> list[table.Cells]:
  tables = [
    finished_stages.agreement(stage.folder)
    for stage in run.of_kind(train_reward.TrainReward)
  ]
  tables += [
    finished_stages.agreement(
      stage.reward_folder, f'the reward refreshed after Grow {stage.grow_step}'
    )
    for stage in run.of_kind(refresh_stage.Refresh)
  ]
  if judged:
    tables.append(evidence.correlations(judged))
  return [cells for cells in tables if cells is not None]


def finished(
  run: rest.Layout, names: dict[base.PolicyStage, str]
) -> finished_stages.Stages:
  """Returns the finished stages of the run, in the order they are made."""

  def title(stage: base.Stage) -> str:
    if isinstance(stage, evaluate_stage.Evaluate) and stage.policy in names:
      return f'evaluate {names[stage.policy]}, {stage.split}'
    return stage.title

  return [(title(s), s.folder) for s in run.stages if s.is_finished]


def _training(names: dict[base.PolicyStage, str]) -> list[exhibits.Exhibit]:
  curves = finished_stages.curves(
    [(name, step.policy_folder) for step, name in names.items()]
  )
  return [evidence.of_training(curves)] if curves else []


def _samples(
  run: rest.Layout, evaluations: dict[str, pathlib.Path]
) -> samples_lib.Samples | None:
  if not evaluations:
    return None
  split = run.experiment.evaluate.splits[0]
  return policy_samples.browsed(
    evaluations,
    split=split,
    reward_name=run.experiment.reward.name,
    pairs=run.data.pairs(split),
    vocabulary=run.data.vocabulary,
  )


def _commands(run: rest.Layout) -> list[str]:
  if not (run.model_dir / 'operative_config.gin').exists():
    return []
  return [
    'rest-jax run --model_dir=runs/again \\',
    '  --gin_file=operative_config.gin',
  ]


def _versions() -> dict[str, str]:
  versions = {'Python': platform.python_version()}
  for package in _PACKAGES:
    with contextlib.suppress(metadata.PackageNotFoundError):  # Not installed.
      versions[package] = metadata.version(package)
  return versions


def _listings(model_dir: pathlib.Path) -> dict[str, str]:
  return {
    name: path.read_text(encoding='utf-8', errors='replace')
    for name in ('config.gin', 'operative_config.gin')
    for path in [model_dir / name]
    if path.exists()
  }
