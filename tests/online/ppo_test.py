"""Tests of online training: learning, its budget, resuming, faults."""

import json

import numpy as np
import pytest

from rest_jax.online import objective, ppo
from rest_jax.online import ppo_config as config_lib
from rest_jax.runtime import interruption
from rest_jax.training import checkpoints, digests, journal, trainer
from tests.models import tiny
from tests.online import toy
from tests.training import toy as training_toy

_TIMED = ('seconds', 'peak_rss_mb')


def counted(result):
  """All of a result that a cut must not change."""
  training = {
    name: value
    for name, value in result['training'].items()
    if name not in _TIMED
  }
  cost = {
    name: value for name, value in result['cost'].items() if name not in _TIMED
  }
  return training, cost


@pytest.mark.parametrize(
  'settings',
  [
    toy.config(evaluate_every=30),
    toy.config(
      evaluate_every=30,
      epochs=1,
      loss=objective.ClippedObjective(clip=None),
    ),
  ],
  ids=lambda settings: settings.name,
)
def test_learns_what_is_rewarded(tmp_path, settings):
  result = toy.train(tmp_path, settings, num_samples=30 * 32)
  lines = journal.read_metrics(tmp_path)
  first, *_, last = (line for line in lines if line['split'] == 'validation')
  assert first['step'] == 0 and last['step'] == 30
  assert first['reward'] < 0.15
  assert last['reward'] > first['reward'] + 0.15
  assert result['training']['evaluation']['reward'] == last['reward']
  assert result['training']['best_iteration'] == 30
  # Nothing is rewarded before the end of a text.
  assert lines[1]['kl_token'] == 0.0
  assert lines[-2]['kl_sequence'] > 0.1


def test_a_penalty_keeps_it_near_bc(tmp_path):
  def moved(name, kl_coefficient):
    settings = toy.config(kl_coefficient=kl_coefficient, evaluate_every=9)
    toy.train(tmp_path / name, settings, num_samples=9 * 32)
    lines = journal.read_metrics(tmp_path / name)
    return [line for line in lines if line['split'] == 'train'][-1]

  free, held = moved('free', 0.0), moved('held', 1.0)
  assert held['kl_sequence'] < 0.5 * free['kl_sequence']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A training that nothing cuts off, and its folder."""
  folder = tmp_path_factory.mktemp('whole')
  return toy.train(folder), folder


@pytest.mark.parametrize('cut', [0, 2, 4])
def test_a_training_cut_off_at_an_evaluation_ends_the_same(
  whole, tmp_path, cut
):
  result, folder = whole
  with pytest.raises(KeyboardInterrupt):
    toy.train(tmp_path, cut=cut)
  resumed = toy.train(tmp_path)
  assert counted(result) == counted(resumed)
  assert journal.read_metrics(folder) == journal.read_metrics(tmp_path)
  for place in (folder, tmp_path):
    assert (place / ppo.HASHES_FILE).stat().st_size == 128 * 8
  # Once more changes nothing.
  assert counted(toy.train(tmp_path)) == counted(result)


def test_an_evaluation_that_a_signal_stops_is_made_again(whole, tmp_path):
  result, folder = whole
  with pytest.raises(interruption.Interrupted):
    toy.train(tmp_path, cut=2, cut_by=interruption.Interrupted(15))
  # What was trained is kept: two iterations of six updates.
  store = checkpoints.Checkpoints(tmp_path, read_only=True)
  assert store.latest_step == 12
  store.close()
  assert counted(toy.train(tmp_path)) == counted(result)
  assert journal.read_metrics(folder) == journal.read_metrics(tmp_path)


def test_a_training_cut_off_within_an_iteration_ends_the_same(whole, tmp_path):
  result, folder = whole
  # Iterations 1 and 2 are saved, the fourth fails after it has sampled.
  with pytest.raises(KeyboardInterrupt):
    toy.train(tmp_path, reward=toy.Wanted(fail_at=4))
  hashes = tmp_path / ppo.HASHES_FILE
  assert hashes.stat().st_size == 128 * 8
  assert counted(toy.train(tmp_path)) == counted(result)
  assert hashes.read_bytes() == (folder / ppo.HASHES_FILE).read_bytes()


def test_the_budget_is_kept_and_counted(tmp_path):
  # 17 sources of 4 samples: two iterations of 8 sources and one of 1.
  settings = toy.config(evaluate_every=1)
  result = toy.train(tmp_path, settings, num_samples=70)
  cost = result['cost']
  assert result['training']['iterations'] == 3
  assert cost['samples'] == 68
  assert 0 < cost['distinct_samples'] <= 68
  assert cost['trained_target_tokens'] == 3 * cost['sampled_tokens']
  assert cost['trained_source_tokens'] == 3 * cost['paired_source_tokens']
  assert cost['paired_source_tokens'] == 4 * cost['source_tokens']
  # 32 rows in batches of 16, three times; then 4 rows in one.
  assert cost['optimizer_steps'] == result['training']['steps'] == 2 * 6 + 3
  assert set(cost['seconds']) == {
    'sample', 'score', 'train', 'evaluate', 'total',
  }  # fmt: skip
  lines = journal.read_metrics(tmp_path)
  lengths = [line['length'] for line in lines if line['split'] == 'train']
  assert cost['sampled_tokens'] == pytest.approx(
    32 * lengths[0] + 32 * lengths[1] + 4 * lengths[2]
  )
  evaluated = [line for line in lines if line['split'] == 'validation']
  assert [line['samples'] for line in evaluated] == [0, 32, 64, 68]
  assert evaluated[-1]['distinct_samples'] == cost['distinct_samples']
  json.dumps(result, allow_nan=False)


def test_updates_divide_by_the_mean_tokens_of_a_batch(tmp_path, monkeypatch):
  original, seen = trainer.jitted_step, []

  def recording(*arguments):
    step = original(*arguments)

    def one(*given):
      state, metrics = step(*given)
      seen.append((float(given[4]), float(metrics['normalizer'])))
      return state, metrics

    return one

  monkeypatch.setattr(trainer, 'jitted_step', recording)
  toy.train(tmp_path, toy.config(epochs=2), num_samples=32)
  # 32 rows in two batches of 16, twice.
  expected, counted = np.transpose(seen)
  np.testing.assert_allclose(expected, counted.mean(), rtol=1e-6)
  assert len(seen) == 4 and counted[0] != counted[1]


def test_the_best_checkpoint_is_kept(tmp_path):
  settings = toy.config(evaluate_every=1)
  chosen = {0: 1.0, 1: 9.0, 2: 3.0, 3: 9.0, 4: 2.0}
  result = toy.train(tmp_path / 'long', settings, objectives=chosen)
  # Of the two best the newer, after 3 iterations of 6 updates.
  assert result['training']['best_iteration'] == 3
  assert result['training']['best_step'] == 18
  assert result['training']['best_objective'] == 9.0
  kept = sorted(
    int(path.name)
    for path in (tmp_path / 'long' / 'checkpoints').iterdir()
    if path.name.isdigit()
  )
  assert kept == [18, 24]
  short = toy.train(tmp_path / 'short', settings, num_samples=3 * 32)
  assert short['training']['steps'] == 18
  store = checkpoints.Checkpoints(tmp_path / 'short', read_only=True)
  params = tiny.init(training_toy.make_policy())
  last = digests.digest(store.restore_params(18, params))
  store.close()
  assert result['training']['params_digest'] == last


def test_a_reward_that_is_not_finite_stops_it(tmp_path):
  class Broken(toy.Wanted):
    def score(self, sources, hypotheses, references=None):
      return np.full(len(sources), np.nan, np.float32)

  with pytest.raises(FloatingPointError, match='iteration 1'):
    toy.train(tmp_path, reward=Broken())


@pytest.mark.parametrize(
  'arguments',
  [
    {'epochs': 0},
    {'evaluate_every': 0},
    {'discount': 1.5},
    {'gae_lambda': -0.1},
    {'kl_coefficient': -1.0},
    {'value_learning_rate_factor': 0.0},
    {'buckets': (4,)},
    {'buckets': 16},
    {'buckets': ()},
  ],
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    toy.config(**arguments)


def test_too_few_samples_for_one_source():
  assert toy.config().num_draws(11) == 2
  with pytest.raises(ValueError, match='num_samples'):
    toy.config().num_draws(3)


def test_it_is_a2c_with_one_epoch_and_no_clipping():
  plain = objective.ClippedObjective(clip=None)
  assert toy.config().name == 'ppo'
  assert toy.config(epochs=1).name == 'ppo'
  assert toy.config(loss=plain).name == 'ppo'
  assert toy.config(epochs=1, loss=plain).name == 'a2c'
  assert config_lib.PPOConfig is ppo.PPOConfig
