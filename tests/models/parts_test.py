"""Networks of all kinds of parts: steps, packing, scans, axes, descriptions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax import settings
from rest_jax.models import network, network_config, parts
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh
from tests.models import families, tiny

_ALL = list(families.DESCRIBED)
S, T = 9, 7


def _batch(name):
  return families.batch(name, 0, [S, 4, 2], [T, 5, 6])


def _apply(policy, params, *arguments, **settings_):
  return policy.module.apply({'params': params}, *arguments, **settings_)


@pytest.mark.parametrize(
  ('name', 'is_ring'),
  [
    *((name, False) for name in _ALL),
    *((name, True) for name in ('nllb', 'bart', 't5gemma', 't5gemma2')),
  ],
)
def test_steps_give_the_logits_of_teacher_forcing(name, is_ring):
  """Positions one after the other, of rings where two sources began before."""
  policy, params = families.made(name)
  batch = _batch(name)
  sources, inputs = batch['encoder_input_tokens'], batch['decoder_input_tokens']
  expected = jax.jit(lambda *given: _apply(policy, *given))(
    params, sources, inputs
  )

  @jax.jit
  def steps(params, sources, inputs):
    encoded = _apply(policy, params, sources, method='encode')
    cross = _apply(policy, params, encoded, method='cross_attention_cache')
    # A ring whose places are written from 2 on, after a turn from 0.
    length = T + 1

    def step(caches, given):
      number, tokens = given
      logits, caches = _apply(
        policy,
        params,
        tokens[:, None],
        caches,
        cross,
        sources,
        (number + 2) % length if is_ring else number,
        ring_positions=jnp.full(3, number) if is_ring else None,
        method='decode_step',
      )
      return caches, logits[:, 0]

    caches = network.init_caches(policy.config, 3, 1, length)
    _, found = jax.lax.scan(step, caches, (jnp.arange(T), inputs.T))
    return jnp.swapaxes(found, 0, 1)

  np.testing.assert_allclose(
    steps(params, sources, inputs), expected, atol=2e-5
  )


@pytest.mark.parametrize('name', ['marian', 'nllb', 'bart', 't5gemma2'])
def test_packed_pairs_are_as_if_alone(name):
  policy, params = families.made(name)
  batch = families.batch(name, 1, [4, 3], [3, 5])
  logits = jax.jit(lambda batch: policy.logits(params, batch))
  alone = logits(batch)

  def joined(key, lengths):
    return jnp.concatenate([batch[key][i, : lengths[i]] for i in range(2)])[
      None
    ]

  def segments(lengths):
    return jnp.repeat(jnp.array([1, 2]), jnp.array(lengths))[None]

  packed = logits(
    {
      'encoder_input_tokens': joined('encoder_input_tokens', [4, 3]),
      'decoder_input_tokens': joined('decoder_input_tokens', [3, 5]),
      'decoder_target_tokens': joined('decoder_target_tokens', [3, 5]),
      'encoder_segment_ids': segments([4, 3]),
      'decoder_segment_ids': segments([3, 5]),
    }
  )
  np.testing.assert_allclose(packed[0, :3], alone[0, :3], atol=2e-5)
  np.testing.assert_allclose(packed[0, 3:], alone[1, :5], atol=2e-5)


@pytest.mark.parametrize('name', ['t5gemma', 't5gemma2'])
def test_scanned_layers_with_and_without_windows(name):
  policy, params = families.made(name)
  batch = _batch(name)
  scanned = policy_lib.Policy(
    dataclasses.replace(policy.config, scan_layers=True, remat='full')
  )
  for one in (policy, scanned):
    assert one.config.decoder_stack.attention.window_layers == (True, False)
  np.testing.assert_allclose(
    jax.jit(scanned.logits)(params, batch),
    jax.jit(policy.logits)(params, batch),
    atol=2e-5,
  )


@pytest.mark.parametrize('name', _ALL)
def test_every_axis_that_can_be_split_has_a_name(name):
  policy, params = families.made(name)
  known = {rule for rule, _ in mesh.DEFAULT_RULES}
  specs = policy.logical_axes()
  flat = jax.tree_util.tree_leaves_with_path(params)
  for path, leaf in flat:
    spec = specs
    for key in path:
      spec = spec[key.key]
    assert len(spec) == leaf.ndim, path
    # Positions alone have none.
    unnamed = spec[1:] if 'position_embedder' in str(path) else spec
    assert set(unnamed) <= known, path


@pytest.mark.parametrize('name', _ALL)
def test_a_description_makes_the_same_network(name):
  config = families.config(name)
  described = settings.describe(config)
  assert network_config.from_described(described) == config


def test_a_t5_is_described_as_before():
  described = settings.describe(tiny.config())
  assert not {'norm', 'positions', 'encoder', 'special_ids'} & set(described)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'attention': parts.AttentionConfig(num_key_value_heads=3)}, 'divide'),
    (
      {
        'positions': parts.PositionConfig(kind='rotary'),
        'head_dim': 3,
      },
      'head_dim must be even',
    ),
    ({'encoder': parts.EncoderConfig(emb_dim=8)}, 'is_shared must be False'),
    (
      {'encoder': parts.EncoderConfig(mlp_activations=('mish',))},
      'mlp_activations of the encoder',
    ),
  ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny.config(**changes)


@pytest.mark.parametrize(
  ('cls', 'values', 'message'),
  [
    (parts.NormConfig, {'kind': 'batch'}, 'kind must be one of'),
    (parts.PositionConfig, {'kind': 'learned'}, 'max_length'),
    (parts.AttentionConfig, {'window': (3,)}, 'window must be two numbers'),
    (parts.SpecialIds, {'pad': 1}, 'pad and eos must be different'),
  ],
)
def test_parts_that_mean_nothing_are_refused(cls, values, message):
  with pytest.raises(ValueError, match=message):
    cls(**values)


def test_learned_positions_end():
  policy, params = families.made('bart')
  batch = families.batch('bart', 0, [41], [3])
  with pytest.raises(ValueError, match='at most the 40 positions'):
    policy.logits(params, batch)
