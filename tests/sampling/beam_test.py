"""Tests of beam search against a plain one, and against all hypotheses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import ragged
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler as sampler_lib
from tests.models import tiny
from tests.training import toy

EOS = 1


def _policy(vocab_size=12, **sizes):
  sizes = {'num_decoder_layers': 2, **sizes}
  return toy.make_policy(vocab_size=vocab_size, **sizes)


def _params(policy, seed=0):
  # Larger than at initialisation, so that beams differ.
  return tiny.lively(tiny.init(policy, seed))


def _sources(vocab_size, num=5, seed=0):
  random = np.random.default_rng(seed)
  rows = [
    np.append(random.integers(3, vocab_size, length), EOS)
    for length in random.integers(1, 8, num)
  ]
  return ragged.Ragged.from_lists(rows)


def _search(policy, params, sources, **settings):
  settings = {
    'num_samples_per_source': 1,
    'temperature': 0.0,
    'beam_size': 3,
    'max_target_length': 8,
    'block_sources': 2,
    'source_length_buckets': (8,),
    **settings,
  }
  return sampler_lib.Sampler(
    policy,
    sampler_lib.DecodeConfig(**settings),
    mesh_lib.MeshConfig().build(jax.devices()[:1]),
  ).sample_all(params, sources, np.arange(len(sources)), seed=0, grow_step=0)


class _Model:
  """log pi(. | y_<t, x) by teacher forcing, for a search on the host."""

  def __init__(self, policy, params, source):
    self._logits = tiny.jitted(policy, 'logits')
    self._params = params
    self._source = np.zeros((1, 8), np.int32)
    self._source[0, : len(source)] = source

  def log_probs(self, prefixes, length):
    inputs = np.zeros((len(prefixes), length), np.int32)
    targets = np.full((len(prefixes), length), 3, np.int32)
    for row, prefix in enumerate(prefixes):
      inputs[row, 1 : len(prefix) + 1] = prefix[: length - 1]
    logits = self._logits(
      self._params,
      {
        'encoder_input_tokens': jnp.asarray(self._source),
        'decoder_input_tokens': jnp.asarray(inputs),
        'decoder_target_tokens': jnp.asarray(targets),
      },
    )
    return np.asarray(jax.nn.log_softmax(logits), np.float64)


def _penalty(length, alpha):
  return ((5 + length) / 6) ** alpha


def _plain(model, vocab_size, beam_size, alpha, max_length):
  """The same search in plain Python, without caches, to the very end."""
  live, finished = [(0.0, ())], []
  for position in range(max_length):
    found = model.log_probs([prefix for _, prefix in live], max_length)
    candidates = [
      (score + found[row, position, token], (*prefix, token))
      for row, (score, prefix) in enumerate(live)
      for token in range(vocab_size)
      if token not in (0, 2)
    ]
    candidates.sort(reverse=True)
    best = candidates[: 2 * beam_size]
    finished += [
      (score / _penalty(position + 1, alpha), score, tokens)
      for score, tokens in best
      if tokens[-1] == EOS
    ]
    finished = sorted(finished, reverse=True)[:beam_size]
    live = [one for one in best if one[1][-1] != EOS][:beam_size]
  return [(score, tokens) for _, score, tokens in finished] + live


@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
@pytest.mark.parametrize('beam_size', [1, 3, 4])
def test_as_a_plain_search(alpha, beam_size):
  policy = _policy()
  params = _params(policy)
  sources = _sources(12)
  block = _search(
    policy,
    params,
    sources,
    beam_size=beam_size,
    length_penalty=alpha,
    num_samples_per_source=beam_size,
  )
  kinds = set()
  for row in range(len(sources)):
    model = _Model(policy, params, sources[row])
    expected = _plain(model, 12, beam_size, alpha, 8)[:beam_size]
    for place, (score, tokens) in enumerate(expected):
      assert tuple(block.tokens[row][place]) == tokens
      assert block.log_probs[row, place] == pytest.approx(score, abs=1e-4)
      assert block.finished[row, place] == (tokens[-1] == EOS)
      kinds.add(tokens[-1] == EOS)
  if alpha == 0.6 and beam_size > 1:
    assert kinds == {True, False}  # Or this tests little.


def test_with_beams_enough_it_finds_the_best_of_all():
  vocab_size, length = 5, 4  # Tokens 3 and 4, and EOS.
  policy = _policy(vocab_size)
  params = _params(policy, seed=1)
  sources = _sources(vocab_size, num=3)
  block = _search(
    policy, params, sources, beam_size=16, max_target_length=length,
    num_samples_per_source=3, length_penalty=1.0,
  )  # fmt: skip
  for row in range(3):
    model = _Model(policy, params, sources[row])
    every = [
      (*words, EOS)
      for count in range(length)
      for words in itertools.product((3, 4), repeat=count)
    ]
    found = model.log_probs(every, length)
    scored = sorted(
      (
        sum(found[i, t, token] for t, token in enumerate(tokens))
        / _penalty(len(tokens), 1.0),
        tokens,
      )
      for i, tokens in enumerate(every)
    )[::-1]
    assert [tuple(tokens) for tokens in block.tokens[row]] == [
      tokens for _, tokens in scored[:3]
    ]


def test_what_else_is_in_a_block_does_not_matter():
  policy = _policy()
  params = _params(policy)
  sources = _sources(12, num=6)
  whole = _search(policy, params, sources, block_sources=6)
  for row in range(6):
    alone = _search(
      policy, params, ragged.Ragged.from_lists([sources[row]]), block_sources=6
    )
    np.testing.assert_array_equal(whole.tokens[row][0], alone.tokens[0][0])
    np.testing.assert_array_equal(whole.log_probs[row], alone.log_probs[0])
