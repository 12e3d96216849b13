"""Tests of the trainer: learning, choosing, stopping, resuming, faults."""

import dataclasses
import json
import logging
import os
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import bc, gold
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.runtime import interruption
from rest_jax.training import (
  checkpoints,
  digests,
  journal,
  optimizers,
  trainer,
  validation_nll,
)
from rest_jax.training import step as step_lib
from tests.models import tiny
from tests.training import toy

MESH = mesh_lib.MeshConfig()
TOKENS = toy.make_tokens()


class Cut(Exception):
  """Stands for a killed process."""


def objectives(by_step, cut_at=None):
  """An evaluation that returns given numbers, rising steps by default."""

  def evaluate(params, step):
    if step == cut_at:
      raise Cut
    return {'objective': float(by_step.get(step, step))}

  return evaluate


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A training that nothing cuts off, and its folder."""
  folder = tmp_path_factory.mktemp('whole')
  return toy.train(folder), folder


def trained_digest(result):
  return result.summary['params_digest']


def test_learns_to_copy(tmp_path):
  config = toy.make_config(max_steps=60, evaluate_every=30)
  policy = toy.make_policy()
  evaluate = validation_nll.evaluation(
    policy, config.batches(toy.make_rows(TOKENS)), MESH
  )
  result = toy.train(tmp_path, config, evaluate_fn=evaluate)
  lines = journal.read_metrics(tmp_path)
  first = next(line for line in lines if line['split'] == 'train')
  assert result.summary['evaluation']['nll'] < first['nll'] - 0.3
  assert result.summary['best_step'] == 60
  # 40 rows of 6 and 6 tokens in batches of 8 x 8.
  assert result.summary['real_token_share'] == pytest.approx(0.75)


@pytest.mark.parametrize(
  'packed_lengths, packable, shape',
  [((16,), True, (4, 16)), ((16,), False, (8, 8)), ((), True, (8, 8))],
)
def test_pairs_share_rows_where_asked_and_allowed(
  packed_lengths, packable, shape
):
  config = toy.make_config(packed_lengths=packed_lengths)
  batches = config.batches(toy.make_rows(TOKENS), packable=packable)
  batch = batches[0]
  assert batch['decoder_target_tokens'].shape == shape
  # Two pairs of 6 tokens a row of 16, or one a row.
  pairs = (batch['decoder_target_tokens'] == 1).sum(1)
  assert set(pairs) == {2 if shape == (4, 16) else 1}
  assert ('decoder_segment_ids' in batch) == (shape == (4, 16))


@pytest.mark.parametrize('cut_at', [4, 8, 12])
def test_a_training_cut_off_anywhere_ends_the_same(whole, tmp_path, cut_at):
  with pytest.raises(Cut):
    toy.train(tmp_path, evaluate_fn=objectives({}, cut_at=cut_at))
  _assert_resumes_to(whole, tmp_path, [])


def _send_sigterm():
  os.kill(os.getpid(), signal.SIGTERM)


# With a line of metrics every 2 steps and an evaluation every 4.
@pytest.mark.parametrize('step', [1, 5, 6, 8, 12])
def test_a_signal_saves_the_step_at_hand(whole, tmp_path, monkeypatch, step):
  advance = journal.Journal.advance

  def send(self, at):
    advance(self, at)
    if at == step:
      _send_sigterm()

  with monkeypatch.context() as patched:
    patched.setattr(journal.Journal, 'advance', send)
    with interruption.handled(), pytest.raises(interruption.Interrupted):
      toy.train(tmp_path)
  saved = checkpoints.Checkpoints(tmp_path, read_only=True)
  assert saved.latest_step == step
  saved.close()
  first = []
  _assert_resumes_to(whole, tmp_path, first)
  # Nothing is trained or evaluated twice.
  assert min(first, default=99) > step - (step % 4 == 0)


@pytest.mark.parametrize(('step', 'times'), [(4, 1), (8, 2), (12, 1)])
def test_a_signal_stops_an_evaluation_which_is_made_again(
  whole, tmp_path, step, times
):
  def evaluate(params, at):
    if at == step:
      _send_sigterm()
    return {'objective': float(at)}

  for _ in range(times):
    with interruption.handled(), pytest.raises(interruption.Interrupted):
      toy.train(tmp_path, evaluate_fn=evaluate)
  evaluated = []
  _assert_resumes_to(whole, tmp_path, evaluated)
  assert evaluated[0] == step


def _assert_resumes_to(whole, folder, evaluated):
  def evaluate(params, step):
    evaluated.append(step)
    return {'objective': float(step)}

  result, whole_folder = whole
  resumed = toy.train(folder, evaluate_fn=evaluate)
  assert trained_digest(result) == trained_digest(resumed)
  timed = (
    'seconds', 'evaluation_seconds', 'target_tokens_per_second',
    'seconds_by_part',
  )  # fmt: skip
  for name, value in result.summary.items():
    assert name in timed or resumed.summary[name] == value, name
  assert journal.read_metrics(whole_folder) == journal.read_metrics(folder)


def test_a_loss_with_auxiliary_state_resumes_too(tmp_path):
  def everything(directory, cut_at=None):
    config = toy.make_config(max_steps=8)
    rows = toy.make_rows(TOKENS)

    def load_pairs(chosen, source_length, target_length):
      both = np.stack([chosen, (chosen + 1) % len(TOKENS)], axis=1).reshape(-1)
      batch = rows.load(both, source_length, target_length)
      batch['encoder_input_tokens'] = batch['encoder_input_tokens'][::2]
      batch['rewards'] = (both / 40).astype(np.float32)
      batch['sample_log_probs'] = np.zeros(len(both), np.float32)
      return batch

    pairs = dataclasses.replace(rows, load=load_pairs)
    return toy.train(
      directory,
      config,
      loss=toy.EverythingLoss(),
      batches=config.batches(pairs),
      evaluate_fn=objectives({}, cut_at),
    )

  whole = everything(tmp_path / 'whole')
  with pytest.raises(Cut):
    everything(tmp_path / 'cut', cut_at=8)
  assert trained_digest(whole) == trained_digest(everything(tmp_path / 'cut'))


def test_the_best_checkpoint_is_kept_beside_the_latest(tmp_path):
  result = toy.train(
    tmp_path, evaluate_fn=objectives({4: 9.0, 8: 1.0, 12: 2.0})
  )
  assert result.summary['best_step'] == 4
  kept = sorted(
    int(path.name)
    for path in (tmp_path / 'checkpoints').iterdir()
    if path.name.isdigit()
  )
  assert kept == [4, 12]
  # What is returned is the best one's.
  early = toy.train(tmp_path / 'early', toy.make_config(max_steps=4))
  assert trained_digest(result) == trained_digest(early)


def test_ties_do_not_lose_the_best(tmp_path):
  result = toy.train(
    tmp_path, evaluate_fn=objectives({4: 1.0, 8: 1.0, 12: 1.0})
  )
  policy = toy.make_policy()
  params = checkpoints.load_params(
    tmp_path, result.summary['best_step'], tiny.init(policy)
  )
  assert digests.digest(params) == trained_digest(result)


def test_stops_when_the_objective_stops_rising(tmp_path):
  config = toy.make_config(max_steps=40, patience=2, evaluate_first=True)
  falling = objectives({0: 1.0, 4: 2.0, 8: 1.5, 12: 1.9, 16: 9.0})
  result = toy.train(tmp_path, config, evaluate_fn=falling)
  assert result.summary['steps'] == 12
  assert result.summary['best_step'] == 4
  assert result.summary['stopped_early']


def test_a_known_evaluation_of_the_start_is_not_made(tmp_path):
  config = toy.make_config(evaluate_first=True)
  evaluated = []

  def evaluate(params, step):
    evaluated.append(step)
    return {'objective': float(step)}

  result = toy.train(
    tmp_path,
    config,
    evaluate_fn=evaluate,
    start_metrics={'objective': 99.0, 'reward': 0.5},
  )
  assert evaluated == [4, 8, 12]
  assert result.summary['best_step'] == 0
  assert result.summary['evaluation'] == {'objective': 99.0, 'reward': 0.5}


def test_what_the_time_of_a_training_went_to_adds_up(tmp_path):
  def evaluate(params, step):
    time.sleep(0.05)
    return {'objective': float(step)}

  summary = toy.train(tmp_path, evaluate_fn=evaluate).summary
  parts = summary['seconds_by_part']
  assert parts.keys() == {
    'steps', 'evaluation', 'saving', 'reading', 'compiling',
  }  # fmt: skip
  assert sum(parts.values()) == pytest.approx(summary['seconds'], abs=1e-6)
  # The step may have been compiled by another test.
  assert all(parts[name] > 0 for name in parts if name != 'compiling')
  assert 3 * 0.05 <= parts['evaluation'] <= summary['evaluation_seconds']


def test_what_training_starts_from_can_be_the_best(tmp_path):
  config = toy.make_config(evaluate_first=True)
  policy = toy.make_policy()
  result = toy.train(tmp_path, config, evaluate_fn=objectives({0: 99.0}))
  assert result.summary['best_step'] == 0
  assert trained_digest(result) == digests.digest(tiny.init(policy))


def test_an_objective_that_is_not_finite_saves_nothing(tmp_path):
  with pytest.raises(FloatingPointError, match='step 8: objective is nan'):
    toy.train(tmp_path, evaluate_fn=objectives({8: float('nan')}))
  store = checkpoints.Checkpoints(tmp_path, read_only=True)
  assert store.latest_step == 4
  store.close()


class BadAt(bc.BC):
  """BC whose loss is NaN on batches that hold a source's first token."""

  def __call__(self, inputs):
    output = super().__call__(inputs)
    is_bad = (inputs.batch['encoder_input_tokens'][:, 0] == _BAD_TOKEN).any()
    total = jnp.where(is_bad, jnp.nan, output.weighted_sum)
    return output._replace(weighted_sum=total)


_BAD_TOKEN = 23


def _rows_with_one_bad(at):
  """Rows of which one, that of batch `at`'s first row, is bad."""
  config = toy.make_config()
  batches = config.batches(toy.make_rows(TOKENS))
  tokens = np.where(TOKENS == _BAD_TOKEN, 22, TOKENS)
  row = int(batches.rows(at)[0])
  tokens[row, 0] = _BAD_TOKEN
  return tokens, row


def _train_on(directory, tokens, **settings):
  config = toy.make_config(**settings)
  batches = config.batches(toy.make_rows(tokens))
  return toy.train(directory, config, loss=BadAt(), batches=batches)


def test_a_loss_that_is_not_finite_names_step_rows_and_batch(tmp_path):
  tokens, row = _rows_with_one_bad(at=2)
  with pytest.raises(
    FloatingPointError, match=rf'loss is nan at step 3, on \d+ rows \({row}, '
  ) as raised:
    _train_on(tmp_path, tokens)
  assert 'bad_step_3.npz' in str(raised.value)
  with np.load(tmp_path / 'bad_step_3.npz') as kept:
    assert kept['rows'][0] == row
    np.testing.assert_array_equal(
      kept['encoder_input_tokens'][: len(kept['rows']), :6],
      tokens[kept['rows']],
    )
  assert not (tmp_path / 'checkpoints' / '4').exists()


def test_some_bad_steps_may_be_passed_over(tmp_path):
  tokens, _ = _rows_with_one_bad(at=2)
  # 40 rows in batches of 8: each epoch has the bad row once, so steps 3, and one
  # of 6 to 10 are bad, and perhaps one of 11 and 12.
  result = _train_on(tmp_path, tokens, max_bad_steps=3)
  bad = result.summary['bad_steps']
  assert 2 <= bad <= 3
  lines = journal.read_metrics(tmp_path)
  counted = [line['bad_steps'] for line in lines if line['split'] == 'train']
  assert counted == sorted(counted)
  assert (counted[0], counted[1], counted[-1]) == (0, 1, bad)
  assert all(np.isfinite(line.get('loss', 0.0)) for line in lines)
  leaves = jax.tree.leaves(result.params)
  assert all(np.isfinite(leaf).all() for leaf in leaves)
  with pytest.raises(FloatingPointError, match='loss is nan'):
    _train_on(tmp_path / 'fewer', tokens, max_bad_steps=bad - 1)


def test_a_bad_step_leaves_everything_but_the_count_of_steps():
  tokens, _ = _rows_with_one_bad(at=0)
  policy = toy.make_policy()
  batches = toy.make_config().batches(toy.make_rows(tokens))
  optimizer = optimizers.OptimizerConfig(learning_rate=1e-2).direction()
  state = step_lib.init_state(
    tiny.init(policy), loss=BadAt(), given={}, optimizer=optimizer
  )
  take = jax.jit(
    step_lib.make_train_step(
      model=policy, loss=BadAt(), optimizer=optimizer, skip_bad=True
    )
  )
  rate = jnp.float32(1e-2)
  after, metrics = take(state, batches[0], rate, None)
  assert np.isnan(metrics['loss'])
  assert int(after.step) == 1
  for new, old in zip(
    jax.tree.leaves(after.replace(step=state.step)),
    jax.tree.leaves(state),
    strict=True,
  ):
    np.testing.assert_array_equal(new, old)
  moved, metrics = take(after, batches[1], rate, None)
  assert np.isfinite(metrics['loss'])
  assert digests.digest(moved.params) != digests.digest(state.params)


def test_damaged_parameters_are_noticed(tmp_path):
  toy.train(tmp_path)
  policy = toy.make_policy()
  like = tiny.init(policy)
  store = checkpoints.Checkpoints(tmp_path)
  state_params = store.restore_params(12, like)
  store.close()
  record = tmp_path / 'checkpoints' / '12' / 'record' / 'metadata'
  content = json.loads(record.read_text())
  assert content['params_digest'] == digests.digest(state_params)
  content['params_digest'] = '0' * 64
  record.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='damaged'):
    checkpoints.load_params(tmp_path, 12, like)


def _data_files(folder, step):
  """Files that hold arrays; Orbax keeps some of them twice."""
  found = (folder / 'checkpoints' / str(step)).rglob('d/*')
  return [path for path in found if path.is_file() and path.stat().st_size]


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
  'damage',
  [_flip, _cut, lambda path: path.unlink(), lambda path: path.write_bytes(b'')],
  ids=['flipped', 'cut', 'missing', 'empty'],
)
def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path, damage, caplog):
  # The best is that of step 4, and the latest that of 8.
  with pytest.raises(Cut):
    toy.train(tmp_path, evaluate_fn=objectives({8: 1.0, 4: 9.0}, cut_at=12))
  files = _data_files(tmp_path, 8)
  assert len(files) > 1
  for path in files:
    damage(path)
  with caplog.at_level(logging.WARNING):
    resumed = toy.train(tmp_path)
  assert 'checkpoint 8' in caplog.text
  assert trained_digest(resumed) == trained_digest(whole[0])


def test_a_checkpoint_that_cannot_be_read_now_is_not_removed(
  tmp_path, monkeypatch
):
  with pytest.raises(Cut):
    toy.train(tmp_path, evaluate_fn=objectives({4: 9.0}, cut_at=12))

  def fail(self, step, like, given):
    raise PermissionError('not now')

  with monkeypatch.context() as patched:
    patched.setattr(checkpoints.Checkpoints, 'restore', fail)
    with pytest.raises(PermissionError, match='not now'):
      toy.train(tmp_path)
  assert (tmp_path / 'checkpoints' / '8').is_dir()


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path):
  with pytest.raises(Cut):
    toy.train(tmp_path, evaluate_fn=objectives({}, cut_at=8))
  for path in _data_files(tmp_path, 4):
    _flip(path)
  with pytest.raises(ValueError, match=r'every checkpoint .* \[4\]'):
    toy.train(tmp_path)


def test_a_damaged_best_checkpoint_is_told_before_training_goes_on(tmp_path):
  with pytest.raises(Cut):
    toy.train(tmp_path, evaluate_fn=objectives({4: 9.0}, cut_at=12))
  for path in _data_files(tmp_path, 4):
    _flip(path)
  # The latest, of step 8, is whole, but could only end without its best.
  with pytest.raises(ValueError, match=r'every checkpoint .* \[8, 4\]'):
    toy.train(tmp_path)
  assert journal.read_metrics(tmp_path)[-1]['step'] == 12


def test_what_was_being_removed_as_the_program_was_killed(tmp_path):
  whole = toy.train(tmp_path / 'whole', evaluate_fn=objectives({8: 99.0}))
  with pytest.raises(Cut):
    toy.train(tmp_path / 'cut', evaluate_fn=objectives({8: 99.0}, cut_at=12))
  steps = tmp_path / 'cut' / 'checkpoints'
  assert [path.name for path in steps.iterdir()] == ['8']
  shutil.copytree(steps / '8', steps / '4')
  for path in _data_files(tmp_path / 'cut', 4)[::2]:
    path.unlink()
  resumed = toy.train(tmp_path / 'cut', evaluate_fn=objectives({8: 99.0}))
  assert {path.name for path in steps.iterdir()} == {'8', '12'}
  assert trained_digest(resumed) == trained_digest(whole)


def test_no_line_of_metrics_is_written_twice(tmp_path, monkeypatch):
  def fail(*arguments, **more):
    raise Cut

  config = toy.make_config(evaluate_first=True)
  with monkeypatch.context() as patched:
    patched.setattr(checkpoints.Checkpoints, 'save', fail)
    with pytest.raises(Cut):
      toy.train(tmp_path, config)
  assert journal.read_metrics(tmp_path)[0]['step'] == 0
  toy.train(tmp_path, config)
  places = [
    (line['step'], line['split']) for line in journal.read_metrics(tmp_path)
  ]
  assert places[0] == (0, 'validation')
  assert len(places) == len(set(places))


def test_a_missing_checkpoint_is_named(tmp_path):
  toy.train(tmp_path)
  like = tiny.init(toy.make_policy())
  with pytest.raises(FileNotFoundError, match='step 7'):
    checkpoints.load_params(tmp_path, 7, like)
  with pytest.raises(FileNotFoundError, match='no checkpoint'):
    checkpoints.load_params(tmp_path / 'nothing', 7, like)


def test_metrics_torn_by_a_kill_are_mended(tmp_path):
  toy.train(tmp_path, toy.make_config(max_steps=8))
  path = tmp_path / journal.METRICS_FILE
  whole = path.read_text()
  path.write_text(whole + '{"step": 8, "spl')
  toy.train(tmp_path, toy.make_config(max_steps=8))
  assert path.read_text() == whole


@pytest.mark.parametrize(
  'settings', [{'max_steps': 0}, {'patience': 0}, {'accumulation_steps': 0}]
)
def test_wrong_settings(settings):
  with pytest.raises(ValueError, match=next(iter(settings))):
    toy.make_config(**settings)


@pytest.mark.parametrize(
  ('settings', 'steps'),
  [
    ({}, 12),
    ({'patience': 1}, 8),
    ({'patience': 1, 'evaluate_first': True}, 4),
    ({'patience': 2, 'evaluate_first': True}, 8),
    ({'patience': 5, 'evaluate_first': True}, 12),
  ],
)
def test_least_steps_are_those_of_a_training_that_never_improves(
  tmp_path, settings, steps
):
  config = toy.make_config(**settings)
  assert config.least_steps == steps
  falling = {step: -step for step in range(13)}
  result = toy.train(tmp_path, config, evaluate_fn=objectives(falling))
  assert result.summary['steps'] == steps


def test_a_step_divides_by_the_mean_normaliser_of_an_epoch(
  tmp_path, monkeypatch
):
  original, seen = trainer.jitted_step, []

  def recording(*arguments):
    step = original(*arguments)

    def one(*given):
      seen.append(float(given[4]))
      return step(*given)

    return one

  monkeypatch.setattr(trainer, 'jitted_step', recording)
  toy.train(tmp_path)
  # 40 rows of 6 tokens in 5 batches.
  assert seen == [48.0] * 12


def test_a_state_that_holds_models_of_the_loss_is_read_without_them(
  tmp_path, monkeypatch
):
  # As the version before saved it.
  policy, loss = toy.make_policy(), gold.GoldS(lag=2)
  params, bc_params = (tiny.init(policy, seed) for seed in (0, 1))
  state = step_lib.init_state(
    params, loss, optimizers.OptimizerConfig().direction(), {'bc': bc_params}
  )
  store = checkpoints.Checkpoints(tmp_path)
  with monkeypatch.context() as before:
    before.setattr(checkpoints, '_FORMAT', 2)
    before.setattr(digests, 'digest', digests.of_bytes)
    carried = {**state.auxiliary.carried, 'bc': bc_params}
    auxiliary = state.auxiliary.replace(carried=carried)
    store.save(state.replace(auxiliary=auxiliary), record={})
  assert state.auxiliary.carried.keys() == {'lagged'}
  found, record = store.restore(0, state, {'bc': bc_params})
  store.close()
  assert record['format'] == 2
  assert jax.tree.structure(found) == jax.tree.structure(state)
  assert digests.digest(found) == digests.digest(state)


def test_a_training_of_another_version_is_not_continued(tmp_path):
  with pytest.raises(Cut):
    toy.train(tmp_path, evaluate_fn=objectives({}, cut_at=8))
  record = tmp_path / 'checkpoints' / '4' / 'record' / 'metadata'
  content = json.loads(record.read_text())
  del content['format']
  record.write_text(json.dumps(content))
  with pytest.raises(checkpoints.FormatError, match='another version'):
    toy.train(tmp_path)
  # Nothing was removed.
  assert record.exists()


@pytest.mark.parametrize(
  'arguments',
  [
    {'buckets': 0},
    {'buckets': ()},
    {'buckets': (16, 8)},
    {'buckets': 16.0},
    {'packed_lengths': 64},
    {'packed_lengths': (64, 32)},
  ],
)
def test_wrong_lengths(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    toy.make_config(**arguments)


def test_a_number_of_buckets_is_chosen_from_the_data():
  batches = toy.make_config(buckets=3).batches(toy.make_rows(TOKENS))
  assert batches[0]['decoder_target_tokens'].shape[1] == toy.LENGTH
  assert toy.make_config(buckets=[8, 16]).buckets == (8, 16)
