"""Results of a run's policies, gathered from finished evaluations."""

import dataclasses
import pathlib
from typing import Any

from rest_jax import rest
from rest_jax.evaluation import metrics, policy_names
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.rating import rating_config, scores
from rest_jax.rating import store as rating_store
from rest_jax.stages import base
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import outputs as outputs_stage

_RATING = 'rating'
# Fields of an entry that are copied from the manifest.
_COPIED = (
  'bleu', 'bleu_signature', 'chrf', 'chrf_signature', 'length_ratio',
  'distinct_samples',
)  # fmt: skip


def ratings_file(run: rest.Layout) -> pathlib.Path:
  """Returns the path of people's ratings from a run's rating page."""
  return run.model_dir / _RATING / rating_store.FILE


def read_people(run: rest.Layout) -> scores.People:
  """Returns a run's ratings by people; no ratings without a file."""
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
  run: rest.Layout, people: scores.People | None = None
) -> dict[str, list[variant_lib.Variant]]:
  """Returns the entries of finished evaluations by split, in policy order.

  Args:
    people: people's ratings, which are `human` if the task has no judge.
  """
  people = people or scores.People(rating_config.SCORES, ())
  variants: dict[str, list[variant_lib.Variant]] = {}
  for split in run.experiment.evaluate.splits:
    bc: dict[str, Any] = {}
    variants[split] = [
      _variant(run, evaluation, bc, people)
      for step in run.reported()
      for evaluation in [run.evaluation(step, split)]
      if evaluation.is_finished
    ]
  return variants


def _variant(
  run: rest.Layout,
  evaluation: evaluate_stage.Evaluate,
  bc: dict[str, Any],
  people: scores.People,
) -> variant_lib.Variant:
  """Returns the entry of one policy on one split; BC comes first.

  Args:
    bc: scores and digest of BC on this split; BC itself adds them.
    people: people's ratings, which are `human` if the task has no judge.
  """
  experiment, step, split = run.experiment, evaluation.policy, evaluation.split
  manifest = evaluation.manifest()
  measured = manifest['measured']
  training_manifest = folder_lib.read_manifest(step.policy_folder)
  outputs = _outputs(step, evaluation.folder, measured, bc)
  if outputs_stage.HUMAN not in measured and people.ratings:
    rated = _rated(step, split, manifest['settings']['policy'], people, bc)
    outputs[outputs_lib.SAMPLES] = dataclasses.replace(
      outputs[outputs_lib.SAMPLES], **rated
    )
  samples = outputs[outputs_lib.SAMPLES]
  searched = outputs[measured['text']]
  decode = manifest['settings']['decode']
  curve = measured['best_of_n']
  row_filter, kept = None, training_manifest.get('kept')
  if step.improve_step:
    row_filter = variant_lib.Filter(
      kind=experiment.improve.filter.kind,
      value=experiment.improve.filter.at(step.improve_step, step.grow_step),
    )
  return variant_lib.Variant(
    name=policy_name(run, step),
    loss=_loss(run, step),
    grow=step.grow_step,
    improve=step.improve_step,
    seed=experiment.seed,
    filter=row_filter,
    split=split,
    control=step.control,
    decode=variant_lib.Decode(
      temperature=decode['temperature'],
      samples_per_source=decode['num_samples_per_source'],
      text=measured['text'],
    ),
    outputs=outputs,
    reward=samples.reward,
    human=samples.human,
    difference_to_bc=samples.difference_to_bc,
    human_difference_to_bc=samples.human_difference_to_bc,
    bleu_difference_to_bc=searched.bleu_difference_to_bc,
    chrf_difference_to_bc=searched.chrf_difference_to_bc,
    **{name: measured[name] for name in _COPIED},
    best_of_n={int(n): entry['mean'] for n, entry in curve.items()},
    best_of_n_stderr={int(n): entry['stderr'] for n, entry in curve.items()},
    best_of_n_human={
      int(n): entry['mean']
      for n, entry in measured.get('best_of_n_human', {}).items()
    },
    diagnostics=_diagnostics(manifest.get('diagnostics')),
    kept=kept
    and variant_lib.Kept(
      **{
        field.name: kept[field.name]
        for field in dataclasses.fields(variant_lib.Kept)
      }
    ),
    seconds=_seconds(run, step, training_manifest),
  )


def _diagnostics(
  measured: dict[str, Any] | None,
) -> variant_lib.Diagnostics | None:
  if measured is None:  # An earlier version made the evaluation.
    return None
  kl_to_bc = metrics.Estimate(**measured['kl_to_bc'])
  return variant_lib.Diagnostics(**{**measured, 'kl_to_bc': kl_to_bc})


def _outputs(step, directory, measured, bc) -> dict[str, outputs_lib.Output]:
  """Returns the measurements by decode; adds BC's own scores to `bc`."""
  scores = outputs_stage.read(directory)
  if step.is_bc:
    bc.update(scores)
  outputs = {}
  for decode, values in measured['outputs'].items():
    fields = dict(values)
    for name in ('reward', outputs_stage.HUMAN):
      if name in fields:
        fields[name] = metrics.Estimate(**fields[name])
    if not step.is_bc and decode in bc:
      fields |= outputs_lib.differences(scores[decode], bc[decode])
    outputs[decode] = outputs_lib.Output(**fields)
  return outputs


def _rated(step, split, policy, people, bc) -> dict[str, Any]:
  """Returns people's ratings of a policy's samples as fields of `Output`."""
  if step.temperature() is not None:
    return {}  # People rated samples at the run's temperature.
  if step.is_bc:
    bc[_RATING] = policy
  is_compared = not step.is_bc and _RATING in bc
  return {
    'human': people.mean(split, policy),
    'human_difference_to_bc': people.difference(split, policy, bc[_RATING])
    if is_compared
    else None,
  }


def policy_name(run: rest.Layout, step: base.PolicyStage) -> str:
  """Returns the name of a run's policy in results."""
  experiment = run.experiment
  if step.is_bc:
    return policy_names.of_step('bc', 0, 0)
  # One file has the policies of several variants.
  loss = experiment.improve.loss.name
  variant = '' if experiment.variant_name == loss else experiment.variant_name
  if step.control:
    beside = variant or ('' if loss == 'bc' else loss.upper())
    return policy_names.of_control(step.control, beside)
  return policy_names.of_step(
    _loss(run, step), step.grow_step, step.improve_step, variant
  )


def _loss(run, step) -> str:
  if step.is_bc or step.control:
    return 'bc'
  experiment = run.experiment
  return (
    experiment.online.name if step.is_online else experiment.improve.loss.name
  )


def _seconds(run, step, training_manifest) -> variant_lib.Seconds:
  improve = training_manifest['training']['seconds']
  if step.is_online:
    spent = training_manifest['cost']['seconds']
    sample, score = spent['sample'], spent['score']
    return variant_lib.Seconds(
      grow=sample, score=score, improve=improve - sample - score
    )
  if not step.grow_step:
    return variant_lib.Seconds(improve=improve)
  [grown] = [
    stage.manifest()['seconds']
    for stage in run.of_kind(grow_stage.Grow)
    if stage.grow_step == step.grow_step
  ]
  return variant_lib.Seconds(
    grow=grown['grow'], score=grown['score'], improve=improve
  )
