"""Tests of the value function's stage."""

import dataclasses
import re
import types

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.data import sample_store, special_ids
from rest_jax.parallel import mesh
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import value
from rest_jax.training import loader
from tests import smoke

_GIN = ('gin_configs/losses/oac.gin',)


def _variant(run, folder, *overrides):
  return run_lib.Run(
    smoke.settings(
      *smoke.given(run, 'bc', 'reward', 'data', 'grow_1'),
      *overrides,
      gin_files=_GIN,
    ),
    folder,
  )


def test_every_finished_row_is_trained_on_or_held_out(run):
  config = smoke.settings(gin_files=_GIN).value
  name = run.reward_model.name
  train, heldout = value._rows(
    config, run.folder('grow_1'), name, run.data, special_ids.T5
  )
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  finished = int(np.sum(store.finished))
  sizes = [len(part.target_lengths) for part in (train, heldout)]
  assert sum(sizes) == finished
  # A tenth of 240 sources, all samples of a source on one side.
  assert 0 < sizes[1] < 0.2 * finished


@pytest.mark.parametrize(
  ('init', 'choose_by'), [('reward', 'heldout'), ('policy', 'train')]
)
def test_it_fits_what_it_is_trained_on(run, tmp_path, init, choose_by):
  variant = _variant(
    run,
    tmp_path,
    'VALUE_STEPS=60',
    'VALUE_EVALUATE_EVERY=30',
    f'ValueStage.init={init}',
    f'ValueStage.choose_by={choose_by}',
    *['ValueStage.max_measured_rows=100'] * (choose_by == 'heldout'),
  )
  folder = variant.make('value_1')
  manifest = folder_lib.read_manifest(folder)
  train, heldout = (manifest['agreement'][s] for s in ('train', 'heldout'))
  assert train['rows'] > heldout['rows'] > 0
  # Whole batches until there are as many as are to be measured.
  assert (100 <= train['rows'] < 200) == (choose_by == 'heldout')
  _, rewards = sample_store.SampleStore.open(run.folder('grow_1')).rewards(
    run.reward_model.name
  )
  # Better than the best constant.
  assert train['squared_error'] < np.var(rewards)
  if init == 'reward':
    # The reward model knows what it is asked for; a fresh head has to learn it.
    assert train['last']['spearman'] > 0.2
  assert manifest['training']['best_objective'] == pytest.approx(
    -manifest['agreement'][choose_by]['squared_error'], rel=1e-4
  )


class _Known:
  """V is a tenth of the last token read and a hundredth of the source."""

  config = types.SimpleNamespace(special_ids=special_ids.T5)

  def values(self, params, batch, *, dropout_key=None):
    del params, dropout_key
    return (
      batch['decoder_input_tokens'] / 10.0
      + batch['encoder_input_tokens'] / 100.0
    )


class _Batches(list):
  batches_per_epoch = property(len)


def _batch(sources, targets, rewards):
  return {
    **loader.decoder_batch(np.array(sources), np.array(targets)),
    'rewards': np.array(rewards, np.float32),
  }


def test_agreement_by_hand():
  batches = _Batches(
    [
      _batch([[1], [3]], [[5, 1], [7, 1]], [0.5, 0.6]),
      # The second row only fills the batch.
      _batch([[2], [0]], [[9, 1], [0, 0]], [0.4, 9.0]),
    ]
  )
  found = value._Evaluation(
    _Known(), batches, mesh.MeshConfig(), 1.0
  ).agreement({})
  # V before EOS is (0.51, 0.73, 0.92): one of three pairs as in R.
  assert found['last']['kendall'] == pytest.approx(-1 / 3)
  # V at first is (0.01, 0.03, 0.02): two of three.
  assert found['first']['kendall'] == pytest.approx(1 / 3)
  errors = np.array([0.49, 0.01, 0.57, 0.13, 0.38, 0.52])
  assert found['squared_error'] == pytest.approx(np.mean(errors**2), rel=1e-5)
  assert found['rows'] == 3


@pytest.mark.parametrize(
  ('spearman', 'rows', 'message'),
  [
    (0.5, 100, None),
    # Fisher's interval is 0.05 +- 0.2.
    (0.05, 100, r'Spearman 0\.050 \[-0\.148, 0\.244\] over 100'),
    (-0.4, 100, 'does not rank held-out samples'),
    (1.0, 2, 'on 2 held-out samples, too few for a correlation'),
  ],
)
def test_a_value_function_that_knows_nothing_is_said(spearman, rows, message):
  found = {'rows': rows, 'last': {'kendall': 0.0, 'spearman': spearman}}
  said = value._disagreement(found)
  assert said is None if message is None else re.search(message, said)


@pytest.mark.parametrize('rewards', [[0.5], [1.0, 1.0, 1.0]])
def test_equal_rewards_have_no_order(rewards):
  values = np.arange(len(rewards), dtype=np.float32)
  assert value._ranks(values, np.array(rewards)) == {
    'kendall': 0.0,
    'spearman': 0.0,
  }


def test_measuring_stops_after_enough_rows():
  batches = _Batches([_batch([[1], [3]], [[5, 1], [7, 1]], [0.5, 0.6])] * 3)
  found = value._Evaluation(
    _Known(), batches, mesh.MeshConfig(), 1.0, max_rows=3
  ).agreement({})
  assert found['rows'] == 4


def test_a_loss_without_its_value_function_is_refused(run):
  with pytest.raises(ValueError, match=r'monte_carlo\.gin'):
    dataclasses.replace(smoke.settings(gin_files=_GIN), value=None)


@pytest.mark.parametrize(
  'arguments',
  [
    {'init': 'nothing'},
    {'choose_by': 'both'},
    {'num_heldout_sources': 0},
    {'discount': 2.0},
  ],
)
def test_wrong_settings(arguments):
  trainer = smoke.settings(gin_files=_GIN).value.trainer
  with pytest.raises(ValueError, match=next(iter(arguments))):
    value.ValueStage(trainer=trainer, **arguments)
