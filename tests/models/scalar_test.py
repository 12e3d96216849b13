import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from tests.models import tiny


@pytest.fixture(scope='module')
def model():
  scalars = scalar.ScalarModel(tiny.config())
  return scalars, tiny.lively(tiny.init(scalars))


def test_vocab_size_must_be_known():
  with pytest.raises(ValueError, match='with_vocab'):
    scalar.ScalarModel(tiny.config(vocab_size=0))


def test_mean_value_by_hand():
  values = jnp.arange(12.0).reshape(3, 4)
  weights = jnp.asarray([[1, 1, 1, 0], [0, 0, 2, 1], [0, 0, 0, 0]], float)
  np.testing.assert_array_equal(
    scalar.mean_value(values, weights), [1.0, 6.5, 0.0]
  )


def test_padding_does_not_matter_to_a_mean():
  scalars = scalar.ScalarModel(tiny.config(), pooling='mean')
  params = tiny.init(scalars)
  batch = tiny.batch(0, [4, 3], [5, 2])
  rewards = tiny.jitted(scalars, 'rewards')(params, batch)
  values = tiny.jitted(scalars, 'values')(params, batch)
  np.testing.assert_allclose(
    rewards, [values[0, :5].mean(), values[1, :2].mean()], rtol=1e-5
  )


@pytest.mark.parametrize('is_tied', [True, False])
def test_a_likelihood_starts_as_that_of_the_policy(is_tied):
  config = tiny.config(logits_via_embedding=is_tied)
  policy = policy_lib.Policy(config)
  of_policy = tiny.lively(tiny.init(policy, 1))
  scalars = scalar.ScalarModel(config, pooling='likelihood')
  params = scalars.init_from_policy(of_policy, jax.random.key(0))
  batch = tiny.batch(0, [4, 3], [5, 2], pad=1)
  found = tiny.jitted(scalars, 'rewards')(params, batch)
  log_probs = tiny.jitted(policy, 'log_probs')(of_policy, batch)
  params['decoder']['value_dense'] = jax.tree.map(
    jnp.zeros_like, params['decoder']['value_dense']
  )
  means = [log_probs[0, :5].mean(), log_probs[1, :2].mean()]
  np.testing.assert_allclose(
    tiny.jitted(scalars, 'rewards')(params, batch), means, rtol=1e-5
  )
  assert (found != tiny.jitted(scalars, 'rewards')(params, batch)).all()


def test_an_unknown_pooling_is_refused():
  with pytest.raises(ValueError, match='pooling must be one of'):
    scalar.ScalarModel(tiny.config(), pooling='max')


def test_last_value_by_hand():
  values = jnp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
  weights = jnp.asarray([[1.0, 1.0, 0.0], [0.5, 0.0, 2.0], [0.0, 0.0, 0.0]])
  np.testing.assert_array_equal(
    scalar.last_value(values, weights), [2.0, 6.0, 0.0]
  )


def test_rewards_read_the_last_real_position(model):
  scalars, params = model
  batch = tiny.batch(0, [4, 3, 2], [5, 2, 1])
  values = tiny.jitted(scalars, 'values')(params, batch)
  assert values.shape == (3, 5)
  assert values.dtype == jnp.float32
  np.testing.assert_array_equal(
    tiny.jitted(scalars, 'rewards')(params, batch),
    [values[0, 4], values[1, 1], values[2, 0]],
  )
  weights = jnp.asarray(batch['decoder_loss_weights'])
  np.testing.assert_array_equal(
    jax.grad(lambda v: scalar.last_value(v, weights).sum())(values),
    [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]],
  )


def test_padding_changes_no_reward(model):
  scalars, params = model
  run = tiny.jitted(scalars, 'rewards')
  plain = run(params, tiny.batch(0, [4, 3], [5, 2]))
  padded = run(params, tiny.batch(0, [4, 3], [5, 2], pad=3))
  np.testing.assert_allclose(plain, padded, atol=1e-5)


def test_candidates_share_a_source(model):
  scalars, params = model
  batch = tiny.batch(0, [4, 3], [5, 2, 4, 4])
  shared = tiny.jitted(scalars, 'rewards')(params, batch)
  batch['encoder_input_tokens'] = np.repeat(
    batch['encoder_input_tokens'], 2, axis=0
  )
  np.testing.assert_allclose(
    shared, tiny.jitted(scalars, 'rewards')(params, batch), atol=1e-5
  )


def test_tree_is_the_policys_with_another_head(model):
  scalars, params = model
  policy = tiny.init(policy_lib.Policy(tiny.config()))
  assert params['decoder']['value_dense']['kernel'].shape == (16, 1)
  assert 'logits_dense' not in params['decoder']
  del policy['decoder']['logits_dense']
  del params['decoder']['value_dense']
  assert jax.tree.map(jnp.shape, policy) == jax.tree.map(jnp.shape, params)
  axes = scalars.logical_axes()['decoder']['value_dense']['kernel']
  assert tuple(axes) == ('embed', 'value')


@pytest.mark.parametrize('tied', [False, True])
def test_init_from_policy_keeps_the_body(tied):
  config = tiny.config(logits_via_embedding=tied)
  policy_params = tiny.init(policy_lib.Policy(config))
  before = jax.tree.map(jnp.shape, policy_params)
  scalars = scalar.ScalarModel(config)
  params = scalars.init_from_policy(policy_params, jax.random.key(1))
  # The policy's own tree is left alone.
  assert jax.tree.map(jnp.shape, policy_params) == before
  assert params['encoder'] is policy_params['encoder']
  fresh = tiny.init(scalars, 1)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)
  np.testing.assert_array_equal(
    params['decoder']['value_dense']['kernel'],
    fresh['decoder']['value_dense']['kernel'],
  )
  rewards = tiny.jitted(scalars, 'rewards')(
    params, tiny.batch(0, [4, 3], [5, 2])
  )
  assert np.all(np.abs(rewards) < 0.5)
  assert np.all(rewards != 0)


def test_init_from_policy_refuses_other_sizes():
  policy_params = tiny.init(policy_lib.Policy(tiny.config()))
  scalars = scalar.ScalarModel(tiny.config(mlp_dim=24))
  with pytest.raises(
    ValueError, match=r'mlp/wi_0/kernel is \(16, 20\) there and \(16, 24\) here'
  ):
    scalars.init_from_policy(policy_params, jax.random.key(0))
  deeper = scalar.ScalarModel(tiny.config(num_decoder_layers=3))
  with pytest.raises(ValueError, match=r'layers_2.* is missing there'):
    deeper.init_from_policy(policy_params, jax.random.key(0))
