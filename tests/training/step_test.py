"""Tests of the train step: what it computes does not depend on its layout."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from rest_jax.filters import base as filters_base
from rest_jax.losses import bc, bvmpo, reward_weighted_bc, value
from rest_jax.models import scalar
from rest_jax.training import loader, optimizers, packing
from rest_jax.training import step as step_lib
from tests.losses import table
from tests.models import tiny
from tests.training import toy

RATE = jnp.float32(1e-2)


def make_batch(num_rows=8, seed=0, hypotheses=1):
  random = np.random.default_rng(seed)
  rows = toy.make_rows(toy.make_tokens(num_rows * hypotheses, seed))
  batch = rows.load(np.arange(num_rows * hypotheses), 8, 8)
  batch['encoder_input_tokens'] = batch['encoder_input_tokens'][::hypotheses]
  rows = num_rows * hypotheses
  batch['rewards'] = random.random(rows).astype(np.float32)
  batch['thresholds'] = np.full(rows, 0.4, np.float32)
  batch['sample_log_probs'] = -random.random(rows).astype(np.float32) * 9
  return batch


def run(loss, batch, *, accumulation=1, steps=1, optimizer=None, **arguments):
  policy = toy.make_policy()
  optimizer = optimizer or optax.sgd(1.0)
  params = tiny.init(policy)
  state = step_lib.init_state(params, loss, optimizer, {})
  step = jax.jit(
    step_lib.make_train_step(
      model=policy,
      loss=loss,
      optimizer=optimizer,
      accumulation_steps=accumulation,
      **arguments,
    )
  )
  for _ in range(steps):
    state, metrics = step(state, batch, RATE, None)
  return state, metrics


def assert_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_sgd_by_hand():
  batch = make_batch()
  state, metrics = run(bc.BC(), batch)
  policy = toy.make_policy()
  params = tiny.init(policy)

  def nll(p):
    weights = batch['decoder_loss_weights']
    return -(policy.log_probs(p, batch) * weights).sum() / weights.sum()

  gradient = jax.jit(jax.grad(nll))(params)
  expected = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
  assert_close(state.params, expected, atol=1e-6)
  assert metrics['loss'] == pytest.approx(float(nll(params)), rel=1e-5)
  assert metrics['gradient_norm'] == pytest.approx(
    float(optax.tree.norm(gradient)), rel=1e-4
  )
  assert int(state.step) == 1


def _plain_adamw_step(policy, settings, params, moments, batch, number):
  """Eq. 1 and Adam, written out for pairs that have a row each."""

  def loss(params):
    logits = policy.logits(params, batch)
    one_hot = jax.nn.one_hot(batch['decoder_target_tokens'], toy.VOCAB)
    nll = -(jax.nn.log_softmax(logits) * one_hot).sum(-1)
    weights = batch['decoder_loss_weights']
    return (nll * weights).sum() / weights.sum()

  value, gradient = jax.value_and_grad(loss)(params)
  squares = jax.tree.map(lambda g: jnp.square(g).sum(), gradient)
  norm = jnp.sqrt(sum(jax.tree.leaves(squares)))
  clip = settings.clip_norm / jnp.maximum(norm, settings.clip_norm)

  def update(p, g, m, v):
    g = g * clip
    m = settings.b1 * m + (1 - settings.b1) * g
    v = settings.b2 * v + (1 - settings.b2) * g * g
    m_hat = m / (1 - settings.b1**number)
    v_hat = v / (1 - settings.b2**number)
    # Scales of norms are vectors, whose size does not count.
    size = jnp.maximum(jnp.sqrt(jnp.mean(p * p)), 1e-3) if p.ndim > 1 else 1.0
    return p - RATE * size * m_hat / (jnp.sqrt(v_hat) + settings.eps), (m, v)

  flat, tree = jax.tree.flatten(params)
  updated = [
    update(p, g, *m)
    for p, g, m in zip(flat, jax.tree.leaves(gradient), moments, strict=True)
  ]
  params = jax.tree.unflatten(tree, [p for p, _ in updated])
  return params, [m for _, m in updated], value


def test_packed_training_follows_a_plain_implementation():
  settings = optimizers.OptimizerConfig(eps=1e-6)
  policy = toy.make_policy(dropout_rate=0.0)
  params = tiny.init(policy)
  loss = bc.BC()
  state = step_lib.init_state(params, loss, settings.direction(), {})
  step = jax.jit(
    step_lib.make_train_step(
      model=policy, loss=loss, optimizer=settings.direction()
    )
  )
  moments = [(0.0 * p, 0.0 * p) for p in jax.tree.leaves(params)]
  plain = jax.jit(functools.partial(_plain_adamw_step, policy, settings))
  random = np.random.default_rng(0)
  for number in range(1, 51):
    lengths = random.integers(2, 7, (2, 6))
    lengths[:, 0] = 6  # The same shapes in every step.
    batch = tiny.batch(number, *lengths)
    row_of = np.array([0, 0, 1, 1, 2, 2])
    state, metrics = step(state, packing.pack(batch, row_of, 12), RATE, None)
    params, moments, expected = plain(params, moments, batch, float(number))
    assert metrics['loss'] == pytest.approx(float(expected), abs=1e-4)
  assert_close(state.params, params, atol=1e-3)


@pytest.mark.parametrize('micro', [2, 4])
def test_micro_batches_add_up_though_their_sizes_differ(micro):
  batch = make_batch()
  # Unequal numbers of tokens: a mean of means would differ.
  batch['decoder_loss_weights'][:3, 2:] = 0
  whole, metrics = run(bc.BC(label_smoothing=0.1), batch)
  parts, of_parts = run(bc.BC(label_smoothing=0.1), batch, accumulation=micro)
  assert_close(whole.params, parts.params, atol=1e-6)
  for name in metrics:
    assert metrics[name] == pytest.approx(float(of_parts[name]), rel=1e-4)


def test_masking_rows_equals_dropping_them():
  batch = make_batch()
  masked, _ = run(bc.BC(), filters_base.mask_rows(batch, False))
  rows = np.flatnonzero(batch['rewards'] > 0.4)
  assert 0 < len(rows) < 8
  dropped, _ = run(bc.BC(), {k: v[rows] for k, v in batch.items()})
  assert_close(masked.params, dropped.params, atol=1e-6)


def test_padding_rows_and_length_change_nothing():
  batch = make_batch()
  padded = {
    name: np.concatenate([value, np.zeros_like(value)])
    for name, value in batch.items()
  }
  for name in padded:
    if padded[name].ndim == 2:
      padded[name] = np.pad(padded[name], ((0, 0), (0, 3)))
  assert_close(
    run(bc.BC(), batch)[0].params, run(bc.BC(), padded)[0].params, atol=1e-6
  )


def test_a_batch_without_weight_leaves_parameters_alone():
  batch = make_batch()
  batch['decoder_loss_weights'] *= 0
  state, metrics = run(bc.BC(), batch)
  params = tiny.init(toy.make_policy())
  assert_close(state.params, params, atol=0)
  assert metrics['loss'] == 0


@pytest.mark.parametrize('micro', [2, 4])
def test_a_loss_that_needs_everything(micro):
  loss = toy.EverythingLoss()
  batch = make_batch(hypotheses=2)
  # The padding row of a statistic must not count.
  batch['decoder_loss_weights'][-2:] = 0
  batch['rewards'][-1] = 100.0
  optimizer = optax.sgd(1.0)
  whole, metrics = run(loss, batch, steps=4, optimizer=optimizer)
  parts, of_parts = run(
    loss, batch, steps=4, accumulation=micro, optimizer=optimizer
  )
  assert_close(whole, parts, atol=2e-5)
  assert np.isfinite(metrics['psi'])
  assert metrics['psi'] == pytest.approx(float(of_parts['psi']), rel=1e-3)
  # The temperature is learned; the lagged policy is that of step 3 of 4.
  assert float(whole.auxiliary.learned['log_temperature']) != 0
  third, _ = run(loss, batch, steps=3, optimizer=optimizer)
  assert_close(whole.auxiliary.carried['lagged'], third.params, atol=1e-6)


def test_dropout_depends_on_key_and_step():
  policy, optimizer = toy.make_policy(dropout_rate=0.5), optax.sgd(0.0)
  state = step_lib.init_state(tiny.init(policy), bc.BC(), optimizer, {})
  step = jax.jit(
    step_lib.make_train_step(model=policy, loss=bc.BC(), optimizer=optimizer)
  )
  batch, key = make_batch(), jax.random.key(5)
  losses = []
  for _ in range(2):
    state, metrics = step(state, batch, RATE, key)
    losses.append(float(metrics['loss']))
  _, metrics = step(state.replace(step=jnp.int32(0)), batch, RATE, key)
  assert losses[0] != losses[1]
  assert float(metrics['loss']) == losses[0]


def test_means_over_steps_by_hand():
  found = step_lib.mean_metrics(
    [
      {'nll': 1.0, 'normalizer': 30.0, 'gradient_norm': 2.0},
      {'nll': 5.0, 'normalizer': 10.0, 'gradient_norm': 4.0},
    ]
  )
  assert found == {'nll': 2.0, 'normalizer': 20.0, 'gradient_norm': 3.0}
  assert step_lib.mean_metrics([]) == {}
  empty = {'nll': 0.0, 'normalizer': 0.0, 'gradient_norm': 0.0}
  assert step_lib.mean_metrics([empty]) == empty


class _Recorded:
  """An optimiser that moves nothing and keeps the last gradient."""

  init = staticmethod(lambda params: jax.tree.map(jnp.zeros_like, params))

  @staticmethod
  def update(gradient, state, params=None):
    del state, params
    return jax.tree.map(jnp.zeros_like, gradient), gradient


RECORDED = optax.GradientTransformation(_Recorded.init, _Recorded.update)


def _rows_of_all_lengths(seed=0, num_rows=21):
  random = np.random.default_rng(seed)
  lengths = random.integers(2, 13, (2, num_rows))
  # In lengths and rows remainders of all kinds: one of a single short row.
  lengths[:, 0] = 2
  rewards = random.random(num_rows).astype(np.float32)
  weights = np.where(np.arange(num_rows) % 3, 1.0, 0.25).astype(np.float32)
  sides = [tiny.targets(random, side, 12) for side in lengths]

  def load(rows, source_length, target_length):
    batch = loader.decoder_batch(
      sides[0][rows, :source_length], sides[1][rows, :target_length]
    )
    batch |= {
      'rewards': rewards[rows],
      'thresholds': np.full(len(rows), -np.inf, np.float32),
      'row_weights': weights[rows],
    }
    return filters_base.mask_rows(batch, False)

  return lengths, rewards, weights, load


_REGRESSION = value.ValueRegression(remaining_power=1.0)


@pytest.mark.parametrize(
  ('loss', 'arguments', 'accumulation'),
  [
    (bc.BC(label_smoothing=0.1), {'buckets': (4, 8, 12)}, 1),
    (bc.BC(label_smoothing=0.1), {'buckets': (4, 8, 12)}, 2),
    (bc.BC(), {'buckets': (16,), 'pack': True}, 1),
    (bc.BC(), {'buckets': (16,), 'pack': True}, 2),
    (reward_weighted_bc.RewardWeightedBC(), {'buckets': (6, 12)}, 1),
    (_REGRESSION, {'buckets': (6, 12)}, 1),
  ],
  ids=['buckets', 'micro', 'packed', 'packed-micro', 'weighted', 'value'],
)
def test_an_epoch_s_mean_gradient_is_that_of_all_rows_at_once(
  loss, arguments, accumulation
):
  lengths, rewards, weights, load = _rows_of_all_lengths()
  batches = loader.BucketedBatches(
    loader.Rows(
      source_lengths=lengths[0],
      target_lengths=lengths[1],
      load=load,
      normalizers=loss.row_normalizers(
        lengths=lengths[1][:, None],
        weights=weights[:, None],
        rewards=rewards[:, None],
      ),
    ),
    tokens_per_batch=48,
    seed=0,
    row_multiple=accumulation,
    **arguments,
  )
  policy = toy.make_policy(dropout_rate=0.0)
  model = scalar.ScalarModel(policy.config) if loss is _REGRESSION else policy
  params = tiny.lively(tiny.init(model))
  state = step_lib.init_state(params, loss, RECORDED, {})

  def step(accumulation_steps):
    return jax.jit(
      step_lib.make_train_step(
        model=model,
        loss=loss,
        optimizer=RECORDED,
        accumulation_steps=accumulation_steps,
      )
    )

  take, expected = step(accumulation), np.float32(batches.expected_normalizer)
  gradients, normalizers = [], []
  for index in range(batches.batches_per_epoch):
    new, metrics = take(state, batches[index], RATE, None, expected)
    gradients.append(new.optimizer['params'])
    normalizers.append(float(metrics['normalizer']))
  # They differ between batches, and their mean is what was expected.
  assert max(normalizers) > 1.3 * min(normalizers)
  assert np.mean(normalizers) == pytest.approx(float(expected), rel=1e-6)
  mean = jax.tree.map(lambda *g: np.mean(g, axis=0), *gradients)
  whole = load(np.arange(lengths.shape[1]), 12, 12)
  at_once = step(1)(state, whole, RATE, None)[0].optimizer['params']
  error = optax.tree.norm(jax.tree.map(jnp.subtract, mean, at_once))
  assert error < 1e-5 * optax.tree.norm(at_once)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _GivenAdvantages(bvmpo.BVMPO):
  """BVMPO whose advantages are a column of the batch."""

  def batch_statistics(self, inputs):
    return {
      'advantages': inputs.batch['advantages'],
      'weights': inputs.weights,
    }


@pytest.mark.parametrize(
  ('start', 'deviation', 'num_steps', 'optimum'),
  [(1.0, 5.0, 500, 7.6), (0.2, 3.0, 3000, 4.59), (0.2, 0.05, 160, 0.0764)],
)
@pytest.mark.parametrize('kind', optimizers.KINDS)
def test_the_temperature_reaches_the_optimum_of_its_dual(
  kind, start, deviation, num_steps, optimum
):
  loss = _GivenAdvantages(initial_temperature=start)
  # What the policy is trained by does not matter.
  optimizer = optimizers.OptimizerConfig(kind=kind, clip_norm=1e-3).direction()
  shape = (8, 128)
  quantiles = (np.arange(1024) + 0.5) / 1024
  advantages = deviation * scipy.stats.norm.ppf(quantiles).reshape(shape)
  params = {'x': jnp.zeros((*shape, 2))}
  batch = {
    'decoder_target_tokens': jnp.ones(shape, jnp.int32),
    'decoder_loss_weights': jnp.ones(shape),
    'advantages': jnp.asarray(advantages, jnp.float32),
    'rewards': jnp.zeros(8),
  }
  given = {'bc': params, 'value': {}}
  state = step_lib.init_state(params, loss, optimizer, given)
  step = step_lib.make_train_step(
    model=table.Table(), loss=loss, optimizer=optimizer
  )

  @jax.jit
  def train(state):
    def one(state, _):
      return step(state, batch, jnp.float32(1e-6), None, None, given)[0], None

    return jax.lax.scan(one, state, length=num_steps)[0]

  found = np.exp(float(train(state).auxiliary.learned['log_temperature']))
  assert found == pytest.approx(optimum, rel=0.02)


def test_what_a_loss_learns_does_not_clip_the_policy():
  loss, batch = toy.EverythingLoss(), make_batch(hypotheses=2)
  settings = optimizers.OptimizerConfig(clip_norm=1e-3)
  state, _ = run(loss, batch, optimizer=settings.direction())
  assert set(state.optimizer) == {'params', 'learned'}
  # The policy's own gradient has the norm that it is clipped to.
  moments = optax.tree.get(state.optimizer['params'], 'mu')
  norm = float(optax.tree.norm(moments)) / (1 - settings.b1)
  assert norm == pytest.approx(1e-3, rel=1e-4)
