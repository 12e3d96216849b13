"""Samples of many sources: layout, distribution, order, and errors."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rest_jax.data import ragged
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import blocks, categorical
from rest_jax.sampling import sampler as sampler_lib
from tests.models import tiny
from tests.parallel import eight
from tests.training import toy

_NUM_SOURCES = 23
# Blocks and a queue of one shape each, for what does not depend on shapes.
_ONE_SHAPE = {
  'source_length_buckets': (16,),
  'cache_stages': (24,),
  'compact_shares': (),
}
_POLICY = toy.make_policy(vocab_size=48)


def _sampler(mesh_config=None, vocabulary_size=None, **settings):
  settings = {
    'num_samples_per_source': 4,
    'temperature': 0.8,
    'max_target_length': 24,
    'block_sources': 2,
    'source_length_buckets': (8, 16),
    # A few loops to compile in place of a dozen.
    'cache_stages': (8,),
    'row_shares': (0.5,),
    'compact_shares': (0.25,),
    # Of both buckets, for whose hypotheses it is often too short.
    'queue_length': 0.5,
    **settings,
  }
  # One device unless told, whatever the machine has.
  mesh = (
    mesh_lib.MeshConfig().build(jax.devices()[:1])
    if mesh_config is None
    else mesh_config.build()
  )
  return sampler_lib.Sampler(
    _POLICY,
    sampler_lib.DecodeConfig(**settings),
    mesh,
    vocabulary_size=vocabulary_size,
  )


def _sources():
  rng = np.random.default_rng(0)
  return ragged.Ragged.from_lists(
    [
      np.append(rng.integers(3, 48, length - 1), 1)
      for length in rng.integers(2, 17, _NUM_SOURCES)
    ]
  )


@functools.cache
def _params():
  return tiny.init(_POLICY)


def _sample(sampler, ids=None, *, params=None, seed=5, grow_step=1, **settings):
  return sampler.sample_all(
    _params() if params is None else params,
    _sources(),
    np.arange(_NUM_SOURCES) if ids is None else np.asarray(ids),
    seed=seed,
    grow_step=grow_step,
    **settings,
  )


def _flat(block):
  """(source id, sample id) -> (tokens, log-probability, finished), exactly."""
  return {
    (int(source_id), sample): (
      tuple(tokens.tolist()),
      block.log_probs[i, sample].tobytes(),
      bool(block.finished[i, sample]),
    )
    for i, source_id in enumerate(block.source_ids)
    for sample, tokens in enumerate(block.tokens[i])
  }


def _digest(block):
  return hashlib.sha256(repr(sorted(_flat(block).items())).encode()).hexdigest()


@pytest.fixture(scope='module')
def samples():
  sampler = _sampler()
  items = sampler._plan(_sources(), np.arange(_NUM_SOURCES))
  assert any(item.shape.num_places for item in items)
  return _sample(sampler)


class TestLayout:
  @pytest.mark.parametrize('blocks_in_flight', [1, 3, 7])
  def test_blocks_in_flight_change_nothing(self, samples, blocks_in_flight):
    sampler = _sampler(blocks_in_flight=blocks_in_flight)
    assert _flat(_sample(sampler)) == _flat(samples)

  def test_devices_change_nothing(self, samples, tmp_path_factory):
    found = eight.found(tmp_path_factory.getbasetemp())['sampling.meshes']
    assert found == [[8, _digest(samples)], [2, _digest(samples)]]

  @pytest.mark.parametrize(
    'ids', [[17], [22, 3, 9, 10, 4], list(range(_NUM_SOURCES))[::-1]]
  )
  def test_neighbours_change_nothing_where_rows_are_not_shared(self, ids):
    sampler = _sampler(row_shares=(), queue_sources=None)
    part = _sample(sampler, ids)
    assert part.source_ids.tolist() == ids
    everything = _flat(_sample(sampler))
    expected = {
      key: value for key, value in everything.items() if key[0] in ids
    }
    assert _flat(part) == expected

  @pytest.mark.parametrize(
    'shape',
    [
      {'block_sources': 5},
      {'samples_per_block': 3},
      pytest.param({'row_shares': ()}, marks=pytest.mark.full),
      {'row_shares': (0.3, 0.6, 0.9)},
      pytest.param({'compact_shares': ()}, marks=pytest.mark.full),
      {'compact_shares': (0.9, 0.6, 0.3)},
      {'cache_stages': (3, 9)},
      {'queue_sources': None},
      pytest.param({'queue_sources': 7}, marks=pytest.mark.full),
    ],
  )
  def test_shapes_change_no_more_than_rounding(self, samples, shape):
    other = _sample(_sampler(source_length_buckets=(16,), **shape))
    differ = []
    for i in range(_NUM_SOURCES):
      for n in range(4):
        if np.array_equal(other.tokens[i][n], samples.tokens[i][n]):
          difference = other.log_probs[i, n] - samples.log_probs[i, n]
          assert abs(difference) < 1e-4
        else:
          differ.append(
            (i, n, _distance_to_boundary(i, n, samples.tokens, other.tokens))
          )
    assert all(distance < 1e-5 for _, _, distance in differ), differ
    assert len(differ) < 0.1 * _NUM_SOURCES * 4

  def test_groups_of_samples_are_those_of_the_whole(self):
    # The same block shape, so bit for bit: samples 0-3, then 4 and 5.
    groups = _flat(
      _sample(_sampler(num_samples_per_source=6, samples_per_block=4))
    )
    first = _flat(_sample(_sampler(num_samples_per_source=4)))
    assert {key: groups[key] for key in first} == first
    assert len(groups) == 6 * _NUM_SOURCES
    assert len({groups[0, n][0] for n in range(6)}) > 3

  def test_nothing_is_compiled_twice(self):
    first, second = _sampler(), _sampler(temperature=0.5, blocks_in_flight=3)
    _sample(first)
    function = blocks.compiled(first._program, first._meshes[0])
    compilations = function._cache_size()
    _sample(second, params=jax.tree.map(lambda leaf: 2 * leaf, _params()))
    assert blocks.compiled(second._program, second._meshes[0]) is function
    assert function._cache_size() == compilations

  def test_a_mesh_of_the_caller_does_no_harm(self, samples):
    config = mesh_lib.MeshConfig()
    with mesh_lib.use(config.build(), config.rules):
      assert _flat(_sample(_sampler())) == _flat(samples)


class TestKeys:
  def test_seed_and_grow_step_give_other_samples(self, samples):
    for other in ({'seed': 6}, {'grow_step': 2}):
      again = _sample(_sampler(), [0, 1], **other)
      assert all(
        row != _flat(samples)[key] for key, row in _flat(again).items()
      )

  def test_ids_beyond_32_bits_are_told_apart(self):
    ids = np.array([3, 3 + 2**32, 3 + 2**40])
    block = _sample(_sampler(), ids, rows=np.array([3, 3, 3]))
    texts = {tuple(tokens) for row in block.tokens for tokens in row}
    assert len(texts) == 12
    np.testing.assert_array_equal(block.source_ids, ids)

  def test_negative_ids_are_refused_at_the_call(self):
    with pytest.raises(ValueError, match='must not be negative; got -1'):
      _sampler().sample(
        _params(), _sources(), np.array([2, -1]), seed=0, grow_step=0
      )


def _batch(source_ids, targets):
  """A batch for the training path, given padded targets [rows, T]."""
  inputs = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  return {
    'encoder_input_tokens': jnp.asarray(_sources().pad(source_ids, 16)),
    'decoder_input_tokens': jnp.asarray(inputs),
    'decoder_target_tokens': jnp.asarray(targets),
  }


def _teacher_forced(block, params=None):
  """Log-probabilities of a block's tokens by the training path."""
  rows = [tokens for samples in block.tokens for tokens in samples]
  targets = np.zeros((len(rows), 24), np.int32)
  for row, tokens in enumerate(rows):
    targets[row, : len(tokens)] = tokens
  log_probs = tiny.jitted(_POLICY, 'log_probs')(
    _params() if params is None else params, _batch(block.source_ids, targets)
  )
  return np.where(targets > 0, log_probs, 0).sum(-1).reshape(-1, 4)


def _distance_to_boundary(source, sample, tokens, others):
  """How far the uniform number of the first other token is from choosing it.

  In the cumulative distribution given the common prefix, by teacher forcing.
  """
  one, other = tokens[source][sample], others[source][sample]
  step = next(
    t for t, (a, b) in enumerate(zip(one, other, strict=False)) if a != b
  )
  prefix = np.append(one[:step], 1)[None].astype(np.int32)
  logits = tiny.jitted(_POLICY, 'logits')(_params(), _batch([source], prefix))
  scores = np.array(logits[0, step], np.float64) / 0.8
  scores[[0, 2]] = -np.inf
  weights = np.exp(scores - scores.max())
  cumulative = np.cumsum(weights) / weights.sum()
  uniform = categorical.uniforms(
    categorical.base_key(5, 1),
    jnp.asarray(categorical.split_words(np.array([source]))),
    jnp.arange(4, dtype=jnp.uint32),
    step + 1,
  )[step, 0, sample]
  low, high = sorted((int(one[step]), int(other[step])))
  return np.abs(cumulative[low:high] - float(uniform)).max()


class TestSamples:
  def test_log_probs_are_those_of_the_untempered_model(self):
    block = _sample(_sampler(temperature=1.7))
    np.testing.assert_allclose(
      block.log_probs, _teacher_forced(block), atol=1e-4
    )

  def test_a_policy_with_a_start_of_its_own_is_sampled_from_it(
    self, monkeypatch
  ):
    told = policy_lib.Policy(_POLICY.config, decoder_start=7)
    monkeypatch.setitem(globals(), '_POLICY', told)
    block = _sample(_sampler(**_ONE_SHAPE))
    np.testing.assert_allclose(
      block.log_probs, _teacher_forced(block), atol=1e-4
    )
    monkeypatch.setitem(globals(), '_POLICY', told.unconditioned())
    assert np.abs(block.log_probs - _teacher_forced(block)).max() > 0.1

  def test_ends_by_eos_or_at_the_maximum_length(self, samples):
    finished = []
    for i, row in enumerate(samples.tokens):
      for n, tokens in enumerate(row):
        assert tokens.dtype == np.int32
        assert 1 <= len(tokens) <= 24
        assert not np.isin(tokens, [0, 2]).any()
        assert not (tokens[:-1] == 1).any()
        assert samples.finished[i, n] == (tokens[-1] == 1)
        assert samples.finished[i, n] or len(tokens) == 24
        finished.append(samples.finished[i, n])
    # Both kinds occur, or this tests little.
    assert 0.1 < np.mean(finished) < 0.9

  def test_first_and_second_tokens_fit_the_model(self):
    count, temperature = 4000, 0.7
    sampler = _sampler(
      num_samples_per_source=count,
      temperature=temperature,
      max_target_length=2,
      block_sources=1,
    )
    drawn = _sample(sampler, [4]).tokens[0]
    first = np.array([tokens[0] for tokens in drawn])
    # Of the likeliest first token that is not EOS, the second.
    counts = np.bincount(first, minlength=48)
    counts[1] = 0
    then = counts.argmax()
    second = np.array([tokens[1] for tokens in drawn if tokens[0] == then])
    batch = _batch([4], np.array([[then, 3]], np.int32))
    logits = tiny.jitted(_POLICY, 'logits')(_params(), batch)
    logits = np.array(logits[0], np.float64)
    logits[:, [0, 2]] = -np.inf
    for tokens, row in ((first, logits[0]), (second, logits[1])):
      expected = np.exp(row / temperature)
      expected *= len(tokens) / expected.sum()
      counts = np.bincount(tokens, minlength=48)
      # Rare tokens together, as the approximation needs some of each.
      rare = expected < 5
      statistic = stats.chisquare(
        np.append(counts[~rare], counts[rare].sum()),
        np.append(expected[~rare], expected[rare].sum()),
      )
      assert (~rare).sum() > 5
      assert statistic.pvalue > 1e-3
      assert counts[[0, 2]].sum() == 0

  def test_the_likeliest_tokens_alone(self):
    greedy = {'num_samples_per_source': 1, 'temperature': 0.0}
    one = _sample(_sampler(**greedy, **_ONE_SHAPE))
    top = _sample(_sampler(top_k=1, **_ONE_SHAPE))
    for i in range(_NUM_SOURCES):
      for n in range(4):
        np.testing.assert_array_equal(top.tokens[i][n], one.tokens[i][0])

  def test_rounded_weights_sample_the_rounded_policy(self):
    block = _sample(_sampler(weights_dtype='bfloat16', **_ONE_SHAPE))
    rounded = jax.tree_util.tree_map_with_path(
      lambda path, x: (
        x.astype(jnp.bfloat16).astype(x.dtype)
        if path[-1].key in ('kernel', 'embedding')
        else x
      ),
      _params(),
    )
    # Activations are rounded as well where they meet a rounded kernel.
    error = block.log_probs - _teacher_forced(block, rounded)
    plain = block.log_probs - _teacher_forced(block)
    assert np.abs(error).max() < 0.2
    assert np.abs(error).mean() < 0.02
    assert np.abs(plain).max() > 1e-4

  def test_greedy_is_the_limit_of_low_temperatures(self):
    settings = {'temperature': 0.0, 'num_samples_per_source': 1, **_ONE_SHAPE}
    greedy = _sample(_sampler(**settings))
    cold = _sample(_sampler(temperature=1e-4))
    same = [
      np.array_equal(a[0], b[0])
      for a, b in zip(greedy.tokens, cold.tokens, strict=True)
    ]
    assert np.mean(same) > 0.9
    assert _flat(_sample(_sampler(**settings), seed=9)) == _flat(greedy)

  def test_ids_beyond_the_vocabulary_are_never_drawn(self):
    block = _sample(_sampler(vocabulary_size=20, **_ONE_SHAPE))
    tokens = np.concatenate([t for row in block.tokens for t in row])
    assert tokens.max() == 19
    # The normaliser still holds them: teacher forcing agrees.
    np.testing.assert_allclose(
      block.log_probs, _teacher_forced(block), atol=1e-4
    )


class TestOrder:
  def test_yields_blocks_in_the_order_asked_for(self, samples):
    ids = np.random.default_rng(1).permutation(_NUM_SOURCES)
    finished = []
    blocks = list(
      _sampler().sample(
        _params(),
        _sources(),
        ids,
        seed=5,
        grow_step=1,
        progress=finished.append,
      )
    )
    assert [len(block.source_ids) for block in blocks] == [2] * 11 + [1]
    given = np.concatenate([block.source_ids for block in blocks])
    np.testing.assert_array_equal(given, ids)
    assert sum(finished) == _NUM_SOURCES
    for block in blocks:
      assert block.log_probs.shape == (len(block.source_ids), 4)
      for source_id, row in zip(block.source_ids, block.tokens, strict=True):
        for n in range(4):
          np.testing.assert_array_equal(row[n], samples.tokens[source_id][n])

  def test_progress_counts_a_source_when_its_last_group_is_done(self):
    finished = []
    _sample(
      _sampler(num_samples_per_source=6, samples_per_block=4),
      [0, 1, 2],
      progress=finished.append,
    )
    assert sum(finished) == 3

  def test_no_sources_give_nothing(self):
    block = _sample(_sampler(), np.zeros(0, np.int64))
    assert block.tokens == []
    assert block.log_probs.shape == block.finished.shape == (0, 4)


class TestErrors:
  @pytest.mark.parametrize('size', [2, 49])
  def test_refuses_vocabularies(self, size):
    with pytest.raises(ValueError, match=f'vocabulary_size .* got {size}'):
      _sampler(vocabulary_size=size)

  def test_refuses_sources_longer_than_the_buckets(self):
    with pytest.raises(ValueError, match='between 1 and 8 tokens'):
      _sample(_sampler(source_length_buckets=(4, 8)))

  def test_refuses_rows_that_do_not_match_the_ids(self):
    with pytest.raises(ValueError, match='vectors of one length'):
      _sample(_sampler(), [0, 1], rows=np.array([0]))

  def test_refuses_parameters_that_have_diverged(self):
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, _params())
    with pytest.raises(ValueError, match='must be finite'):
      _sample(_sampler(), [0], params=params)
