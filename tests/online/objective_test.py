"""Tests of PPO's clipped objective and its critic's error."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import base
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.online import objective
from tests.models import tiny

_POLICY = policy_lib.Policy(
  tiny.config(num_encoder_layers=1, num_decoder_layers=1)
)
_CRITIC = scalar.ScalarModel(_POLICY.config)
_LENGTHS = ((4, 2, 3), (5, 2, 4))

_LOSSES = [
  objective.ClippedObjective(),
  objective.ClippedObjective(value_clip=0.1, entropy_coefficient=0.3),
  objective.ClippedObjective(clip=None),
]


@functools.cache
def models():
  return (
    tiny.lively(tiny.init(_POLICY), seed=0),
    tiny.lively(tiny.init(_CRITIC, 1), seed=1),
  )


def case(seed=0, pad=0, fill=0.0):
  """A batch whose old policy and critic differ from the present ones."""
  batch = jax.tree.map(jnp.asarray, tiny.batch(seed, *_LENGTHS, pad=pad))
  random = np.random.default_rng(seed)
  params, critic = models()
  width = max(_LENGTHS[1])
  present = {
    'old_log_probs': tiny.jitted(_POLICY, 'log_probs')(params, batch),
    'old_values': jax.jit(_CRITIC.values)(critic, batch),
  }
  for name in ('old_log_probs', 'old_values', 'advantages', 'returns'):
    noise = random.normal(size=(3, width)).astype(np.float32) * 0.3
    noise = np.pad(noise, ((0, 0), (0, pad)), constant_values=fill)
    batch[name] = jnp.asarray(noise) + present.get(name, 0.0)
  return batch


def evaluated(loss, batch, both):
  return loss(
    base.Inputs(
      model=_POLICY,
      params=both[0],
      auxiliary=base.Auxiliary(learned={objective.VALUE: both[1]}),
      batch=batch,
    )
  )


@functools.partial(jax.jit, static_argnums=0)
def _compiled(loss, batch, both):
  return evaluated(loss, batch, both)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(loss, batch, both):
  return jax.grad(lambda both: evaluated(loss, batch, both).weighted_sum)(both)


def call(loss, batch):
  return _compiled(loss, batch, models())


def gradient(loss, batch):
  """With respect to policy and critic."""
  return _gradient(loss, batch, models())


def of(output, name):
  total, count = output.metrics[name]
  return float(total / count)


@pytest.mark.parametrize('clip', [0.2, 1e-6, None])
def test_at_ratio_one_its_gradient_is_the_policy_gradient(clip):
  batch = case()
  params, _ = models()
  # Exactly the present policy's, so that the ratio is 1 at every token.
  batch['old_log_probs'] = tiny.jitted(_POLICY, 'log_probs')(params, batch)
  loss = objective.ClippedObjective(clip=clip)
  weights = batch['decoder_loss_weights']

  def policy_gradient(params):
    log_probs = _POLICY.log_probs(params, batch)
    return -(batch['advantages'] * log_probs * weights).sum()

  found = gradient(loss, batch)[0]
  expected = jax.jit(jax.grad(policy_gradient))(params)
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
  if clip:
    assert of(call(loss, batch), 'clipped') == 0
  assert of(call(loss, batch), 'kl_to_old') == pytest.approx(0, abs=1e-6)


def test_the_loss_is_the_sum_of_its_parts_over_real_tokens():
  loss = objective.ClippedObjective(
    clip=0.1, value_clip=0.05, entropy_coefficient=0.2
  )
  batch = case(1)
  params, critic = models()
  logits = np.asarray(tiny.jitted(_POLICY, 'logits')(params, batch), np.float64)
  exponentials = np.exp(logits - logits.max(-1, keepdims=True))
  p = exponentials / exponentials.sum(-1, keepdims=True)
  values = np.asarray(tiny.jitted(_CRITIC, 'values')(critic, batch), np.float64)
  expected = 0.0
  for row, length in enumerate(_LENGTHS[1]):
    for t in range(length):
      of_token = {
        name: float(batch[name][row, t])
        for name in ('old_log_probs', 'old_values', 'advantages', 'returns')
      }
      target = batch['decoder_target_tokens'][row, t]
      ratio = p[row, t, target] / np.exp(of_token['old_log_probs'])
      advantage, goal = of_token['advantages'], of_token['returns']
      expected -= min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage)
      moved = values[row, t] - of_token['old_values']
      near = of_token['old_values'] + min(max(moved, -0.05), 0.05)
      expected += max((values[row, t] - goal) ** 2, (near - goal) ** 2) / 2
      expected += 0.2 * (p[row, t] * np.log(p[row, t])).sum()
  output = call(loss, batch)
  assert output.normalizer == sum(_LENGTHS[1])
  assert float(output.weighted_sum) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_padding_has_no_effect(loss):
  narrow, wide = call(loss, case(2)), call(loss, case(2, pad=3, fill=50.0))
  np.testing.assert_allclose(narrow.weighted_sum, wide.weighted_sum, rtol=1e-4)
  assert narrow.normalizer == wide.normalizer


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_masking_is_dropping_and_an_empty_mask_is_harmless(loss):
  batch = case(3)
  gone = {
    **batch,
    'decoder_loss_weights': batch['decoder_loss_weights']
    * jnp.array([[1.0], [0.0], [1.0]]),
  }
  kept = jax.tree.map(lambda x: x[np.array([0, 2])], batch)
  whole, part = call(loss, gone), call(loss, kept)
  np.testing.assert_allclose(whole.weighted_sum, part.weighted_sum, rtol=1e-4)
  assert whole.normalizer == part.normalizer

  empty = {
    **batch,
    'decoder_loss_weights': jnp.zeros_like(batch['decoder_loss_weights']),
    # What would overflow if padding were not taken out first.
    'old_log_probs': jnp.full_like(batch['old_log_probs'], -1e4),
  }
  gradients = gradient(loss, empty)
  assert call(loss, empty).weighted_sum == 0
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_policy_and_critic_share_no_gradient():
  batch = case(4)
  loss = objective.ClippedObjective()
  usual = gradient(loss, batch)
  other_returns = gradient(loss, {**batch, 'returns': batch['returns'] + 1.0})
  other_advantages = gradient(
    loss, {**batch, 'advantages': -batch['advantages']}
  )
  for name, changed, kept in (
    ('returns', other_returns[1], other_returns[0]),
    ('advantages', other_advantages[0], other_advantages[1]),
  ):
    same = usual[0] if name == 'returns' else usual[1]
    moved = usual[1] if name == 'returns' else usual[0]
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(same), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)
    assert any(
      np.abs(a - b).max() > 1e-3
      for a, b in zip(
        jax.tree.leaves(changed), jax.tree.leaves(moved), strict=True
      )
    )


def test_compiled_is_eager():
  batch = case(5)
  loss = _LOSSES[1]
  compiled = call(loss, batch)
  eager = evaluated(loss, batch, models())
  np.testing.assert_allclose(
    compiled.weighted_sum, eager.weighted_sum, rtol=1e-4
  )
  for name in eager.metrics:
    assert of(compiled, name) == pytest.approx(of(eager, name), abs=1e-4)


@pytest.mark.parametrize(
  'arguments',
  [{'clip': 0.0}, {'value_clip': -1.0}, {'entropy_coefficient': -1.0}],
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    objective.ClippedObjective(**arguments)
