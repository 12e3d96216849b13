"""From finished evaluations to `results.json`, the table and the report."""

import pathlib
from typing import Any

from absl import logging

from rest_jax import terminal
from rest_jax.data import files
from rest_jax.evaluation import costs, metrics, paired_text, probed
from rest_jax.evaluation import results as results_lib
from rest_jax.rating import agreement, scores
from rest_jax.rating import config as rating_config
from rest_jax.rating import store as rating_store
from rest_jax.report import (
  cost_table,
  drawing,
  figures,
  probe_table,
  rating_table,
  table,
)
from rest_jax.stages import costs as costs_stage
from rest_jax.stages import diagnostics, report_page, reported_stages
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib

RESULTS_FILE = 'results.json'
EVALUATION_FILE = 'evaluation.json'
_RATING = 'rating'


def write(run: Any) -> str:
  """Gathers a run's finished evaluations.

  Args:
    run: an `run.Run`; policies without a finished evaluation are left
      out.

  Returns:
    The table that was printed.
  """
  people = read_people(run)
  found = gather(run, people)
  variants = [variant for split in found.values() for variant in split]
  path = run.model_dir / RESULTS_FILE
  results = results_lib.update(path, run.experiment.task.name, variants)
  files.write_json(
    run.variant_dir / EVALUATION_FILE,
    results_lib.to_json(
      results_lib.Results(
        task=run.experiment.task.name, variants=tuple(variants)
      )
    ),
    sealed=True,
  )
  figures.write_all(results, run.model_dir / 'report')
  names = {step.directory: policy_name(run, step) for step in run.policies()}
  page = report_page.write(run, results, names)
  text = table.render(
    results, reported_stages.warnings(report_page.stages(run, names))
  )
  if run.experiment.online is not None:
    reached = costs_stage.gather(run)
    if reached:
      costs.write(run.variant_dir / costs_stage.COSTS_FILE, reached)
      text += '\n\n' + cost_table.render(reached)
  terminal.show(text)
  if people.ratings:
    measured = agreement.measure(people.ratings, people.kind)
    terminal.show('\n' + rating_table.render(people, measured))
  logging.info('results: %s, report: %s', path, page)
  return text


def ratings_file(run: Any) -> pathlib.Path:
  """Returns the path of what people answered on a run's rating page."""
  return pathlib.Path(run.model_dir) / _RATING / rating_store.FILE


def read_people(run: Any) -> scores.People:
  """Returns a run's ratings by people, none if there is no such file."""
  kind = run.experiment.rating.kind
  path = ratings_file(run)
  if not path.exists():
    return scores.People(kind, ())
  store = rating_store.Store(path)
  try:
    return scores.People(kind, store.ratings(kind))
  finally:
    store.close()


def gather(
  run: Any, people: scores.People | None = None
) -> dict[str, list[results_lib.Variant]]:
  """Returns a run's finished evaluations by split, in the policies' order.

  Args:
    run: an `run.Run`.
    people: ratings, which are `human` where the task has no judge.
  """
  people = people or scores.People(rating_config.SCORES, ())
  variants: dict[str, list[results_lib.Variant]] = {}
  for split in run.experiment.evaluate.splits:
    bc: dict[str, Any] = {}
    variants[split] = [
      _variant(run, step, split, directory, bc, people)
      for step in run.policies()
      for directory in [run.evaluation_directory(step, split)]
      if (directory / folder_lib.MANIFEST).exists()
    ]
  return variants


def write_probes(run: Any, report: probed.Report) -> bool:
  """Prints and draws how the reward answered to probes.

  Args:
    run: an `run.Run`.
    report: the answers.

  Returns:
    Whether no probe missed the run's minimum.
  """
  config = run.experiment.probe
  title = f'{run.experiment.task.name}, {config.split}'
  terminal.show(probe_table.render(report, title, config.minimum))
  path = run.model_dir / 'report' / 'probes.png'
  drawing.save(
    figures.probe_shares(report, title=title, minimum=config.minimum), path
  )
  logging.info('probes: %s, figure: %s', run.probe_directory(), path)
  return config.minimum is None or not report.missed(config.minimum)


def _variant(run, step, split, directory, bc, people) -> results_lib.Variant:
  """One policy on one split; the first one seen is BC."""
  experiment = run.experiment
  manifest = folder_lib.read_manifest(directory)
  measured = manifest['measured']
  made = folder_lib.read_manifest(step.directory)
  decode = experiment.evaluate.decode
  names = {'reward': run.experiment.reward.name}
  if evaluate_stage.HUMAN in measured:
    names['human'] = evaluate_stage.HUMAN
  differences = _differences(names, step, directory, bc)
  human = None
  if evaluate_stage.HUMAN in measured:
    human = metrics.Estimate(**measured[evaluate_stage.HUMAN])
  elif people.ratings:
    policy = manifest['settings']['policy']
    human = people.mean(split, policy)
    if step.is_bc:
      bc[_RATING] = policy
    elif _RATING in bc:
      differences['human'] = people.difference(split, policy, bc[_RATING])
  curve = measured['best_of_n']
  kept, row_filter = made.get('kept'), None
  if step.grow:
    row_filter = results_lib.Filter(
      kind=experiment.improve.filter.kind,
      value=experiment.improve.filter.at(step.improve, step.grow),
    )
  return results_lib.Variant(
    name=policy_name(run, step),
    loss=_loss(run, step),
    grow=step.grow,
    improve=step.improve,
    seed=experiment.seed,
    filter=row_filter,
    split=split,
    decode=results_lib.Decode(
      temperature=decode.temperature,
      samples_per_source=decode.num_samples_per_source,
      text=experiment.evaluate.text_name,
    ),
    reward=metrics.Estimate(**measured['reward']),
    human=human,
    difference_to_bc=differences.get('reward'),
    human_difference_to_bc=differences.get('human'),
    bleu=measured['bleu'],
    bleu_signature=measured['bleu_signature'],
    chrf=measured['chrf'],
    chrf_signature=measured['chrf_signature'],
    bleu_difference_to_bc=differences.get('bleu'),
    chrf_difference_to_bc=differences.get('chrf'),
    length_ratio=measured['length_ratio'],
    distinct_samples=measured['distinct_samples'],
    best_of_n={int(n): entry['mean'] for n, entry in curve.items()},
    best_of_n_stderr={int(n): entry['stderr'] for n, entry in curve.items()},
    best_of_n_human={
      int(n): entry['mean']
      for n, entry in measured.get('best_of_n_human', {}).items()
    },
    diagnostics=_diagnostics(manifest.get('diagnostics')),
    kept=(
      results_lib.Kept(
        samples=kept['samples'],
        fraction=kept['fraction'],
        sources_without_samples=kept['sources_without_samples'],
      )
      if kept
      else None
    ),
    seconds=_seconds(run, step, made),
  )


def _diagnostics(
  found: dict[str, Any] | None,
) -> results_lib.Diagnostics | None:
  if found is None:  # An evaluation from before they were measured.
    return None
  kl_to_bc = metrics.Estimate(**found['kl_to_bc'])
  return results_lib.Diagnostics(**{**found, 'kl_to_bc': kl_to_bc})


def _differences(names, step, directory, bc) -> dict[str, metrics.Difference]:
  """What a policy has over BC, whose own numbers are put into `bc`."""
  differences = {}
  for what, name in names.items():
    scores, ids = evaluate_stage.read_scores(directory, name)
    if step.is_bc:
      bc[what] = (scores, ids)
    elif what in bc:
      base, base_ids = bc[what]
      differences[what] = metrics.paired_difference(
        scores, base, ids, base_ids
      ).scaled(100)
  for what, score in (('bleu', paired_text.bleu), ('chrf', paired_text.chrf)):
    counts = diagnostics.read_counts(directory, what)
    if counts is None:
      continue
    if step.is_bc:
      bc[what] = counts
    elif what in bc:
      differences[what] = paired_text.paired_difference(score, counts, bc[what])
  return differences


def policy_name(run: Any, step: Any) -> str:
  """Returns how results call a policy of an `run.Run`."""
  experiment = run.experiment
  loss = _loss(run, step)
  if step.is_bc:
    return results_lib.variant_name(loss, 0, 0)
  if step.is_online:
    name = loss.upper()
  else:
    name = results_lib.variant_name(loss, step.grow, step.improve)
  # Variants of one loss are told apart by the name that the user gave.
  if experiment.variant_name != experiment.improve.loss.name:
    name = f'{name} {experiment.variant_name}'
  return name


def _loss(run, step) -> str:
  if step.is_bc:
    return 'bc'
  experiment = run.experiment
  return (
    experiment.online.name if step.is_online else (experiment.improve.loss.name)
  )


def _seconds(run, step, made) -> results_lib.Seconds:
  improve = made['training']['seconds']
  if step.is_online:
    spent = made['cost']['seconds']
    sample, score = spent['sample'], spent['score']
    return results_lib.Seconds(
      grow=sample, score=score, improve=improve - sample - score
    )
  if step.is_bc:
    return results_lib.Seconds(improve=improve)
  grown = folder_lib.read_manifest(run.grow_directory(step.grow))['seconds']
  return results_lib.Seconds(
    grow=grown['grow'], score=grown['score'], improve=improve
  )
