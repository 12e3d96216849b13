"""`--dry_run`: builds and checks everything that a run needs."""

from collections.abc import Iterator

import jax

from rest_jax import experiment as experiment_lib
from rest_jax import experiment_run as run_lib
from rest_jax.cli import checks, size_checks
from rest_jax.cli import rate as rate_stage
from rest_jax.models import policy as policy_lib
from rest_jax.planning import run_time
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import folder as folder_lib


def describe(run: run_lib.Run, run_mode: str) -> str:
  """Checks a run without executing it; returns the plan.

  Makes the checks of every start, and builds mesh, network and schedules.

  Raises:
    ValueError: if settings cannot work, or differ from those of a finished
      stage.
  """
  return '\n'.join(_lines(run, run_mode))


def _lines(run: run_lib.Run, run_mode: str) -> Iterator[str]:
  experiment = run.experiment
  task = experiment.task
  yield f'plan of --run_mode={run_mode} in {run.model_dir}'
  mesh = experiment.mesh.build()
  yield (
    f'  devices   {mesh.size} x {jax.devices()[0].device_kind}, '
    + ' '.join(f'{name}={size}' for name, size in mesh.shape.items())
  )
  yield f'  task      {task.name}'
  checked = checks.check(run)
  if not run.context.is_prepared:
    size_checks.check_vocabulary(experiment)
  _check_finished(run, run_mode)
  for split, first in checked.first.items():
    kind = type(task.splits[split]).__name__
    yield f'    {split:10} {kind}: {_short(first.source)}'
  size = run.context.vocabulary_size
  network = experiment.network.with_vocab(size)
  policy = policy_lib.Policy(network)
  shapes = jax.eval_shape(policy.init, jax.random.key(0))
  yield (
    f'  network   {policy_lib.num_params(shapes):,} parameters, vocabulary '
    f'{size:,}, {network.emb_dim}/{network.mlp_dim}, '
    f'{network.num_encoder_layers}+{network.num_decoder_layers} layers, '
    f'{network.dtype}'
  )
  yield from dict.fromkeys(_adapter_lines(run, policy))
  yield from _reward_lines(experiment, checked.num_ratings)
  # Equal lines of several stages appear once.
  yield from dict.fromkeys(line for s in run.stages for line in s.lines())
  if run_mode == 'rate':
    yield from rate_stage.describe(run)
  if run_mode == 'sample':
    sample = experiment.sample
    yield (
      f'  sample    best of {sample.decode.num_samples_per_source} by '
      f'{sample.choose}, at '
      f'temperature {sample.decode.temperature}, as {sample.output}'
    )
  yield '  stages'
  for stage in run.stages:
    if not stage.is_extra:
      state = 'finished' if stage.is_finished else 'to do'
      yield f'    {state:9} {stage.title}: {stage.folder}'
  if run_mode == 'rest':
    yield from run_time.estimate(run, policy).lines()


def _check_finished(run: run_lib.Run, run_mode: str) -> None:
  """Raises SettingsChangedError if the mode would refuse a finished stage."""
  for stage in run.stages:
    is_asked = stage.run_mode == run_mode or (
      run_mode == 'rest' and not stage.is_extra
    )
    is_fed = all(needed.is_finished for needed in stage.inputs.values())
    if not (is_asked and is_fed and stage.is_finished) or stage.is_given:
      continue
    if not run.context.overwrite:
      settings = stage.settings(run.context)
      folder_lib.check(stage.folder, settings, stage.origins(settings))


def _adapter_lines(
  run: run_lib.Run, policy: policy_lib.Policy
) -> Iterator[str]:
  """Yields the number of trained parameters of trainings with LoRA."""
  for stage in run.stages:
    for each in () if stage.is_given else stage.trainings(policy):
      if each.trainer.lora is not None:
        yield (
          f'    LoRA in {each.name}: {each.trained.num_params:,} parameters '
          f'are trained ({each.trainer.lora.words})'
        )


def _reward_lines(
  experiment: experiment_lib.Experiment, num_ratings: int | None
) -> Iterator[str]:
  yield f'  reward    {experiment.reward.name}'
  for part in rewards_base.all_parts(experiment.reward):
    yield f'    {part.name}: {part.check()}'
  if num_ratings is not None:
    yield f'    fitted to {num_ratings:,} ratings'


def _short(text: str, length: int = 60) -> str:
  return text if len(text) <= length else text[: length - 3] + '...'
