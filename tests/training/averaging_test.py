"""Tests of averages of checkpoints: which, of what, and when they are used."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import (
  averaging,
  checkpoints,
  digests,
  lora,
  optimizers,
  trainer,
)
from tests.models import tiny
from tests.training import toy

MESH = mesh_lib.MeshConfig()
TOKENS = toy.make_tokens()
EVALUATED = [(4, 1.0), (8, 5.0), (12, 3.0), (16, 3.0), (20, 2.0)]


class Cut(Exception):
  """Stands for a killed process."""


def test_a_mean_by_hand():
  trees = [
    {'a': jnp.array([1.0, 2.0]), 'b': {'c': jnp.array([[6.0]])}},
    {'a': jnp.array([3.0, 2.0]), 'b': {'c': jnp.array([[0.0]])}},
    {'a': jnp.array([2.0, 5.0]), 'b': {'c': jnp.array([[3.0]])}},
  ]
  found = averaging.mean(iter(trees))
  assert found['a'].tolist() == [2.0, 3.0]
  assert found['b']['c'].tolist() == [[3.0]]


@pytest.mark.parametrize(
  ('choose', 'expected'), [('last', [12, 16, 20]), ('best', [8, 12, 16])]
)
def test_the_last_or_the_best_are_chosen(choose, expected):
  config = averaging.AverageConfig(count=3, choose=choose)
  assert [step for step, _ in config.chosen(EVALUATED)] == expected
  # One by one, as a training has them.
  kept = []
  for pair in EVALUATED:
    kept = config.chosen([*kept, pair])
  assert [step for step, _ in kept] == expected


def test_of_equal_checkpoints_the_newer_are_chosen():
  config = averaging.AverageConfig(count=2, choose='best')
  assert config.chosen([(4, 1.0), (8, 1.0), (12, 1.0)]) == [(8, 1.0), (12, 1.0)]


@pytest.mark.parametrize('settings', [{'count': 1}, {'choose': 'first'}])
def test_wrong_settings_are_refused(settings):
  with pytest.raises(ValueError, match=next(iter(settings))):
    averaging.AverageConfig(**settings)


class Evaluation:
  """Given objectives by step; the second evaluation of a step is of the mean."""

  def __init__(self, of_mean, *, by_step=None, cut_at=None):
    self.of_mean, self.by_step, self.cut_at = of_mean, by_step or {}, cut_at
    self.seen, self.mean = {}, None

  def __call__(self, params, step):
    if step == self.cut_at:
      raise Cut
    if step in self.seen:
      self.mean = jax.device_get(params)
      return {'objective': float(self.of_mean)}
    # The next step donates them.
    self.seen[step] = jax.device_get(params)
    return {'objective': float(self.by_step.get(step, step))}


def train(folder, evaluate_fn, average=None, **settings):
  config = toy.make_config(
    average=average or averaging.AverageConfig(count=2), **settings
  )
  return toy.train(folder, config, evaluate_fn=evaluate_fn)


def saved(folder) -> set[str]:
  steps = pathlib.Path(folder, trainer.TRAINING, 'checkpoints').iterdir()
  return {path.name for path in steps if path.name.isdigit()}


def assert_equal(tree, expected):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-7),
    tree,
    expected,
  )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A training whose mean of steps 8 and 12 is best, and its folder."""
  folder = tmp_path_factory.mktemp('whole')
  evaluation = Evaluation(of_mean=99.0)
  return train(folder, evaluation), folder, evaluation


def test_a_better_mean_becomes_the_policy(whole):
  result, folder, evaluation = whole
  expected = averaging.mean(evaluation.seen[step] for step in (8, 12))
  assert_equal(result.params, expected)
  assert digests.digest(result.params) == digests.digest(evaluation.mean)
  summary = result.summary
  assert summary['averaged_steps'] == [8, 12]
  assert (summary['best_step'], summary['best_objective']) == (12, 99.0)
  assert summary['evaluation'] == {'objective': 99.0}
  found = checkpoints.load_params(folder, 12, tiny.init(toy.make_policy()))
  assert digests.digest(found) == summary['params_digest']
  assert saved(folder) == {'8', '12'}


def test_a_worse_mean_is_not_used(tmp_path):
  evaluation = Evaluation(of_mean=98.0, by_step={4: 99.0})
  result = train(tmp_path, evaluation)
  assert result.summary['averaged_steps'] == []
  assert result.summary['best_step'] == 4
  assert_equal(result.params, evaluation.seen[4])
  found = checkpoints.load_params(tmp_path, 4, tiny.init(toy.make_policy()))
  assert_equal(found, result.params)
  # The best one beside those that were averaged.
  assert saved(tmp_path) == {'4', '8', '12'}


def test_the_best_may_be_averaged(tmp_path):
  evaluation = Evaluation(of_mean=99.0, by_step={4: 9.0, 8: 1.0, 12: 3.0})
  config = averaging.AverageConfig(count=2, choose='best')
  result = train(tmp_path, evaluation, config)
  assert result.summary['averaged_steps'] == [4, 12]
  expected = averaging.mean(evaluation.seen[step] for step in (4, 12))
  assert_equal(result.params, expected)


@pytest.mark.parametrize('cut_at', [8, 12])
def test_an_interrupted_training_averages_the_same(whole, tmp_path, cut_at):
  with pytest.raises(Cut):
    train(tmp_path, Evaluation(of_mean=99.0, cut_at=cut_at))
  result = train(tmp_path, Evaluation(of_mean=99.0))
  assert digests.digest(result.params) == digests.digest(whole[0].params)
  assert result.summary['averaged_steps'] == [8, 12]


def test_one_checkpoint_is_not_averaged(tmp_path):
  evaluation = Evaluation(of_mean=99.0)
  result = train(tmp_path, evaluation, max_steps=4)
  assert result.summary['averaged_steps'] == []
  assert evaluation.mean is None


def test_merged_adapters_are_averaged(tmp_path):
  evaluation = Evaluation(of_mean=99.0)
  result = train(
    tmp_path,
    evaluation,
    lora=lora.LoraConfig(rank=2),
    optimizer=optimizers.OptimizerConfig(
      learning_rate=1e-2, parameter_scale=False
    ),
  )
  expected = averaging.mean(evaluation.seen[step] for step in (8, 12))
  assert_equal(result.params, expected)


def test_nothing_is_kept_where_it_is_off(tmp_path):
  result = toy.train(tmp_path, evaluate_fn=Evaluation(of_mean=99.0))
  assert 'averaged_steps' not in result.summary
  names = [path.name for path in (tmp_path / 'checkpoints').iterdir()]
  assert names == ['12'] and not (tmp_path / trainer.TRAINING).exists()
