"""Tests of the updates of policy and critic."""

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import ops
from rest_jax.models import scalar
from rest_jax.online import objective, ppo
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import loader, optimizers, placement, trainer
from tests.models import tiny
from tests.online import toy
from tests.training import toy as training_toy

_POLICY = training_toy.make_policy()


def start(settings):
  mesh = toy.MESH.build()
  params = tiny.init(_POLICY)
  with mesh_lib.use(mesh):
    critic = scalar.ScalarModel(_POLICY.config)
    start = critic.init_from_policy(params, jax.random.key(2))
    state, models = placement.sharded_state(
      _POLICY,
      settings.loss,
      settings.optimizer,
      params,
      {objective.VALUE: (critic, start)},
      toy.MESH,
      mesh,
    )
  assert not models  # The critic is no frozen model.
  return state, params


def step_once(settings, batch):
  state, params = start(settings)
  step = trainer.jitted_step(
    _POLICY,
    settings.loss,
    settings.optimizer.without_schedule(),
    settings.accumulation_steps,
    toy.MESH,
    False,
    settings.value_learning_rate_factor,
  )
  mesh = toy.MESH.build()
  with mesh_lib.use(mesh):
    return step(
      state, mesh_lib.put_batch(batch, mesh), jnp.float32(1e-2), None
    )[0], params


def batch(scale=1.0):
  tokens = training_toy.make_tokens(8)
  found = loader.decoder_batch(tokens, tokens)
  random = np.random.default_rng(0)
  for name in ('old_log_probs', 'old_values', 'advantages', 'returns'):
    found[name] = random.normal(size=tokens.shape).astype(np.float32)
  found['old_log_probs'] -= 3.0
  found['returns'] *= scale
  return found


def same(a, b) -> bool:
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def test_both_start_from_the_bc_policy():
  state, params = start(toy.config())
  critic = state.auxiliary.learned[objective.VALUE]
  assert same(state.params, params)
  assert same(critic['encoder'], params['encoder'])
  assert critic['decoder']['value_dense']['kernel'].shape == (16, 1)
  axes = scalar.ScalarModel(_POLICY.config).logical_axes()
  assert jax.tree.structure(axes) == jax.tree.structure(critic)


def test_a_step_leaves_the_bc_policy_as_it_was():
  state, params = step_once(toy.config(), batch())
  assert same(params, tiny.init(_POLICY))
  assert not same(state.params, params)


def test_the_critic_s_gradient_does_not_clip_the_policy_s():
  usual, _ = step_once(toy.config(), batch())
  loud, _ = step_once(toy.config(), batch(scale=1e4))
  assert same(usual.params, loud.params)
  assert not same(usual.auxiliary.learned, loud.auxiliary.learned)


def test_the_critic_has_a_learning_rate_of_its_own():
  began, _ = start(toy.config())
  once, _ = step_once(toy.config(), batch())
  thrice, _ = step_once(toy.config(value_learning_rate_factor=3.0), batch())
  assert same(once.params, thrice.params)

  def moved(state):
    return jax.tree.map(
      jnp.subtract, state.auxiliary.learned, began.auxiliary.learned
    )

  for one, three in zip(
    jax.tree.leaves(moved(once)), jax.tree.leaves(moved(thrice)), strict=True
  ):
    np.testing.assert_allclose(3.0 * one, three, rtol=1e-2, atol=1e-6)


def test_micro_batches_add_up():
  config = optimizers.OptimizerConfig(kind='adamw', eps=1e-3)
  whole, _ = step_once(toy.config(optimizer=config), batch())
  parts, _ = step_once(
    toy.config(optimizer=config, accumulation_steps=4), batch()
  )
  for a, b in zip(
    jax.tree.leaves((whole.params, whole.auxiliary)),
    jax.tree.leaves((parts.params, parts.auxiliary)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_credit_is_its_parts():
  random = np.random.default_rng(1)
  is_token = jnp.asarray(np.arange(5) < np.array([[5], [2], [3]]))
  log_probs, bc, values = (
    jnp.where(is_token, random.normal(size=(3, 5)).astype(np.float32), 0.0)
    for _ in range(3)
  )
  rewards = jnp.asarray([0.2, 0.9, 0.5])
  settings = {'kl_coefficient': 0.1, 'discount': 0.99, 'gae_lambda': 0.9}
  white, returns = ppo.credit(
    log_probs, bc, values, rewards, is_token, **settings
  )
  found = ops.gae(
    ops.penalised_rewards(rewards, log_probs - bc, is_token, 0.1),
    values,
    is_token,
    0.99,
    0.9,
  )
  np.testing.assert_allclose(returns, found + values, atol=1e-6)
  np.testing.assert_allclose(white, ops.whiten(found, is_token), atol=1e-5)
  # Without a penalty, discount or bootstrap the critic is to learn R.
  _, returns = ppo.credit(
    log_probs,
    bc,
    values,
    rewards,
    is_token,
    kl_coefficient=0.0,
    discount=1.0,
    gae_lambda=1.0,
  )
  np.testing.assert_allclose(
    returns, jnp.where(is_token, rewards[:, None], 0.0), atol=1e-5
  )


def test_adafactor_has_a_state_too():
  config = optimizers.OptimizerConfig(kind='adafactor')
  state, params = step_once(toy.config(optimizer=config), batch())
  assert int(state.step) == 1
  assert not same(state.params, params)
