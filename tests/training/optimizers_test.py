"""Tests of schedules and updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest_jax.training import optimizers
from tests.models import tiny
from tests.training import toy


def test_schedules_by_hand():
  def rates(**arguments):
    return optimizers.OptimizerConfig(
      learning_rate=1.0, warmup_steps=4, **arguments
    ).learning_rates(12)

  np.testing.assert_allclose(rates()[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
  linear = rates(decay='linear', final_fraction=0.2)
  np.testing.assert_allclose(linear[[4, 8]], [1.0, 0.6], rtol=1e-6)
  cosine = rates(decay='cosine')
  np.testing.assert_allclose(cosine[8], 0.5, rtol=1e-5)
  # rsqrt: sqrt(4 / (4 + steps after the warm-up)).
  np.testing.assert_allclose(
    rates(decay='rsqrt')[[4, 8]], [1.0, np.sqrt(0.5)], rtol=1e-6
  )


def apply(config, params, gradient, rate):
  direction = config.direction()
  updates, _ = direction.update(gradient, direction.init(params), params)
  return jax.tree.map(lambda p, u: p + rate * u, params, updates)


def test_adamw_by_hand_and_decay_spares_scales():
  config = optimizers.OptimizerConfig(
    weight_decay=0.5, clip_norm=None, eps=0.0, parameter_scale=False
  )
  params = {'kernel': jnp.full((1, 2), 2.0), 'scale': jnp.full((2,), 2.0)}
  gradient = jax.tree.map(jnp.ones_like, params)
  new = apply(config, params, gradient, 0.1)
  # Adam's first step is the sign; the matrix also decays by 0.1 * 0.5 * 2.
  np.testing.assert_allclose(new['kernel'], 2 - 0.1 - 0.1, rtol=1e-5)
  np.testing.assert_allclose(new['scale'], 2 - 0.1, rtol=1e-5)


def test_adamw_equals_optax_with_its_own_rate():
  config = optimizers.OptimizerConfig(
    weight_decay=0.1, clip_norm=1.0, parameter_scale=False
  )
  params = {'kernel': jnp.arange(6.0).reshape(2, 3)}
  gradient = {'kernel': jnp.ones((2, 3)) * 5}
  peer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(0.3, b1=0.9, b2=0.98, eps=1e-9, weight_decay=0.1),
  )
  updates, _ = peer.update(gradient, peer.init(params), params)
  np.testing.assert_allclose(
    apply(config, params, gradient, 0.3)['kernel'],
    optax.apply_updates(params, updates)['kernel'],
    rtol=1e-5,
  )


@pytest.mark.parametrize('kind', optimizers.KINDS)
def test_updates_follow_the_size_of_the_parameter(kind):
  config = optimizers.OptimizerConfig(kind=kind, clip_norm=None, eps=0.0)
  params = {
    'large': jnp.full((4, 4), 3.0),
    'small': jnp.full((4, 4), 0.03),
    'zero': jnp.zeros((4, 4)),
  }
  gradient = jax.tree.map(lambda p: jnp.full_like(p, 7.0), params)
  new = apply(config, params, gradient, 0.1)
  # The first step is the sign of the gradient, times rate and RMS.
  np.testing.assert_allclose(new['large'], 3.0 - 0.3, rtol=1e-5)
  np.testing.assert_allclose(new['small'], 0.03 - 0.003, rtol=1e-5)
  # What is zero can still move.
  np.testing.assert_allclose(new['zero'], -1e-4, rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
  params = {'a': jnp.ones((2, 2)), 'b': jnp.ones((2, 2))}
  gradient = {'a': jnp.full((2, 2), 30.0), 'b': jnp.full((2, 2), 40.0)}

  def second_moment(clip_norm):
    config = optimizers.OptimizerConfig(clip_norm=clip_norm)
    direction = config.direction()
    _, state = direction.update(gradient, direction.init(params), params)
    moments = optax.tree.get(state, 'nu')
    return float(moments['b'][0, 0]) / (1 - config.b2)

  # The norm is 100: 40 becomes 0.4 under a limit of 1.
  assert second_moment(None) == pytest.approx(1600.0, rel=1e-4)
  assert second_moment(1.0) == pytest.approx(0.16, rel=1e-4)


def test_schedule_fields_do_not_change_the_direction():
  a = optimizers.OptimizerConfig(learning_rate=1e-4, warmup_steps=7)
  b = optimizers.OptimizerConfig(learning_rate=1e-2, decay='cosine')
  assert a.without_schedule() == b.without_schedule()
  c = optimizers.OptimizerConfig(b1=0.5)
  assert a.without_schedule() != c.without_schedule()


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'kind': 'sgd'}, 'kind'),
    ({'decay': 'step'}, 'decay'),
    ({'learning_rate': 0.0}, 'learning_rate'),
    ({'warmup_steps': -1}, 'warmup_steps'),
    ({'clip_norm': 0.0}, 'clip_norm'),
  ],
)
def test_wrong_settings(arguments, message):
  with pytest.raises(ValueError, match=message):
    optimizers.OptimizerConfig(**arguments)


@pytest.mark.parametrize('kind', optimizers.KINDS)
def test_what_is_no_weight_matrix_is_not_scaled_by_its_size(kind):
  config = optimizers.OptimizerConfig(
    kind=kind, clip_norm=None, eps=0.0, weight_decay=0.5
  )
  params = {
    'kernel': jnp.full((2, 2), 3.0),
    'rel_embedding': jnp.full((2, 2), 3.0),
    'scale': jnp.full((4,), 3.0),
    # Vectors of three layers, stacked for a scan.
    'layers': {'scale': jnp.full((3, 4), 3.0), 'bias': jnp.full((3, 4), 3.0)},
    'log_temperature': jnp.float32(3.0),
  }
  gradient = jax.tree.map(lambda p: jnp.full_like(p, 7.0), params)
  new = apply(config, params, gradient, 0.1)
  # The first step is the sign of the gradient, times rate and RMS; a matrix also
  # decays by 0.1 * 0.5 * 3.
  for name in ('kernel', 'rel_embedding'):
    np.testing.assert_allclose(new[name], 3.0 - 0.3 - 0.15, rtol=1e-5)
  for leaf in (new['scale'], *new['layers'].values(), new['log_temperature']):
    np.testing.assert_allclose(leaf, 2.9, rtol=1e-5)


def test_a_scalar_neither_counts_in_the_clip_nor_is_clipped():
  config = optimizers.OptimizerConfig()
  direction = config.direction()
  params = {'kernel': jnp.ones((2, 2)), 'scale': jnp.ones(4), 's': jnp.ones(())}
  gradient = {
    'kernel': jnp.full((2, 2), 30.0),
    'scale': jnp.full((4,), 40.0),
    's': jnp.float32(1e6),
  }
  _, state = direction.update(gradient, direction.init(params), params)
  moments = optax.tree.get(state, 'nu')
  # The norm is 100: 30 becomes 0.3 and 40 becomes 0.4 under a limit of 1.
  scale = 1 - config.b2
  np.testing.assert_allclose(moments['kernel'], scale * 0.09, rtol=1e-4)
  np.testing.assert_allclose(moments['scale'], scale * 0.16, rtol=1e-4)
  np.testing.assert_allclose(moments['s'], scale * 1e12, rtol=1e-4)


def test_matrices_of_a_network_by_name():
  params = tiny.init(toy.make_policy())
  found = optimizers.is_matrix(params)
  vectors = {
    jax.tree_util.keystr(path[-1:], simple=True)
    for path, is_matrix in jax.tree_util.tree_leaves_with_path(found)
    if not is_matrix
  }
  assert vectors == {'scale'}
