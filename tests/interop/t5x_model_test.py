"""T5X's model with our loss: against ours, and in T5X's own programs."""

import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import sample_store, seqio_tasks
from rest_jax.filters import base as filters_base
from rest_jax.filters import for_all_sources
from rest_jax.interop import t5x_checkpoints
from rest_jax.losses import base as losses_base
from rest_jax.losses import (
  bc,
  dpo,
  gold,
  reward_conditioned,
  reward_weighted_bc,
)
from rest_jax.models import policy as policy_lib
from rest_jax.stages import improve_rows
from tests.data import small_run
from tests.models import tiny

pytest.importorskip(
  't5x', reason='T5X is not installed, see docs/t5x.md', exc_type=ImportError
)
seqio = pytest.importorskip('seqio', reason='SeqIO is not installed')

from t5x import adafactor  # noqa: E402
from t5x.examples.t5 import network as t5x_network  # noqa: E402

from rest_jax.interop import t5x_model  # noqa: E402

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LENGTHS = {'inputs': 16, 'targets': 16}
_SIZES = ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim')
_LAYERS = ('num_encoder_layers', 'num_decoder_layers')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  return folder, small_run.write(folder)


@pytest.fixture(scope='module')
def policy():
  return policy_lib.Policy(tiny.config(vocab_size=30))


@pytest.fixture(scope='module')
def params(policy):
  return tiny.lively(policy.init(jax.random.key(0)))


def _model(run, policy, **settings):
  config = policy.config
  sizes = {name: getattr(config, name) for name in (*_SIZES, *_LAYERS)}
  vocabulary = seqio_tasks.vocabulary(run[0] / 'data')
  return t5x_model.ReSTModel(
    t5x_network.Transformer(
      t5x_network.T5Config(
        **sizes,
        mlp_activations=config.mlp_activations,
        dropout_rate=0.0,
        dtype='float32',
      )
    ),
    vocabulary,
    vocabulary,
    adafactor.Adafactor(),
    **settings,
  )


def _t5x_batch(task, count, split='train'):
  """The first rows of a task, as T5X would feed them."""
  dataset = seqio.get_dataset(
    task,
    task_feature_lengths=_LENGTHS,
    dataset_split=split,
    shuffle=False,
    feature_converter=t5x_model.RowsFeatureConverter(),
    batch_size=count,
  )
  return next(dataset.as_numpy_iterator())


def _our_batch(run, threshold, weight):
  """The rows of an Improve step of ours."""
  store = sample_store.SampleStore.open(run[0] / 'grow_1')
  rows = improve_rows.select(
    improve_rows.Rules(
      row_filter=for_all_sources.Fixed(values=(threshold,)),
      loss=bc.BC(),
      reference_weight=weight,
    ),
    store=store,
    sources=run[1].pairs('train'),
    samples=improve_rows.samples_of(
      store,
      store.rewards('main')[1],
      include_references=True,
      include_unfinished=False,
    ),
  )
  return rows.load(np.arange(len(rows.target_lengths)), 16, 16)


@pytest.mark.parametrize('threshold', [-math.inf, 0.45])
def test_batches_are_those_of_an_improve_step(run, threshold):
  ours = _our_batch(run, threshold, 0.25)
  task = seqio_tasks.register_store(
    f'batches_{abs(threshold)}',
    run[0] / 'grow_1',
    threshold=threshold,
    reference_weight=0.25,
  )
  count = len(ours['rewards'])
  theirs = _t5x_batch(task, count)
  assert theirs.keys() == ours.keys()
  for name, value in ours.items():
    np.testing.assert_array_equal(theirs[name], value, err_msg=name)


_LOSSES = {
  'bc': bc.BC(),
  'smoothed': bc.BC(label_smoothing=0.1, z_loss=1e-3),
  'weighted': reward_weighted_bc.RewardWeightedBC(),
}


@pytest.mark.parametrize('name', _LOSSES)
def test_filtered_loss_and_gradient_are_ours(run, policy, params, name):
  loss = _LOSSES[name]
  task = seqio_tasks.register_store(f'loss_{name}', run[0] / 'grow_1')
  # One threshold for each row, so that F of the model decides.
  batch = _t5x_batch(task, 22)
  batch['thresholds'] = np.full(22, 0.45, np.float32)
  batch['row_weights'] = np.linspace(0.5, 1, 22).astype(np.float32)
  kept = batch['rewards'] > 0.45
  assert 5 < kept.sum() < 20
  batch = {key: jnp.asarray(value) for key, value in batch.items()}
  model = _model(run, policy, loss=loss)

  def ours(params):
    output = loss(
      losses_base.Inputs(
        model=policy,
        params=params,
        batch=filters_base.mask_rows(batch, is_inclusive=False),
      )
    )
    return output.weighted_sum / output.normalizer

  expected, expected_gradient = jax.value_and_grad(ours)(params)
  (value, metrics), gradient = jax.jit(
    jax.value_and_grad(
      lambda params: model.loss_fn(params, batch, None), has_aux=True
    )
  )(params)
  assert float(expected) > 0.1
  np.testing.assert_allclose(value, expected, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    gradient,
    expected_gradient,
  )
  assert float(metrics['kept'].compute()) == pytest.approx(kept.mean())
  # Rows that fail are as if they were not there.
  alone = {key: value[kept] for key, value in batch.items()}
  value, _ = model.loss_fn(params, alone, None)
  np.testing.assert_allclose(value, expected, atol=1e-5)


def test_equal_to_t5x_s_own_loss_where_all_rows_pass(run, policy, params):
  """Its sum over tokens, by the number of tokens."""
  batch = _t5x_batch(seqio_tasks.register_pairs('own_loss', run[0] / 'data'), 6)
  settings = {'label_smoothing': 0.1, 'z_loss': 1e-3}
  model = _model(run, policy, **settings)
  theirs, _ = super(t5x_model.ReSTModel, model).loss_fn(params, batch, None)
  tokens = batch['decoder_loss_weights'].sum()
  value, _ = model.loss_fn(params, batch, None)
  np.testing.assert_allclose(value, theirs / tokens, atol=1e-5)
  summed = _model(run, policy, loss_normalizing_factor=7.0, **settings)
  value, _ = summed.loss_fn(params, batch, None)
  np.testing.assert_allclose(value, theirs / 7, rtol=1e-5)


def test_a_batch_without_a_row_that_passes(run, policy, params):
  task = seqio_tasks.register_store('nothing', run[0] / 'grow_1')
  batch = _t5x_batch(task, 4)
  batch['thresholds'] = np.full(4, 9.0, np.float32)
  model = _model(run, policy)
  (value, _), gradient = jax.value_and_grad(model.loss_fn, has_aux=True)(
    params, batch, None
  )
  assert float(value) == 0.0
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_an_inclusive_filter_keeps_ties(run, policy, params):
  task = seqio_tasks.register_store('ties', run[0] / 'grow_1')
  batch = _t5x_batch(task, 4)
  batch['thresholds'] = np.full(4, 0.5, np.float32)
  assert batch['rewards'][2] == 0.5
  shares = [
    float(
      _model(run, policy, is_inclusive=inclusive)
      .loss_fn(params, batch, None)[1]['kept']
      .compute()
    )
    for inclusive in (False, True)
  ]
  above = (batch['rewards'] > 0.5).mean()
  ties = (batch['rewards'] == 0.5).mean()
  assert shares == pytest.approx([above, above + ties])


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'loss': gold.GoldP()}, 'gold_p needs bc'),
    ({'loss': dpo.DPO()}, 'dpo needs bc'),
    (
      {'loss': reward_conditioned.RewardConditionedBC()},
      'starts the decoder with another token',
    ),
    ({'loss': bc.BC(), 'z_loss': 0.1}, 'label_smoothing and z_loss must be 0'),
    (
      {'loss_normalizing_factor': 'NUM_REAL_TARGET_TOKENS'},
      'loss_normalizing_factor must be a number',
    ),
  ],
)
def test_what_does_not_fit_is_refused(run, policy, settings, message):
  with pytest.raises(ValueError, match=message):
    _model(run, policy, **settings)


def test_packing_is_refused():
  with pytest.raises(ValueError, match='pack must be False'):
    t5x_model.RowsFeatureConverter(pack=True)


# Programs of T5X, each a process of its own.


def _program(name, gin_file, config, **bindings):
  sizes = {
    f'network.T5Config.{name}': getattr(config, name)
    for name in (*_SIZES, *_LAYERS, 'logits_via_embedding')
  }
  given = {**sizes, 'TASK_FEATURE_LENGTHS': _LENGTHS, **bindings}
  done = subprocess.run(
    [
      sys.executable, '-m', f't5x.{name}',
      f'--gin_file=gin_configs/t5x/{gin_file}.gin', '--alsologtostderr',
      *(f'--gin.{key}={value!r}' for key, value in given.items()),
    ],
    cwd=_ROOT, capture_output=True, text=True, check=False, timeout=600,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-4000:]
  return done


@pytest.fixture(scope='module')
def checkpoint(params, tmp_path_factory):
  folder = tmp_path_factory.mktemp('t5x')
  return str(t5x_checkpoints.save_policy(folder, params, step=10))


@pytest.mark.full
def test_an_improve_step_by_t5x_train(
  run, policy, params, checkpoint, tmp_path
):
  folder, _ = run
  _program(
    'train',
    'improve',
    policy.config,
    GROW_DIRECTORY=str(folder / 'grow_1'),
    DATA_DIRECTORY=str(folder / 'data'),
    THRESHOLD=0.45,
    INITIAL_CHECKPOINT_PATH=checkpoint,
    MODEL_DIR=str(tmp_path / 'improved'),
    TRAIN_STEPS=70,
    BATCH_SIZE=8,
    EVAL_STEPS=1,
    EVAL_PERIOD=50,
    DROPOUT_RATE=0.0,
    **{'utils.create_learning_rate_scheduler.base_learning_rate': 0.01},
  )
  _, improved = t5x_checkpoints.load_policy(
    tmp_path / 'improved', policy.config
  )
  batch = filters_base.mask_rows(_our_batch(run, 0.45, 1.0), False)
  before, after = (
    bc.BC()(losses_base.Inputs(model=policy, params=of, batch=batch))
    for of in (params, improved)
  )
  nlls = [
    float(output.weighted_sum / output.normalizer) for output in (before, after)
  ]
  # The filtered loss of all of D_g, measured by ours.
  assert nlls[1] < 0.8 * nlls[0]


@pytest.mark.full
def test_a_grow_by_t5x_infer(run, policy, params, checkpoint, tmp_path):
  folder, data = run
  _program(
    'infer',
    'grow',
    policy.config,
    DATA_DIRECTORY=str(folder / 'data'),
    CHECKPOINT_PATH=checkpoint,
    INFER_OUTPUT_DIR=str(tmp_path / 'samples'),
    NUM_SAMPLES_PER_SOURCE=3,
    **{'utils.DatasetConfig.batch_size': 6},
  )
  (path,) = (tmp_path / 'samples').glob('*.jsonl-00000-of-00001')
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  pairs = data.pairs('train')
  assert len(lines) == len(pairs) == 6
  compared = 0
  for row, line in enumerate(lines):
    assert line['inputs']['inputs_pretokenized'] == pairs.source_text(row)
    tokens = np.asarray(line['prediction_tokens'], np.int32)  # [N, T]
    assert tokens.shape == (3, 16)
    source = np.repeat(np.int32(pairs.source_tokens[row])[None], 3, axis=0)
    batch = {
      'encoder_input_tokens': source,
      'decoder_input_tokens': np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
      'decoder_target_tokens': tokens,
      'decoder_loss_weights': _until_eos(tokens),
    }
    # Their scores are log-probabilities of the untempered policy. T5X draws the
    # padding's id too, which is no token for either.
    is_whole = (tokens != 0).all(axis=1)
    compared += is_whole.sum()
    np.testing.assert_allclose(
      np.asarray(line['aux']['scores'])[is_whole],
      np.asarray(policy.sequence_log_probs(params, batch))[is_whole],
      rtol=1e-4,
    )
  assert compared >= 5
  drawn = {str(line['prediction_tokens']) for line in lines}
  assert len(drawn) > 1


def _until_eos(tokens):
  ended = np.cumsum(tokens == 1, axis=1) - (tokens == 1)
  return (ended == 0).astype(np.float32)
