"""Tests of BVMPO."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from rest_jax.losses import base, bc, bvmpo, ops
from tests.losses import table

_LOSSES = [
  bvmpo.BVMPO(),
  bvmpo.BVMPO(top_fraction=1.0, initial_coefficient=0.0, final_coefficient=0.0),
  bvmpo.BVMPO(discount=0.9, initial_temperature=2.0),
]


@pytest.fixture(autouse=True)
def _values_are_a_table(monkeypatch):
  monkeypatch.setattr(base.scalar, 'ScalarModel', table.ValueTable)


def _case(seed=0, lengths=(5, 2, 4)):
  random = np.random.default_rng(seed)
  theta = table.params(random, len(lengths), 5)
  values = {'v': jnp.asarray(random.normal(size=(len(lengths), 5)))}
  given = {'value': values, 'bc': table.params(random, len(lengths), 5)}
  return theta, table.batch(random, lengths, 5), given


def _mean(output):
  return output.weighted_sum / output.normalizer


def _advantages(loss, cases, given):
  is_token = cases['decoder_target_tokens'] > 0
  rewards = ops.last_token_rewards(cases['rewards'], is_token)
  return ops.td_errors(rewards, given['value']['v'], is_token, loss.discount)


def _reference(loss, theta, cases, given, steps=0):
  """The loss, written down anew with a loop over tokens."""
  targets = np.asarray(cases['decoder_target_tokens'])
  log_pi = np.asarray(jax.nn.log_softmax(theta['x']), np.float64)
  log_bc = np.asarray(jax.nn.log_softmax(given['bc']['x']), np.float64)
  advantages = np.asarray(_advantages(loss, cases, given), np.float64)
  tokens = [(b, t) for b, t in np.argwhere(targets > 0)]
  ordered = sorted(tokens, key=lambda token: -advantages[token])
  top = ordered[: int(np.ceil(loss.top_fraction * len(tokens)))]
  eta = loss.initial_temperature
  exponents = np.array([advantages[token] / eta for token in top])
  psi = scipy.special.softmax(exponents)
  policy = -sum(
    p * log_pi[b, t, targets[b, t]] for p, (b, t) in zip(psi, top, strict=True)
  )
  log_mean = scipy.special.logsumexp(exponents) - np.log(len(top))
  dual = eta * loss.target_divergence + eta * log_mean
  divergence = np.mean(
    [
      np.sum(np.exp(log_bc[b, t]) * (log_bc[b, t] - log_pi[b, t]))
      for b, t in tokens
    ]
  )
  return policy + dual + float(loss.coefficient(jnp.int32(steps))) * divergence


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_against_a_loop_over_tokens(loss):
  for seed in range(3):
    theta, cases, given = _case(seed)
    output = table.call(loss, theta, cases, given=given)
    expected = _reference(loss, theta, cases, given)
    assert _mean(output) == pytest.approx(expected, rel=1e-4)


def test_against_rlax():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of its dependencies
    rlax = pytest.importorskip(
      'rlax', reason='rlax is not installed: pip install rlax'
    )
  theta, cases, given = _case(7, (5, 5))
  loss = bvmpo.BVMPO(initial_coefficient=0.0, final_coefficient=0.0)
  advantages = _advantages(loss, cases, given).reshape(-1)
  dual, psi, num_top = rlax.vmpo_compute_weights_and_temperature_loss(
    advantages=advantages,
    restarting_weights=jnp.ones(10),
    importance_weights=jnp.ones(10),
    temperature_constraint=rlax.LagrangePenalty(
      alpha=jnp.float32(loss.initial_temperature),
      epsilon=jnp.float32(loss.target_divergence),
      per_dimension=False,
    ),
    projection_operator=lambda alpha: alpha,
    top_k_fraction=loss.top_fraction,
  )
  assert num_top == pytest.approx(5)
  log_probs = table.Table().log_probs(theta, cases).reshape(-1)
  expected = dual.sum() - (psi * log_probs).sum()
  output = table.call(loss, theta, cases, given=given)
  assert _mean(output) == pytest.approx(float(expected), rel=1e-5)


def test_with_equal_advantages_and_all_kept_its_gradient_is_that_of_bc():
  theta, cases, given = _case()
  # V(s_t) = R - (T - t + 1) makes every advantage 1, as in OAC.
  lengths = (cases['decoder_target_tokens'] > 0).sum(1)
  left = lengths[:, None] - jnp.arange(5)
  given['value'] = {'v': cases['rewards'][:, None] - left}
  loss = bvmpo.BVMPO(
    top_fraction=1.0, initial_coefficient=0.0, final_coefficient=0.0
  )
  # Rows may count for less, too.
  weights = cases['decoder_loss_weights'] * jnp.array([[1.0], [0.5], [2.0]])
  cases = {**cases, 'decoder_loss_weights': weights}
  np.testing.assert_allclose(
    table.gradient(loss, theta, cases, given=given),
    table.gradient(bc.BC(), theta, cases),
    atol=1e-6,
  )


def test_gradient_of_the_temperature_is_that_of_the_dual():
  theta, cases, given = _case(2)
  loss = bvmpo.BVMPO()
  auxiliary = loss.init_auxiliary(theta, given)

  def mean(learned):
    changed = auxiliary.replace(learned=learned)
    return _mean(table.call(loss, theta, cases, given=given, auxiliary=changed))

  found = jax.grad(mean)(auxiliary.learned)['log_temperature']
  statistics = table.statistics(loss, given, cases)
  top = np.asarray(statistics['advantages'])[statistics['top_weights'] > 0]

  def dual(log_eta):
    eta = np.exp(log_eta)
    return eta * (0.1 + scipy.special.logsumexp(top / eta) - np.log(top.size))

  start, step = np.log(0.2), 1e-4
  expected = (dual(start + step) - dual(start - step)) / (2 * step)
  assert found == pytest.approx(expected, rel=1e-3)


def test_only_the_top_half_is_learned_from():
  theta, cases, given = _case(4)
  loss = bvmpo.BVMPO(initial_coefficient=0.0, final_coefficient=0.0)
  statistics = table.statistics(loss, given, cases)
  moved = np.abs(table.gradient(loss, theta, cases, given=given)).sum(-1) > 0
  np.testing.assert_array_equal(moved, statistics['top_weights'] > 0)
  # Six of eleven tokens.
  assert moved.sum() == 6


def test_the_policy_that_is_bc_is_at_the_least_divergence():
  theta, cases, given = _case(5)
  near = {**given, 'bc': theta}
  output = table.call(bvmpo.BVMPO(), theta, cases, given=near)
  assert output.metrics['kl_to_bc'][0] == pytest.approx(0, abs=1e-5)
  far = table.call(bvmpo.BVMPO(), theta, cases, given=given)
  assert far.metrics['kl_to_bc'][0] > 1


def test_lambda_falls_geometrically_to_its_end():
  loss = bvmpo.BVMPO(anneal_steps=100)
  found = [
    float(loss.coefficient(jnp.int32(step))) for step in (0, 50, 100, 1000)
  ]
  np.testing.assert_allclose(found, [1.0, 10**-2.5, 1e-5, 1e-5], rtol=1e-4)
  theta, _, given = _case()
  auxiliary = loss.init_auxiliary(theta, given)
  updated = loss.update_auxiliary(auxiliary, params=theta, step=jnp.int32(7))
  assert updated.carried['steps'] == 7
  assert auxiliary.carried['steps'] == 0


def test_lambda_falls_within_the_steps_that_are_taken(caplog):
  loss = bvmpo.BVMPO().for_training(40)
  assert loss.coefficient(jnp.int32(20)) == pytest.approx(10**-2.5, rel=1e-4)
  assert loss.coefficient(jnp.int32(40)) == pytest.approx(1e-5, rel=1e-4)
  assert not caplog.records
  # A number that is given holds, with a warning where it is too large.
  given = bvmpo.BVMPO(anneal_steps=100)
  assert given.for_training(200) == given
  assert not caplog.records
  assert given.for_training(99) == given
  assert 'stop training after 99 steps' in caplog.text


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_micro_batches_add_up(loss):
  theta, cases, given = _case(6, (5, 2, 4, 3))
  whole = table.call(loss, theta, cases, given=given)
  statistics = table.statistics(loss, given, cases)
  parts = [
    loss(
      base.Inputs(
        model=table.Table(),
        params=table.rows_of(theta, rows),
        auxiliary=loss.init_auxiliary({}, {}),
        given=table.rows_of(given, rows),
        batch=table.rows_of(cases, rows),
        statistics=statistics,
      )
    )
    for rows in ([0, 1], [2, 3])
  ]
  np.testing.assert_allclose(
    sum(part.weighted_sum for part in parts), whole.weighted_sum, rtol=1e-5
  )
  assert sum(part.normalizer for part in parts) == whole.normalizer


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_identities(loss):
  theta, cases, given = _case(3, (5, 2, 4, 1))
  table.assert_masking_is_dropping(loss, theta, cases, [1, 3], given=given)
  table.assert_padding_is_nothing(loss, theta, cases, given=given)
  table.assert_an_empty_mask_is_harmless(loss, theta, cases, given=given)
  # The temperature has no NaN for a gradient either.
  auxiliary = loss.init_auxiliary(theta, given)
  empty = jnp.zeros_like(cases['decoder_loss_weights'])
  cases = {**cases, 'decoder_loss_weights': empty}
  gradient = jax.grad(
    lambda learned: (
      table.call(
        loss,
        theta,
        cases,
        given=given,
        auxiliary=auxiliary.replace(learned=learned),
      ).weighted_sum
    )
  )(auxiliary.learned)
  assert gradient['log_temperature'] == 0


@pytest.mark.parametrize(
  'arguments',
  [
    {'discount': 0.0},
    {'top_fraction': 0.0},
    {'target_divergence': 0.0},
    {'initial_temperature': -1.0},
    {'temperature_learning_rate': 0.0},
    {'final_coefficient': 2.0},
    {'final_coefficient': 0.0},
    {'anneal_steps': 0},
  ],
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    bvmpo.BVMPO(**arguments)
