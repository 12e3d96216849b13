"""One block, decoded on one device."""

import json

import jax
import numpy as np
import pytest

from rest_jax.models import attention, network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import blocks
from tests.models import tiny
from tests.sampling import decoding


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
    program = decoding.program(
      _tiny_policy(
        **sizes, logits_via_embedding=name.endswith('_tied') or name == 'tied'
      ),
      (5, 20, length) if length > 20 else (length,),
      greedy=True,
      forbidden=(),
    )
    sources = golden['encoder_input_tokens']
    outputs = decoding.decoded(program, params, decoding.inputs(sources, 1))
    np.testing.assert_array_equal(outputs.tokens[:, 0], golden['greedy_tokens'])
    ends = golden['greedy_tokens'] == 1
    np.testing.assert_array_equal(outputs.finished[:, 0], ends.any(-1))
    expected = np.where(ends.any(-1), ends.argmax(-1) + 1, length)
    np.testing.assert_array_equal(outputs.lengths[:, 0], expected)


class TestDecode:
  def test_rows_that_are_not_active_stay_empty(self, policy, params):
    active = np.ones((3, 4), bool)
    active[1] = active[2, 3] = False
    program = decoding.program(policy, (12,))
    whole = decoding.decoded(program, params, decoding.inputs(_SOURCES, 4))
    part = decoding.decoded(
      program, params, decoding.inputs(_SOURCES, 4, active)
    )
    for before, after in zip(whole, part, strict=True):
      np.testing.assert_array_equal(before[active], after[active])
      assert not after[~active].any()

  def test_a_block_ends_with_its_last_row(self, policy, params, monkeypatch):
    steps = decoding.count_rows(monkeypatch)
    # Nothing but EOS may be drawn, so the first step is the last.
    only_eos = (0, *range(2, 48))
    program = decoding.program(policy, (3, 12), forbidden=only_eos)
    outputs = decoding.decoded(program, params, decoding.inputs(_SOURCES, 4))
    jax.effects_barrier()
    assert steps == [12]
    assert outputs.finished.all()
    assert (outputs.lengths == 1).all()
    # Without EOS every step is run, in both stages.
    steps.clear()
    program = decoding.program(policy, (3, 12), forbidden=(0, 1, 2))
    outputs = decoding.decoded(program, params, decoding.inputs(_SOURCES, 4))
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
    inputs = decoding.inputs(sources, 4)
    whole = decoding.decoded(
      decoding.program(policy, (12,), **settings), params, inputs
    )
    computed = decoding.count_rows(monkeypatch, 'greedy' if greedy else 'draw')
    program = decoding.program(
      policy,
      (2, 3, 8, 12),
      compact_sizes=(8, 3),
      grows_caches=grows_caches,
      **settings,
    )
    compact = decoding.decoded(program, params, inputs)
    jax.effects_barrier()
    decoding.compiled.cache_clear()
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
    assert blocks.transpose_embeddings(policy, params) is None
    tied = _tiny_policy(logits_via_embedding=True)
    params = tiny.init(tied)
    program = decoding.program(tied, (12,))
    inputs = decoding.inputs(_SOURCES, 4)
    expected = decoding.decoded(program, params, inputs)
    transposed = blocks.transpose_embeddings(tied, params)
    assert transposed.shape == (tied.config.emb_dim, tied.config.vocab_size)
    got = decoding.decoded(program, params, inputs, transposed)
    for array, other in zip(got, expected, strict=True):
      np.testing.assert_array_equal(array, other)

  def test_wide_vocabularies_keep_wide_tokens(self):
    policy = _tiny_policy(vocab_size=2**16 + 8)
    # Only the last id is left to draw.
    program = decoding.program(policy, (2,), forbidden=tuple(range(2**16 + 7)))
    params = tiny.init(policy)
    outputs = decoding.decoded(
      program, params, decoding.inputs(_SOURCES[:1], 1)
    )
    assert outputs.tokens.tolist() == [[[2**16 + 7, 2**16 + 7]]]


def test_parts_of_whole_caches_read_before_they_are_written(
  policy, params, monkeypatch
):
  """As decoding on TPU does, here made to run on the CPU."""
  inputs = decoding.inputs(_SOURCES, 4)
  expected = decoding.decoded(decoding.program(policy, (4, 11)), params, inputs)
  program = decoding.program(policy, (4, 11), grows_caches=False)
  state = jax.eval_shape(program.initial, inputs.active)
  assert state.caches[0][0].shape == (3, 4, 2, 11, 8)
  parts = decoding.decoded(program, params, inputs)
  decoding.compiled.cache_clear()
  module = attention.MultiHeadAttention
  monkeypatch.setattr(module, '_write_and_attend', module._attend_and_write)
  before = decoding.decoded(program, params, inputs)
  decoding.compiled.cache_clear()
  for got in (parts, before):
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, rtol=1e-5)
  # Rounded otherwise somewhere: it is the other way that ran.
  assert np.any(before.log_probs != parts.log_probs)
