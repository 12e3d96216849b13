"""Draws from logits by inverse CDF, and the uniform numbers behind them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rest_jax.sampling import categorical

# Below, at, and above one block; with and without a divisor to cut by.
_VOCAB_SIZES = (3, 128, 1000, 1009)


@functools.partial(jax.jit, static_argnames='forbidden')
def _draw(*arguments, **settings):
  return categorical.draw(*arguments, **settings)[0]


@functools.partial(jax.jit, static_argnames='forbidden')
def _greedy(*arguments, **settings):
  return categorical.greedy(*arguments, **settings)[0]


_uniform_numbers = jax.jit(categorical.uniforms, static_argnames='num_steps')


def _probabilities(logits, inverse_temperature=1.0, forbidden=()):
  logits = np.array(logits, np.float64)
  logits[..., list(forbidden)] = -np.inf
  scaled = logits * inverse_temperature
  weights = np.exp(scaled - scaled.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def _logits(rows, vocab_size, seed=0, scale=3.0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(scale * rng.normal(size=(rows, vocab_size)), jnp.float32)


class TestDraw:
  @pytest.mark.parametrize('vocab_size', _VOCAB_SIZES)
  def test_inverts_the_cumulative_distribution(self, vocab_size):
    forbidden = () if vocab_size == 3 else (0, 2)
    logits = _logits(500, vocab_size)
    uniform = np.random.default_rng(1).uniform(size=500).astype(np.float32)
    tokens = _draw(logits, jnp.asarray(uniform), 1.25, forbidden=forbidden)
    # The token's own interval of the distribution, in the order of ids, must
    # hold the number; rounding moves an edge by less than 1e-5.
    probabilities = _probabilities(logits, 1.25, forbidden)
    upper = np.cumsum(probabilities, -1)
    chosen = np.asarray(tokens)[:, None]
    below = np.take_along_axis(upper - probabilities, chosen, 1)[:, 0]
    above = np.take_along_axis(upper, chosen, 1)[:, 0]
    assert np.all(below - 1e-5 <= uniform)
    assert np.all(uniform <= above + 1e-5)

  def test_even_numbers_give_each_token_its_share(self):
    count = 2**16
    logits = jnp.broadcast_to(_logits(1, 300, seed=2), (count, 300))
    uniform = (jnp.arange(count) + 0.5) / count
    tokens = _draw(logits, uniform, forbidden=(0, 2, 299))
    expected = count * _probabilities(logits[0], 1.0, (0, 2, 299))
    counts = np.bincount(tokens, minlength=300)
    assert counts[[0, 2, 299]].tolist() == [0, 0, 0]
    # A share ends at two edges; each is off by a number at most.
    assert np.abs(counts - expected).max() <= 2

  @pytest.mark.parametrize('vocab_size', _VOCAB_SIZES)
  def test_never_a_token_of_probability_zero(self, vocab_size):
    rng = np.random.default_rng(vocab_size)
    logits = np.array(_logits(200, vocab_size, scale=20.0))
    # Most tokens impossible, whole blocks of them; one is always possible.
    possible = rng.uniform(size=logits.shape) < rng.uniform(size=(200, 1)) ** 3
    possible[np.arange(200), rng.integers(0, vocab_size, 200)] = True
    forbidden = () if vocab_size == 3 else (0, 2, vocab_size - 1)
    possible[:, list(forbidden)] = False
    possible[:, 1] |= ~possible.any(-1)
    logits[~possible] = -np.inf
    # Were they not forbidden, these would always be drawn.
    logits[:, list(forbidden)] = 500.0
    for edge in (0.0, 1e-45, 1e-30, 0.5, 1 - 2**-24, 1.0):
      tokens = _draw(
        jnp.asarray(logits),
        jnp.full(200, edge, jnp.float32),
        forbidden=forbidden,
      )
      assert possible[np.arange(200), np.asarray(tokens)].all(), edge

  def test_edges_are_the_first_and_the_last_token(self):
    logits = jnp.zeros((2, 1000))
    tokens = _draw(logits, jnp.array([0.0, 1.0]), forbidden=(0, 2, 999))
    assert tokens.tolist() == [1, 998]

  def test_running_sums_that_fall_short_end_at_a_positive_weight(self):
    # In float32 the running sum of these never reaches a target above it.
    weights = jnp.array([[0.0, 1.0, 2**-25, 0.0], [1.0, 0.0, 1.0, 0.0]])
    first, rest = categorical._first_above(weights, jnp.array([9.0, 1.0]))
    assert first.tolist() == [2, 2]
    assert rest[1] == 0.0

  def test_compiled_is_eager(self):
    logits = _logits(300, 20)
    uniform = jax.random.uniform(jax.random.key(2), (300,))
    eager, _ = categorical.draw(logits, uniform)
    compiled = _draw(logits, uniform)
    assert np.mean(np.asarray(eager) == np.asarray(compiled)) > 0.99

  def test_several_draws_of_a_row_are_those_of_its_copies(self):
    logits = _logits(40, 1000)
    row_of = jnp.asarray(np.random.default_rng(0).integers(0, 40, 300))
    uniform = jax.random.uniform(jax.random.key(3), (300,))
    settings = {'forbidden': (0, 2, 999)}
    tokens, log_probs = categorical.draw(
      logits, uniform, 1.25, row_of=row_of, **settings
    )
    copies, expected = categorical.draw(
      logits[row_of], uniform, 1.25, **settings
    )
    np.testing.assert_array_equal(tokens, copies)
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)

  @pytest.mark.parametrize('vocab_size', _VOCAB_SIZES)
  @pytest.mark.parametrize('forbidden', [(), (0, 2)])
  def test_log_probs_are_of_all_tokens(self, vocab_size, forbidden):
    # A forbidden token may be far likelier than all others.
    logits = (_logits(50, vocab_size) * 30).at[:, 0].set(500.0)
    uniform = jax.random.uniform(jax.random.key(4), (50,))
    exact = np.asarray(logits, np.float64)
    exact = exact - special.logsumexp(exact, axis=-1, keepdims=True)
    for tokens, log_probs in (
      categorical.draw(logits, uniform, 1.25, forbidden=forbidden),
      categorical.greedy(logits, forbidden=forbidden),
    ):
      np.testing.assert_allclose(
        log_probs, exact[np.arange(50), tokens], rtol=1e-6, atol=1e-4
      )

  def test_what_other_devices_compute_is_the_same(self):
    values = jax.random.normal(jax.random.key(0), (20, 7, 5))
    values = values.at[:, 3, 2].set(-jnp.inf)
    block = jnp.asarray(np.random.default_rng(1).integers(0, 7, 20))
    np.testing.assert_array_equal(
      categorical._picked(values, block), categorical._gathered(values, block)
    )


def _nucleus(probabilities, top_k, top_p):
  """The distribution over the likeliest tokens, one row at a time."""
  kept = np.zeros_like(probabilities)
  for row, probability in enumerate(probabilities):
    order = np.argsort(-probability, kind='stable')[:top_k]
    share = probability[order] / probability[order].sum()
    number = int(np.searchsorted(np.cumsum(share), top_p - 1e-9)) + 1
    kept[row, order[:number]] = probability[order[:number]]
  return kept / kept.sum(-1, keepdims=True)


class TestDrawLikeliest:
  @pytest.mark.parametrize(
    ('top_k', 'top_p'), [(5, 1.0), (None, 0.7), (6, 0.5), (10_000, 0.999)]
  )
  def test_fits_the_likeliest_tokens(self, top_k, top_p):
    forbidden = (0, 2)
    logits = _logits(1, 20, scale=2.0)
    # Evenly spread numbers give each token its share of them.
    count = 4000
    uniform = (jnp.arange(count) + 0.5) / count
    tokens, log_probs = jax.jit(
      lambda logits, uniform: categorical.draw_likeliest(
        logits,
        uniform,
        1.25,
        top_k=top_k,
        top_p=top_p,
        forbidden=forbidden,
        row_of=jnp.zeros(count, jnp.int32),
      )
    )(logits, uniform)
    expected = _nucleus(_probabilities(logits, 1.25, forbidden), top_k, top_p)[
      0
    ]
    share = np.bincount(tokens, minlength=20) / count
    np.testing.assert_allclose(share, expected, atol=2 / count)
    exact = np.log(_probabilities(logits))[0][np.asarray(tokens)]
    np.testing.assert_allclose(log_probs, exact, atol=1e-5)

  @pytest.mark.parametrize(
    ('top_k', 'top_p'), [(None, 1.0), (5, 1.0), (None, 0.7), (6, 0.5)]
  )
  def test_their_logits_have_the_same_distribution(self, top_k, top_p):
    logits = _logits(50, 20, scale=2.0)
    found = _probabilities(
      categorical.likeliest(logits, top_k=top_k, top_p=top_p)
    )
    expected = _nucleus(_probabilities(logits), top_k, top_p)
    np.testing.assert_allclose(
      -np.sort(-found, -1), -np.sort(-expected, -1)[:, : top_k or 20], atol=1e-6
    )

  def test_one_token_is_greedy(self):
    logits = _logits(200, 300)
    uniform = jax.random.uniform(jax.random.key(5), (200,))
    expected, _ = categorical.greedy(logits)
    for settings in ({'top_k': 1}, {'top_p': 1e-6}):
      tokens, _ = categorical.draw_likeliest(logits, uniform, **settings)
      np.testing.assert_array_equal(tokens, expected)


class TestGreedy:
  @pytest.mark.parametrize('vocab_size', _VOCAB_SIZES)
  def test_is_argmax(self, vocab_size):
    # Whole numbers: many equal maxima.
    logits = jnp.round(_logits(300, vocab_size, scale=1.0))
    np.testing.assert_array_equal(_greedy(logits), np.argmax(logits, -1))

  def test_passes_over_forbidden_tokens(self):
    logits = jnp.array([[9.0, 1.0, 8.0, 7.0], [9.0, 7.0, 8.0, 1.0]])
    tokens = _greedy(logits, forbidden=(0, 2))
    assert tokens.tolist() == [3, 1]


def _uniforms(source_ids, sample_ids, num_steps=6, seed=0, grow_step=0):
  return np.asarray(
    _uniform_numbers(
      categorical.base_key(seed, grow_step),
      jnp.asarray(categorical.split_words(np.asarray(source_ids))),
      jnp.asarray(sample_ids, jnp.uint32),
      num_steps=num_steps,
    )
  )


class TestUniforms:
  def test_are_uniform_and_inside_the_unit_interval(self):
    numbers = _uniforms(np.arange(40), np.arange(20), num_steps=30)
    assert numbers.shape == (30, 40, 20)
    assert numbers.dtype == np.float32
    assert numbers.min() > 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), 'uniform').pvalue > 1e-3

  @pytest.mark.parametrize(
    ('word', 'expected'), [(0, 2.0**-24), (2**32 - 1, 1 - 2.0**-24)]
  )
  def test_extreme_bits_stay_inside(self, monkeypatch, word, expected):
    monkeypatch.setattr(
      categorical.prng,
      'threefry_2x32',
      lambda *_: jnp.full(2, word, jnp.uint32),
    )
    number = categorical.uniforms(
      categorical.base_key(0, 0),
      jnp.zeros((1, 2), jnp.uint32),
      jnp.zeros(1, jnp.uint32),
      1,
    )
    assert number.item() == np.float32(expected)

  def test_depend_on_source_sample_and_step_alone(self):
    numbers = _uniforms([7, 3, 9, 11], [0, 1, 2, 5], num_steps=6)
    part = _uniforms([11, 3], [5, 1], num_steps=4)
    np.testing.assert_array_equal(part[:, 0, 0], numbers[:4, 3, 3])
    np.testing.assert_array_equal(part[:, 1, 1], numbers[:4, 1, 1])

  def test_differ_in_every_part_of_the_key(self):
    groups = [
      _uniforms([1, 2, 2**32 + 1, 2**32 + 2, 2**62 + 1], [0, 1, 2]),
      _uniforms([1], [0], seed=1),
      _uniforms([1], [0], grow_step=1),
      _uniforms([1], [0], seed=2**32 - 1),
    ]
    numbers = np.concatenate([group.ravel() for group in groups])
    assert len(np.unique(numbers)) == len(numbers)


class TestKeys:
  def test_splits_ids_into_words(self):
    ids = np.array([0, 5, 2**32, 2**33 + 7, 2**63 - 1])
    assert categorical.split_words(ids).tolist() == [
      [0, 0],
      [0, 5],
      [1, 0],
      [2, 7],
      [2**31 - 1, 2**32 - 1],
    ]

  @pytest.mark.parametrize('ids', [[-1], [3, -(2**40)]])
  def test_refuses_negative_ids(self, ids):
    with pytest.raises(ValueError, match='must not be negative; got -'):
      categorical.split_words(np.array(ids))

  def test_refuses_ids_that_are_no_integers(self):
    with pytest.raises(ValueError, match='must be integers; got float64'):
      categorical.split_words(np.array([1.0]))

  @pytest.mark.parametrize('name', ['seed', 'grow_step'])
  @pytest.mark.parametrize('value', [-1, 2**32])
  def test_refuses_numbers_beyond_a_word(self, name, value):
    arguments = {'seed': 0, 'grow_step': 0, name: value}
    with pytest.raises(ValueError, match=rf'{name} must lie in .* {value}'):
      categorical.base_key(**arguments)
