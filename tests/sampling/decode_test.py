"""One block, decoded on one device."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import attention, network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import categorical, decode
from tests.models import tiny
from tests.sampling import counted


def _tiny_policy(**sizes):
  config = {
    'vocab_size': 48,
    'emb_dim': 16,
    'num_heads': 2,
    'head_dim': 8,
    'num_encoder_layers': 1,
    'num_decoder_layers': 1,
    'mlp_dim': 32,
  }
  return policy_lib.Policy(network.NetworkConfig(**(config | sizes)))


def _program(policy, length, stages=None, **settings):
  settings = {'greedy': False, **settings}
  return decode.Program(
    policy=policy,
    max_target_length=length,
    cache_stages=stages or (length,),
    **settings,
  )


def _inputs(encoder_input_tokens, num_samples, active=None):
  sources = len(encoder_input_tokens)
  if active is None:
    active = np.ones((sources, num_samples), bool)
  return decode.BlockInputs(
    encoder_input_tokens=jnp.asarray(encoder_input_tokens, jnp.int32),
    source_words=jnp.asarray(categorical.split_words(np.arange(sources))),
    sample_ids=jnp.arange(num_samples, dtype=jnp.uint32),
    active=jnp.asarray(active),
  )


@functools.cache
def _run(program):
  return jax.jit(program.decode)


def _decode(program, params, inputs, *, seed=0, temperature=1.0):
  key = categorical.base_key(seed, 0)
  outputs = _run(program)(params, key, jnp.float32(1 / temperature), inputs)
  return decode.BlockOutputs(*(np.asarray(array) for array in outputs))


@pytest.fixture(scope='module')
def policy():
  return _tiny_policy()


@pytest.fixture(scope='module')
def params(policy):
  return tiny.init(policy)


_SOURCES = np.random.default_rng(0).integers(3, 48, (3, 6))


class TestGolden:
  @pytest.mark.parametrize(
    'name', ['untied', 'tied', 'eos', 'long_untied', 'long_tied']
  )
  def test_greedy_tokens_of_t5x(self, shared_dir, name):
    directory = shared_dir / 'golden' / 't5x_tiny'
    if not directory.is_dir():
      pytest.skip(f'there is no {directory}')
    sizes = json.loads((directory / 'config.json').read_text())
    del sizes['eos_id'], sizes['pad_id'], sizes['t5x_commit']
    params, golden = {}, {}
    with np.load(directory / f'{name}.npz') as arrays:
      for path in arrays.files:
        *nodes, leaf = path.split('/')
        node = params if nodes[:1] == ['params'] else golden
        for child in nodes[1:]:
          node = node.setdefault(child, {})
        node[leaf] = arrays[path]
    length = golden['greedy_tokens'].shape[1]
    # T5X may choose PAD and UNK. The stages cut the longer ones in three.
    program = _program(
      _tiny_policy(
        **sizes, logits_via_embedding=name.endswith('_tied') or name == 'tied'
      ),
      length,
      stages=(5, 20, length) if length > 20 else None,
      greedy=True,
      forbidden=(),
    )
    sources = golden['encoder_input_tokens']
    outputs = _decode(program, params, _inputs(sources, 1))
    np.testing.assert_array_equal(outputs.tokens[:, 0], golden['greedy_tokens'])
    ends = golden['greedy_tokens'] == 1
    np.testing.assert_array_equal(outputs.finished[:, 0], ends.any(-1))
    expected = np.where(ends.any(-1), ends.argmax(-1) + 1, length)
    np.testing.assert_array_equal(outputs.lengths[:, 0], expected)


class TestDecode:
  def test_stages_change_no_more_than_rounding(self, policy, params):
    inputs = _inputs(_SOURCES, 4)
    whole = _decode(_program(policy, 12), params, inputs)
    staged = _decode(_program(policy, 12, (2, 3, 8, 12)), params, inputs)
    same = (whole.tokens == staged.tokens).all(-1)
    assert same.mean() > 0.8
    np.testing.assert_allclose(
      whole.log_probs[same], staged.log_probs[same], atol=1e-4
    )

  def test_rows_that_are_not_active_stay_empty(self, policy, params):
    active = np.ones((3, 4), bool)
    active[1] = active[2, 3] = False
    program = _program(policy, 12)
    whole = _decode(program, params, _inputs(_SOURCES, 4))
    part = _decode(program, params, _inputs(_SOURCES, 4, active))
    for before, after in zip(whole, part, strict=True):
      np.testing.assert_array_equal(before[active], after[active])
      assert not after[~active].any()

  def test_a_block_ends_with_its_last_row(self, policy, params, monkeypatch):
    steps = counted.rows(monkeypatch)
    # Nothing but EOS may be drawn, so the first step is the last.
    only_eos = (0, *range(2, 48))
    program = _program(policy, 12, (3, 12), forbidden=only_eos)
    outputs = _decode(program, params, _inputs(_SOURCES, 4))
    jax.effects_barrier()
    assert steps == [12]
    assert outputs.finished.all()
    assert (outputs.lengths == 1).all()
    # Without EOS every step is run, in both stages.
    steps.clear()
    program = _program(policy, 12, (3, 12), forbidden=(0, 1, 2))
    outputs = _decode(program, params, _inputs(_SOURCES, 4))
    jax.effects_barrier()
    assert steps == [12] * 12
    assert not outputs.finished.any()
    assert (outputs.lengths == 12).all()

  @pytest.mark.parametrize(
    ('greedy', 'grows_caches'), [(True, True), (False, False)]
  )
  def test_few_open_hypotheses_go_on_in_smaller_blocks(
    self, policy, params, monkeypatch, greedy, grows_caches
  ):
    # Of four tokens one is EOS, so that hypotheses end at many lengths.
    settings = {'greedy': greedy, 'forbidden': (0, 2, *range(6, 48))}
    sources = np.random.default_rng(3).integers(3, 48, (6, 6))
    inputs = _inputs(sources, 4)
    whole = _decode(_program(policy, 12, **settings), params, inputs)
    computed = counted.rows(monkeypatch, 'greedy' if greedy else 'draw')
    program = _program(
      policy,
      12,
      (2, 3, 8, 12),
      grows_caches=grows_caches,
      compact_sizes=(8, 3),
      **settings,
    )
    compact = _decode(program, params, inputs)
    jax.effects_barrier()
    _run.cache_clear()
    lengths = compact.lengths.reshape(-1)
    num_open = [int((lengths > t).sum()) for t in range(lengths.max())]
    expected = [24 if n > 8 else 8 if n > 3 else 3 for n in num_open]
    assert sorted(computed, reverse=True) == expected
    if not greedy:
      assert set(expected) == {24, 8, 3}
    same = (whole.tokens == compact.tokens).all(-1)
    assert same.mean() > 0.8
    np.testing.assert_allclose(
      whole.log_probs[same], compact.log_probs[same], atol=1e-4
    )
    np.testing.assert_array_equal(whole.finished[same], compact.finished[same])

  def test_embeddings_may_be_turned_before(self, policy, params):
    assert decode.turned_embeddings(policy, params) is None
    tied = _tiny_policy(logits_via_embedding=True)
    params = tiny.init(tied)
    program, inputs = _program(tied, 12), _inputs(_SOURCES, 4)
    expected = _decode(program, params, inputs)
    turned = decode.turned_embeddings(tied, params)
    assert turned.shape == (tied.config.emb_dim, tied.config.vocab_size)
    got = _run(program)(
      params, categorical.base_key(0, 0), jnp.float32(1), inputs, turned
    )
    for array, other in zip(got, expected, strict=True):
      np.testing.assert_array_equal(array, other)

  def test_wide_vocabularies_keep_wide_tokens(self):
    policy = _tiny_policy(vocab_size=2**16 + 8)
    # Only the last id is left to draw.
    program = _program(policy, 2, forbidden=tuple(range(2**16 + 7)))
    params = tiny.init(policy)
    outputs = _decode(program, params, _inputs(_SOURCES[:1], 1))
    assert outputs.tokens.tolist() == [[[2**16 + 7, 2**16 + 7]]]


class TestCompiled:
  def test_is_shared_by_equal_settings(self):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))
    again = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))
    first = decode.compiled(_program(_tiny_policy(), 12), mesh)
    assert decode.compiled(_program(_tiny_policy(), 12), again) is first
    other = _program(_tiny_policy(mlp_dim=64), 12)
    assert decode.compiled(other, mesh) is not first


def test_parts_of_whole_caches_read_before_they_are_written(
  policy, params, monkeypatch
):
  """As decoding on TPU does, here made to run on the CPU."""
  inputs = _inputs(_SOURCES, 4)
  expected = _decode(_program(policy, 11, stages=(4, 11)), params, inputs)
  program = _program(policy, 11, stages=(4, 11), grows_caches=False)
  state = jax.eval_shape(program.initial, inputs)
  assert state.caches[0][0].shape == (3, 4, 2, 11, 8)
  parts = _decode(program, params, inputs)
  _run.cache_clear()
  module = attention.MultiHeadAttention
  monkeypatch.setattr(module, '_write_and_attend', module._attend_and_write)
  before = _decode(program, params, inputs)
  _run.cache_clear()
  for got in (parts, before):
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, rtol=1e-5)
  # Rounded otherwise somewhere: it is the other way that ran.
  assert np.any(before.log_probs != parts.log_probs)
