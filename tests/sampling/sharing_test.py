"""Which hypotheses share a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import sharing
from tests.models import tiny
from tests.sampling import decoding

_after = jax.jit(sharing.after)


def test_by_hand():
  # Two sources of three samples. Of the first, samples 0 and 2 go on alike; of
  # the second, sample 0 is done, and 1 and 2 draw one token after two prefixes.
  found = _after(
    jnp.array([[0, 0, 0], [1, 1, 2]]),
    jnp.array([[7, 8, 7], [1, 9, 9]]),
    jnp.array([[False, False, False], [True, False, False]]),
  )
  assert found.num_rows == 4
  np.testing.assert_array_equal(found.row_of, [[0, 1, 0], [0, 2, 3]])
  np.testing.assert_array_equal(found.hypothesis_of, [0, 1, 4, 5, 0, 0])


def test_the_first_step_has_a_row_for_each_source_that_is_wanted():
  done = jnp.array([[False, True], [True, True], [False, False]])
  found = sharing.first(done)
  assert found.num_rows == 2
  np.testing.assert_array_equal(found.hypothesis_of[:2], [0, 4])
  np.testing.assert_array_equal(found.row_of, [[0, 0], [0, 0], [1, 1]])


@pytest.mark.parametrize('size', [(4, 6), (3, 500)])
def test_rows_are_the_distinct_prefixes(size):
  random = np.random.default_rng(size[1])
  done = random.random(size) < 0.1
  tokens = random.integers(0, 3, (5, *size))
  found = sharing.first(jnp.asarray(done))
  for step in range(5):
    done = done | (random.random(size) < 0.1)
    found = _after(found.row_of, jnp.asarray(tokens[step]), jnp.asarray(done))
    prefixes = {}
    for b, n in np.ndindex(size):
      if not done[b, n]:
        prefix = (b, *tokens[: step + 1, b, n])
        prefixes.setdefault(prefix, []).append(b * size[1] + n)
    assert found.num_rows == len(prefixes)
    # In the order of their first hypotheses, and nothing else has a row.
    firsts = [members[0] for members in prefixes.values()]
    np.testing.assert_array_equal(
      np.asarray(found.hypothesis_of)[: len(firsts)], firsts
    )
    row_of = np.asarray(found.row_of).reshape(-1)
    for row, members in enumerate(prefixes.values()):
      assert (row_of[members] == row).all()


def test_shared_rows_give_each_hypothesis_its_logits():
  """Against a row for each, with caches that differ among the sources."""
  policy = policy_lib.Policy(tiny.config())
  params = tiny.lively(tiny.init(policy))

  def apply(method, *arguments):
    return policy.module.apply({'params': params}, *arguments, method=method)

  sources = jnp.array([[5, 6, 1], [9, 1, 0]])
  tokens = jnp.array([[[0, 0, 0], [0, 0, 0]], [[4, 4, 7], [8, 3, 8]]])
  cross = apply('cross_attention_cache', apply('encode', sources))
  caches = shared = network.init_caches(policy.config, 2, 3, 4)
  state = sharing.first(jnp.zeros((2, 3), bool))
  for position, token in enumerate(tokens):
    if position:
      state = sharing.after(state.row_of, token, jnp.zeros((2, 3), bool))
    own, caches = apply(
      'decode_step', token, caches, cross, sources, position, None
    )
    rows = state.rows(capacity=5)
    logits, shared = apply(
      'decode_step', token, shared, cross, sources, position, rows
    )
    assert logits.shape[0] == 5
    np.testing.assert_allclose(rows.expand(logits), own, atol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), caches, shared
    )


def test_steps_compute_no_more_rows_than_needed(monkeypatch):
  """Samples that cannot differ are one row a source, whatever N."""
  computed = decoding.count_rows(monkeypatch)
  policy = policy_lib.Policy(tiny.config())
  vocab = policy.config.vocab_size
  program = decoding.program(
    policy, (2, 5), (2, 4), forbidden=(0, 1, *range(3, vocab))
  )
  inputs = decoding.inputs([[5, 1], [6, 1]], 4)
  outputs = decoding.decoded(program, tiny.init(policy), inputs)
  jax.effects_barrier()
  assert computed == [2] * 5
  assert (outputs.tokens == 2).all()
