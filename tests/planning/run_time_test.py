"""Tests of the estimate of a run's time, with rates that are given."""

import json

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.models import policy as policy_lib
from rest_jax.planning import hours, run_time
from rest_jax.stages import folder as folder_lib
from tests import smoke

# Of smoke.gin: D 32, width of heads 32, MLP 64 gated, one layer each, V 720.
ENCODER = 4 * 32 * 32 + 3 * 32 * 64
DECODER = 8 * 32 * 32 + 3 * 32 * 64 + 32 * 720
# Two Improve steps after each of two Grow steps, with chrF as the reward.
SETTINGS = (
  'Experiment.reward=@Chrf()',
  'Experiment.refresh=None',
  'TOKENS_PER_BATCH=960',
  'MAX_GROW_SOURCES=100',
)


@pytest.fixture
def run(tmp_path, monkeypatch):
  monkeypatch.setattr(
    run_time, 'products_per_second', lambda dtype: 1e9 / hours.ASSUMED_SHARE
  )
  return run_lib.Run(smoke.settings(*SETTINGS), tmp_path)


def estimate(run):
  policy = policy_lib.Policy(run.experiment.network)
  return run_time.estimate(run, policy)


def training_flops(steps):
  return 6 * (ENCODER + DECODER) * 960 * steps


def test_training_by_hand(run):
  found = estimate(run).seconds[run_time.TRAINING]
  assert found == pytest.approx(training_flops(30 + 4 * 8) / 1e9)


def test_sampling_by_hand(run):
  # Half of 48 tokens. D_1 and D_2; three evaluations of 20 sources with two
  # samples in each Improve step; and 5 policies on two splits of 40 sources,
  # with two samples and greedy.
  samples = 2 * 100 * 4 + 4 * 3 * 20 * 2 + 5 * 2 * 40 * (2 + 1)
  found = estimate(run).seconds[run_time.SAMPLING]
  assert found == pytest.approx(2 * DECODER * 24 * samples / 1e9)


def test_finished_stages_give_the_rate_and_cost_nothing(run):
  bc = run.stage('bc')
  bc.folder.mkdir()
  manifest = {
    'training': {'steps': 30, 'seconds': 14.0, 'evaluation_seconds': 4.0},
    'stage_seconds': 16.0,
    # A quarter of its time was compiling, so 7.5 seconds were training.
    'spent_seconds': {'tracing': 1.0, 'compiling': 3.0},
  }
  (bc.folder / folder_lib.MANIFEST).write_text(json.dumps(manifest))
  found = estimate(run)
  assert found.seconds[run_time.TRAINING] == pytest.approx(32 * 7.5 / 30)
  text = '\n'.join(found.lines())
  assert 'speed as in the finished stages' in text
  assert 'sampling at 40% of the measured speed' in text


def test_assumptions_are_listed(run):
  text = '\n'.join(estimate(run).lines())
  assert text.startswith('  time      about ')
  assert 'outputs of 24 tokens, half of the maximum' in text
  assert 'training and sampling at 40% of the measured speed' in text
  assert 'excluded: data preparation, compilation' in text


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [(12.4, '12 s'), (600.0, '10 min'), (2 * 3600.0, '2.0 h')],
)
def test_a_time_has_no_more_digits_than_are_known(seconds, words):
  found = run_time.Estimate({'training': seconds}, ())
  [line] = found.lines()
  assert line.endswith(f'training {words}')


def test_products_have_a_speed():
  # No machine multiplies slower than 10 MFLOP/s.
  assert run_time.products_per_second('float32') > 1e7
