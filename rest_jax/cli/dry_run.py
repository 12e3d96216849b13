"""`--dry_run`: builds and checks everything that a run needs, and says what."""

from collections.abc import Iterator
import itertools

import jax

from rest_jax import experiment as experiment_lib
from rest_jax import run as run_lib
from rest_jax.cli import checks
from rest_jax.cli import rate as rate_stage
from rest_jax.evaluation import results as results_lib
from rest_jax.models import policy as policy_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import folder as folder_lib

_CONTROLS = {
  results_lib.TRAINED_ON: 'trained on for as many steps as the last policy',
  results_lib.EQUAL_ENTROPY: 'sampled at the temperature of equal entropy',
}


def describe(run: run_lib.Run, run_mode: str) -> str:
  """Checks a run without carrying it out.

  Makes the checks of every start, builds mesh, network and schedules, and looks
  at which stages are finished.

  Args:
    run: the run.
    run_mode: what was asked for.

  Returns:
    The plan, some lines of text.

  Raises:
    ValueError: for settings that cannot work.
    FileNotFoundError: for a file that is not there.
  """
  return '\n'.join(itertools.chain(_lines(run, run_mode)))


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
  found = checks.check(run)
  for split, first in found.first.items():
    kind = type(getattr(task, split)).__name__
    yield f'    {split:10} {kind}: {_short(first.source)}'
  size = run.vocabulary_size
  network = experiment.network.with_vocab(size)
  policy = policy_lib.Policy(network)
  shapes = jax.eval_shape(policy.init, jax.random.key(0))
  yield (
    f'  network   {policy_lib.num_params(shapes):,} parameters, vocabulary '
    f'{size:,}, {network.emb_dim}/{network.mlp_dim}, '
    f'{network.num_encoder_layers}+{network.num_decoder_layers} layers, '
    f'{network.dtype}'
  )
  bc = experiment.bc.trainer
  yield f'  bc        {bc.max_steps} steps of {bc.tokens_per_batch} tokens'
  yield from _reward_lines(experiment, found.num_ratings)
  grow = experiment.grow.decode
  yield (
    f'  grow      G={experiment.num_grow_steps}, '
    f'{grow.num_samples_per_source} samples a source at temperature '
    f'{grow.temperature}'
  )
  improve = experiment.improve
  yield (
    f'  improve   I={experiment.num_improve_steps}, loss {improve.loss.name}, '
    f'filter {improve.filter.kind}'
  )
  for step in run.policies():
    if step.grow:
      value = improve.filter.at(step.improve, step.grow)
      rate = improve.trainer_at(step.improve, 0).optimizer.learning_rate
      yield (
        f'    {step.grow}.{step.improve}       at {value:g}, learning rate '
        f'{rate:g}'
      )
  refresh = experiment.refresh
  if refresh is not None:
    raters = refresh.raters
    by = 'people' if raters is None else type(raters).__name__
    yield f'  refresh   {refresh.choose.size} samples a Grow step, rated by {by}'
  online = experiment.online
  if online is not None:
    samples = online.num_samples or 'as many as a Grow has'
    yield (
      f'  online    {online.name}, samples: {samples}, '
      f'{online.sources_per_iteration} sources an iteration with '
      f'{online.decode.num_samples_per_source} samples each'
    )
  for step in run.controls():
    yield f'  control   BC, {_CONTROLS[step.control]}'
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
  for name, directory in _stages(run):
    finished = (directory / folder_lib.MANIFEST).exists()
    yield f'    {"finished" if finished else "to do":9} {name}: {directory}'


def _reward_lines(
  experiment: experiment_lib.Experiment, num_ratings: int | None
) -> Iterator[str]:
  yield f'  reward    {experiment.reward.name}'
  for part in rewards_base.all_parts(experiment.reward):
    yield f'    {part.name}: {part.check()}'
  if num_ratings is not None:
    yield f'    fitted to {num_ratings:,} ratings'


def _stages(run):
  trained = run.experiment.trained_reward is not None
  for stage in ('data', 'bc', 'reward') if trained else ('data', 'bc'):
    yield stage, run.directory(stage)
  for step in run.policies()[1:]:
    if step.is_online:
      yield 'online', step.directory
      continue
    if step.improve == 1:
      yield f'grow {step.grow}', run.grow_directory(step.grow)
      if run.experiment.needs_value:
        yield f'value {step.grow}', run.value_directory(step.grow)
    yield f'improve {step.grow}.{step.improve}', step.directory
    if run.is_refreshed_after(step):
      yield f'refresh {step.grow}', run.refresh_directory(step.grow)
  if rewards_base.needs_samples(run.experiment.reward):
    for split in run.experiment.evaluate.splits:
      yield f'evidence {split}', run.evidence_directory(split)
  for step in run.controls():
    made = step.temperature_directory or step.directory
    yield made.name.replace('_', ' '), made


def _short(text: str, length: int = 60) -> str:
  return text if len(text) <= length else text[: length - 3] + '...'
