"""A queue of sources against blocks, and the rings that its caches are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import refill, shapes
from tests import rounding
from tests.models import tiny
from tests.sampling import decoding

_NUM_SAMPLES = 3


def _policy(**sizes):
  sizes = {'num_encoder_layers': 1, 'num_decoder_layers': 1} | sizes
  policy = policy_lib.Policy(tiny.config(**sizes))
  return policy, tiny.lively(tiny.init(policy))


def _queue(block, num_places, num_waiting, **settings):
  settings = {**vars(block), **settings}
  return refill.Refill(
    num_places=num_places, num_waiting=num_waiting, **settings
  )


def _inputs(num_sources, num_wanted, vocab_size):
  rng = np.random.default_rng(num_sources)
  sources = rng.integers(3, vocab_size, (num_sources, 5))
  sources[:, -1] = 1
  active = np.zeros((num_sources, _NUM_SAMPLES), bool)
  active[:num_wanted] = True
  return decoding.inputs(sources, _NUM_SAMPLES, active)


@pytest.mark.parametrize(
  ('settings', 'num_places', 'num_waiting', 'num_wanted'),
  [
    ({}, 2, 1, 11),
    ({'capacities': (2, 5)}, 4, 3, 12),
    ({'capacities': (2,)}, 3, 3, 2),
    ({'greedy': True, 'capacities': (4,)}, 6, 2, 7),
    ({'top_k': 4}, 4, 1, 12),
  ],
)
def test_hypotheses_are_those_of_a_block(
  settings, num_places, num_waiting, num_wanted
):
  policy, params = _policy()
  program = decoding.program(policy, (14,), **settings)
  inputs = _inputs(12, num_wanted, policy.config.vocab_size)
  block = decoding.decoded(program, params, inputs)
  queue = decoding.decoded(
    _queue(program, num_places, num_waiting), params, inputs
  )
  assert len({*block.lengths[:num_wanted].ravel()}) > 1 or num_wanted == 2
  np.testing.assert_array_equal(queue.tokens, block.tokens)
  np.testing.assert_array_equal(queue.lengths, block.lengths)
  np.testing.assert_array_equal(queue.finished, block.finished)
  np.testing.assert_allclose(queue.log_probs, block.log_probs, rtol=1e-5)
  assert not queue.lengths[num_wanted:].any()


def test_what_does_not_fit_comes_back_unfinished():
  """The first M tokens of the same, whatever else the places hold meanwhile."""
  policy, params = _policy()
  inputs = _inputs(12, 12, policy.config.vocab_size)
  program = decoding.program(policy, (14,))
  block = decoding.decoded(program, params, inputs)
  rings = _queue(program, 4, 2, loops=shapes.Loops((4,)))
  short = decoding.decoded(rings, params, inputs)
  assert 0 < np.sum(block.lengths > 4) < block.lengths.size
  assert short.tokens.shape[-1] == 4
  np.testing.assert_array_equal(short.tokens, block.tokens[..., :4])
  np.testing.assert_array_equal(short.lengths, np.minimum(block.lengths, 4))
  np.testing.assert_array_equal(
    short.finished, block.finished & (block.lengths <= 4)
  )
  whole = short.finished
  np.testing.assert_allclose(
    short.log_probs[whole], block.log_probs[whole], rtol=1e-5
  )


def test_no_place_is_empty_while_sources_wait(monkeypatch):
  """Against the steps that follow from the hypotheses' lengths."""
  computed = decoding.count_rows(monkeypatch)
  policy, params = _policy()
  num_places = 4
  inputs = _inputs(12, 12, policy.config.vocab_size)
  # One hypothesis a source, whose lengths differ more than the longest of three.
  inputs.active[:, 1:] = False
  outputs = decoding.decoded(
    _queue(decoding.program(policy, (14,)), num_places, 1), params, inputs
  )
  jax.effects_barrier()
  ends = [0] * num_places
  for steps in outputs.lengths.max(1):
    first = ends.index(min(ends))
    ends[first] += steps
  assert len(computed) == max(ends)
  blocks = outputs.lengths.max(1).reshape(-1, num_places).max(1).sum()
  assert len(computed) < blocks


@pytest.mark.parametrize('relative_bias_per_layer', [False, True])
def test_a_ring_gives_the_logits_of_a_cache(relative_bias_per_layer):
  """Two sources, the second of which begins three steps later, in 4 of 5 places."""
  policy, params = _policy(
    num_decoder_layers=2, relative_bias_per_layer=relative_bias_per_layer
  )
  config = policy.config

  def apply(method, *arguments, **settings):
    return policy.module.apply(
      {'params': params}, *arguments, method=method, **settings
    )

  rng = np.random.default_rng(0)
  sources = jnp.array([[5, 6, 1], [9, 1, 0]])
  tokens = jnp.asarray(rng.integers(3, config.vocab_size, (2, 2, 5)))
  cross = apply('cross_attention_cache', apply('encode', sources))
  expected = []
  caches = network.init_caches(config, 2, 2, 5)
  for position in range(5):
    logits, caches = apply(
      'decode_step', tokens[..., position], caches, cross, sources, position
    )
    expected.append(logits)
  # What others have left in the rings is not to be seen.
  rings = jax.tree.map(
    lambda leaf: leaf + 7.0, network.init_caches(config, 2, 2, 5)
  )
  for clock in range(4, 12):
    positions = np.array([clock - 4, clock - 7])
    at = np.clip(positions, 0, 4)
    logits, rings = apply(
      'decode_step',
      tokens[np.arange(2), :, at],
      rings,
      cross,
      sources,
      clock % 5,
      ring_positions=jnp.asarray(positions),
    )
    for source in range(2):
      if 0 <= positions[source] < 5:
        rounding.assert_close(
          logits[source],
          expected[at[source]][source],
          num_terms=tiny.logit_terms(config, 3, 5),
        )
