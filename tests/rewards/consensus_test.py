"""Agreement among samples: by hand, its rows, and what evidence it takes."""

import numpy as np
import pytest

from rest_jax.rewards import base, composed, consensus, guards, lexical
from rest_jax.rewards import peers as peers_lib
from tests.rewards import fakes

CHRF = consensus.CHRF


def similarity(hypothesis, reference):
  return CHRF.score([''], [hypothesis], [reference])[0]


def reward(config=None):
  return (config or consensus.Consensus()).load(fakes.resources())


def own(ids, texts, is_sample=None):
  return peers_lib.Peers.own(ids, texts, is_sample)


def test_by_hand():
  texts = ['a cat', 'a cat', 'a dog', 'the cow']
  s = similarity
  expected = [
    (1 + s('a cat', 'a dog') + s('a cat', 'the cow')) / 3,
    (1 + s('a cat', 'a dog') + s('a cat', 'the cow')) / 3,
    (2 * s('a dog', 'a cat') + s('a dog', 'the cow')) / 3,
    (2 * s('the cow', 'a cat') + s('the cow', 'a dog')) / 3,
  ]
  np.testing.assert_allclose(consensus.utilities(texts), expected, rtol=1e-6)
  assert consensus.choose(texts) == 0


def test_weights_by_hand():
  texts, k = ['a cat', 'a cat', 'a dog', 'the cow'], 3.0
  s = similarity
  agreement = consensus.utilities(texts)
  w = np.exp(k * agreement)
  config = consensus.Consensus(concentration=k)
  found = reward(config).score([''] * 4, texts, peers=own([0] * 4, texts))
  expected = (w[1] * 1 + w[2] * s(texts[0], texts[2])) + w[3] * s(
    texts[0], texts[3]
  )
  assert found[0] == pytest.approx(expected / w[1:].sum(), rel=1e-6)
  expected = 2 * w[0] * s('a dog', 'a cat') + w[3] * s('a dog', 'the cow')
  assert found[2] == pytest.approx(expected / (2 * w[0] + w[3]), rel=1e-6)
  # Fixed evidence is weighed by what it says itself.
  peers = peers_lib.Peers.fixed(np.zeros(1, int), lambda _: texts)
  found = reward(config).score([''], ['a bird'], peers=peers)
  by_text = [s('a bird', text) for text in texts]
  assert found[0] == pytest.approx(w @ by_text / w.sum(), rel=1e-6)


def test_rows_of_several_sources_in_any_order():
  ids = np.array([7, 3, 7, 3, 3, 7])
  texts = ['a cat', 'one', 'a dog', 'two', 'one', 'a cat']
  found = reward().score([f's{i}' for i in ids], texts, peers=own(ids, texts))
  for number in (3, 7):
    rows = np.flatnonzero(ids == number)
    np.testing.assert_array_equal(
      found[rows], consensus.utilities([texts[row] for row in rows])
    )
  order = np.array([4, 2, 0, 5, 1, 3])
  shuffled = [texts[row] for row in order]
  np.testing.assert_allclose(
    reward().score(
      [f's{i}' for i in ids[order]], shuffled, peers=own(ids[order], shuffled)
    ),
    found[order],
    rtol=1e-6,
  )


def test_a_reference_is_judged_and_is_no_evidence():
  texts = ['a bird', 'a cat', 'a dog']
  peers = own([0] * 3, texts, np.array([False, True, True]))
  found = reward().score([''] * 3, texts, peers=peers)
  expected = np.mean([similarity('a bird', t) for t in texts[1:]])
  np.testing.assert_allclose(found[0], expected, rtol=1e-6)
  np.testing.assert_allclose(found[1], similarity('a cat', 'a dog'), rtol=1e-6)


def test_repeating_a_draw_gains_nothing_by_fixed_evidence():
  """By its own group a policy that repeats itself would have 1."""
  random = np.random.default_rng(0)
  words = np.array(['red', 'green', 'old', 'new', 'house', 'tree'])
  ids = np.repeat(np.arange(50), 8)
  evidence = [
    [' '.join(random.choice(words, 3)) for _ in range(4)] for _ in ids
  ]
  drawn = [' '.join(random.choice(words, 3)) for _ in ids]
  # One own draw, picked at random, in the place of all eight.
  picked = np.arange(50) * 8 + random.integers(0, 8, 50)
  repeated = [drawn[row] for row in np.repeat(picked, 8)]
  fixed = peers_lib.Peers.fixed(ids, lambda source: evidence[source])
  scored = reward().score([''] * len(ids), drawn, peers=fixed)
  again = reward().score([''] * len(ids), repeated, peers=fixed)
  # Exactly so for each draw, and hence in expectation over which is repeated.
  np.testing.assert_array_equal(again, scored[np.repeat(picked, 8)])
  means = scored.reshape(50, 8).mean(1)
  over_picks = [
    reward()
    .score(
      [''] * 8,
      [drawn[row]] * 8,
      peers=peers_lib.Peers.fixed([0] * 8, evidence.__getitem__),
    )
    .mean()
    for row in range(8)
  ]
  np.testing.assert_allclose(np.mean(over_picks), means[0], rtol=1e-5)
  by_own = reward().score([''] * len(ids), repeated, peers=own(ids, repeated))
  np.testing.assert_allclose(by_own, 1.0, rtol=1e-6)
  assert means.mean() < 0.9


def test_another_similarity_and_its_pieces(monkeypatch):
  """A scorer is given each distinct pair once, some at a time."""
  seen = []

  class Looks(lexical.Bleu):
    def score(self, sources, hypotheses, references=None, peers=None):
      seen.append(list(zip(sources, hypotheses, references, strict=True)))
      return super().score(sources, hypotheses, references)

  monkeypatch.setattr(consensus, '_PAIRS_AT_ONCE', 4)
  scored = consensus.ConsensusReward('c', Looks(tokenize='13a'))
  ids = [0, 0, 0, 1, 1]
  texts = ['a b c', 'a b c', 'a b d', 'x', 'x']
  found = scored.score(['s', 's', 's', 't', 't'], texts, peers=own(ids, texts))
  assert [len(pairs) for pairs in seen] == [4, 1]
  assert seen[1] == [('t', 'x', 'x')]
  bleu = lexical.Bleu(tokenize='13a')
  one, other = (
    bleu.score([''], [h], [r])[0]
    for h, r in (('a b c', 'a b d'), ('a b d', 'a b c'))
  )
  expected = [(1 + one) / 2, (1 + one) / 2, other, 1, 1]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_chrf_with_words_is_compared_pair_by_pair():
  plus = lexical.Chrf(word_order=2)
  texts = ['a cat sat', 'a cat ran', 'no']
  found = reward(consensus.Consensus(similarity=plus)).score(
    [''] * 3, texts, peers=own([0] * 3, texts)
  )
  expected = plus.score([''] * 2, texts[:1] * 2, texts[1:]).mean()
  np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_a_source_with_one_sample_is_refused():
  with pytest.raises(ValueError, match='at least two outputs'):
    reward().score(['s'], ['a'], peers=own([0], ['a']))
  with pytest.raises(ValueError, match='at least two outputs'):
    peers = peers_lib.Peers.fixed([0], lambda source: [])
    reward().score(['s'], ['a'], peers=peers)
  assert consensus.choose(['a']) == 0


def test_samples_that_are_missing_or_another_s_are_refused():
  with pytest.raises(ValueError, match="'consensus' compares the samples"):
    reward().score(['s'], ['a'])
  peers = own([0, 0], ['a', 'b'])
  with pytest.raises(ValueError, match='2 and 2 for 1 hypotheses'):
    reward().score(['s'], ['a'], peers=peers)
  with pytest.raises(ValueError, match='must be among its samples'):
    reward().score(['s', 's'], ['a', 'c'], peers=peers)


def test_an_empty_list_is_scored():
  empty = peers_lib.Peers.own(np.zeros(0, int), [])
  assert reward().score([], [], peers=empty).shape == (0,)


def test_unfinished_samples_come_last_and_ties_go_to_the_first():
  texts = ['a cat', 'a cat', 'a dog', 'a dog']
  assert consensus.choose(texts) == 0
  assert consensus.choose(texts[::-1]) == 0
  assert consensus.choose(texts, [False, False, True, True]) == 2
  assert consensus.choose(texts, [False] * 4) == 0
  with pytest.raises(ValueError, match='at least one sample'):
    consensus.choose([])


def test_inside_an_ensemble_and_under_guards():
  table = fakes.Table(rewards=(('a cat', 1.0), ('a dog', 0.0), ('x', 0.5)))
  config = guards.Guarded(
    reward=composed.Ensemble(
      components=(
        composed.Component(reward=consensus.Consensus()),
        composed.Component(reward=table),
      )
    ),
    guards=(guards.LengthRatio(low=0.5, high=10.0),),
    floor=-1.0,
  )
  texts = ['a cat', 'a dog', 'x']
  scored = config.load(fakes.resources())
  assert config.needs_samples and scored.needs_samples
  columns = base.columns(scored, ['sss'] * 3, texts, None, own([0] * 3, texts))
  np.testing.assert_array_equal(
    columns['consensus'], consensus.utilities(texts)
  )
  expected = (consensus.utilities(texts) + np.array([1.0, 0.0, 0.5])) / 2
  np.testing.assert_allclose(columns['ensemble'], expected, rtol=1e-6)
  # What is vetoed is evidence all the same.
  np.testing.assert_allclose(columns['guarded'], [*expected[:2], -1], rtol=1e-6)


def test_digests_follow_the_similarity():
  made = [
    consensus.Consensus(),
    consensus.Consensus(similarity=lexical.Chrf()),
    consensus.Consensus(concentration=1.0),
    consensus.Consensus(similarity=lexical.Bleu(tokenize='13a')),
  ]
  assert (
    len({config.load(fakes.resources(('a', 'b'))).digest for config in made})
    == 4
  )


def test_settings_are_checked():
  with pytest.raises(ValueError, match="got 'table'"):
    consensus.Consensus(similarity=fakes.Table(rewards=()))
  with pytest.raises(TypeError, match='settings of a reward'):
    consensus.Consensus(similarity='chrf')
  assert 'chrf' in consensus.Consensus().check()
