"""Tests that planned programs are those of a run, with the shapes it feeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.data import special_ids
from rest_jax.planning import counts, plan, programs, sampling_programs
from rest_jax.rewards import learned
from rest_jax.sampling import blocks
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import improve as improve_stage
from rest_jax.stages import value as value_stage
from rest_jax.training import placement
from rest_jax.training import trainer as trainer_lib
from tests import smoke
from tests.models import tiny

LOSSES = (
  'bc', 'gold_p', 'gold_s', 'oac', 'bvmpo', 'dpo', 'bve',
  'reward_weighted_bc', 'reward_conditioned',
)  # fmt: skip


def _settings(loss='bc', *overrides):
  return smoke.settings(
    *overrides, gin_files=(f'gin_configs/losses/{loss}.gin',)
  )


def _target(experiment):
  return programs.Target(devices=jax.devices()[:1], mesh_config=experiment.mesh)


def _training(experiment, name):
  run = run_lib.Run(experiment, 'no such folder')
  found = plan.trainings(run, plan.policy_of(run))
  return next(each for each in found if each.name == name)


def _step(experiment, name):
  return _training(experiment, name).program(_target(experiment))


def _programs(experiment):
  run = run_lib.Run(experiment, 'no such folder')
  found = plan.programs_of(run, _target(experiment))
  return {program.name: program for program in found}


def _shapes(batch):
  return {
    name: (tuple(array.shape), np.dtype(array.dtype))
    for name, array in batch.items()
  }


@pytest.mark.parametrize('packed', ['()', '(48,)'])
def test_a_batch_of_bc_is_that_of_the_stage(run, packed):
  experiment = _settings('bc', f'PACKED_LENGTHS={packed}')
  batches = experiment.bc.trainer.batches(
    bc_stage.pair_rows(run.data.pairs('train')),
    packable=experiment.bc.loss.packable,
  )
  planned = _training(experiment, 'bc').batch(1)
  assert _shapes(planned) == _shapes(batches[0])


# Only BC packs rows: for the others the setting has no effect.
@pytest.mark.parametrize(
  ('loss', 'packed'), [('bc', '()'), *((loss, '(48,)') for loss in LOSSES)]
)
def test_a_batch_of_improve_is_that_of_the_stage(run, loss, packed):
  experiment = _settings(loss, f'PACKED_LENGTHS={packed}')
  rows = improve_stage.select_rows(
    experiment.improve,
    improve_step=1,
    grow_directory=run.folder('grow_1'),
    reward_name=experiment.reward.name,
    data=run.data,
  )
  batches = experiment.improve.trainer.batches(
    rows, packable=experiment.improve.loss.packable
  )
  planned = _training(experiment, 'improve').batch(1)
  assert _shapes(planned) == _shapes(batches[0])


def test_a_batch_of_the_value_function_is_that_of_the_stage(run):
  experiment = _settings('oac')
  rows, _ = value_stage._rows(
    experiment.value,
    run.folder('grow_1'),
    experiment.reward.name,
    run.data,
    special_ids.T5,
  )
  batches = experiment.value.trainer.batches(rows)
  planned = _training(experiment, 'value').batch(1)
  assert _shapes(planned) == _shapes(batches[0])


# Every kind of state that a loss may have beside the policy.
@pytest.mark.parametrize('loss', ['bc', 'oac', 'bvmpo', 'bve', 'gold_s'])
def test_the_state_is_that_of_a_training(loss):
  experiment = _settings(loss)
  program = _step(experiment, 'improve')
  target = _target(experiment)
  model = _training(experiment, 'improve').model
  config = experiment.improve
  real = placement.sharded_state(
    model,
    config.loss,
    config.trainer.optimizer,
    tiny.init(model),
    _given(config.loss, model),
    experiment.mesh,
    target.mesh,
  )
  described, planned = (
    jax.tree.map(
      lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding.spec), placed
    )
    for placed in (real, (program.arguments[0], program.arguments[-1]))
  )
  assert planned == described


def _given(loss, model):
  models = programs.other_models(model)
  return {
    name: trainer_lib.Given(models[name], models[name].init(jax.random.key(1)))
    for name in loss.needs
  }


def test_the_step_is_the_trainer_s_own():
  experiment = _settings()
  config = experiment.improve
  model = _training(experiment, 'improve').model
  step = trainer_lib.step_of(
    config.trainer, model, config.loss, experiment.mesh
  )
  # The trainer keeps its steps: the same settings give the same function.
  assert _step(experiment, 'improve').function is step


def test_bc_and_improve_steps_share_a_program():
  experiment = _settings('bc', 'LABEL_SMOOTHING=0.0')
  of_bc, of_improve = (_step(experiment, name) for name in ('bc', 'improve'))
  assert of_bc.function is of_improve.function
  shapes = [
    jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), program.arguments)
    for program in (of_bc, of_improve)
  ]
  assert shapes[0] == shapes[1]


def test_the_programs_of_an_experiment_in_the_order_of_a_run():
  assert list(_programs(_settings('oac'))) == [
    'bc',
    'reward pre-training',
    'reward ratings',
    'value',
    'improve',
    'scorer sources',
    'scorer candidates',
    sampling_programs.BLOCK,
    sampling_programs.STEP,
  ]


def test_a_block_is_the_sampler_s_own():
  experiment = _settings()
  block = _programs(experiment)[sampling_programs.BLOCK]
  tokens, words, ids, active, first = block.arguments[-1]
  assert first is None
  config = experiment.grow.decode
  rows = config.block_sources
  assert tokens.shape == (rows, config.source_length_buckets[-1])
  assert (words.shape, words.dtype) == ((rows, 2), jnp.uint32)
  assert (ids.shape, ids.dtype) == ((config.block_samples,), jnp.uint32)
  assert active.shape == (rows, config.block_samples)
  assert hasattr(block.function, 'lower')
  assert isinstance(block.arguments[-1], blocks.BlockInputs)


def _kind(leaf):
  return np.ndim(leaf), str(getattr(leaf, 'dtype', type(leaf)))


def test_the_scorer_takes_what_is_planned(monkeypatch, run):
  seen = {}

  def watched(name, function):
    def call(*arguments):
      # The first is the model.
      seen.setdefault(name, arguments[1:])
      return function(*arguments)

    return call

  for name in ('encode', 'rewards_of'):
    function = getattr(learned, name)
    monkeypatch.setattr(learned, name, watched(name, function))
  long = 'word ' * 60
  run.reward_model.score([long] * 4, [f'{long}{i}' for i in range(4)])
  planned = _programs(run.experiment)
  for name, program in (
    ('encode', 'scorer sources'),
    ('rewards_of', 'scorer candidates'),
  ):
    given, expected = (
      jax.tree.map(_kind, each)
      for each in (seen[name], planned[program].arguments)
    )
    assert str(given) == str(expected)


def test_another_size_changes_the_batch_and_nothing_else():
  program = _step(_settings(), 'bc')
  length = program.arguments[1]['encoder_input_tokens'].shape[1]
  twice = program.resized(2 * program.size)
  assert twice.size == 2 * program.size
  assert twice.items == 2 * program.items
  assert twice.arguments[1]['encoder_input_tokens'].shape == (
    2 * program.items,
    length,
  )
  assert twice.arguments[0] == program.arguments[0]


def test_nothing_is_allocated_for_a_network_of_billions():
  experiment = smoke.settings(gin_files=('gin_configs/models/mt5_xxl.gin',))
  program = _step(experiment, 'bc')
  assert programs.tree_bytes(program.arguments[0]) > 100e9
  leaves = jax.tree.leaves(program.arguments)
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def test_an_accumulated_step_has_as_many_products():
  one = _step(_settings('bc', 'TOKENS_PER_BATCH=384'), 'bc')
  experiment = _settings('bc', 'TOKENS_PER_BATCH=384')
  trainer = dataclasses.replace(experiment.bc.trainer, accumulation_steps=4)
  experiment = dataclasses.replace(
    experiment, bc=dataclasses.replace(experiment.bc, trainer=trainer)
  )
  four = _step(experiment, 'bc')
  flops = [counts.product_flops(each.trace().jaxpr) for each in (one, four)]
  biases = flops[1] - flops[0]
  # Position biases are made once for each micro-batch.
  assert 0 <= biases < 0.1 * flops[0]
  once = counts.product_flops(four.trace().jaxpr, loops_once=True)
  assert once == pytest.approx(flops[1] / 4)
