"""Lexical rewards: values by hand, and sacrebleu's own."""

import math
from unittest import mock

import numpy as np
import pytest
import sacrebleu

from rest_jax.rewards import base, lexical

REWARDS = [lexical.Chrf(), lexical.Bleu(), lexical.Ter()]
HYPOTHESIS, REFERENCE = 'the cat sat', 'the cat sat on the mat'


def score(reward, hypotheses, references):
  return reward.score(['x'] * len(hypotheses), hypotheses, references)


def test_chrf_by_hand():
  # Characters: precision 2/2, recall 2/3; bigrams: 1/1 and 1/2. Their means
  # are 1 and 7/12; F2 = 5 P R / (4 P + R).
  reward = lexical.Chrf(char_order=2)
  found = score(reward, ['ab'], ['abc'])
  recall = 7 / 12
  np.testing.assert_allclose(found, [5 * recall / (4 + recall)], rtol=1e-6)
  # With beta 1 precision counts as much.
  found = score(lexical.Chrf(char_order=2, beta=1), ['ab'], ['abc'])
  np.testing.assert_allclose(found, [2 * recall / (1 + recall)], rtol=1e-6)


def test_bleu_by_hand():
  # All n-grams that it can have are right: the brevity penalty alone is left.
  found = score(lexical.Bleu(), [HYPOTHESIS], [REFERENCE])
  np.testing.assert_allclose(found, [math.exp(1 - 6 / 3)], rtol=1e-6)


def test_ter_by_hand():
  hypotheses = [HYPOTHESIS, f'{REFERENCE} {REFERENCE} a b', 'sat the cat', '']
  references = [REFERENCE, REFERENCE, HYPOTHESIS, REFERENCE]
  # 3 insertions of 6 words; 8 deletions; one shift of 3 words; 6 of 6.
  np.testing.assert_allclose(
    score(lexical.Ter(), hypotheses, references),
    [1 - 3 / 6, 1 - 8 / 6, 1 - 1 / 3, 0.0],
    atol=1e-6,
  )


def test_case_counts_where_asked():
  assert score(lexical.Ter(), ['The cat'], ['the cat']) == 1
  reward = lexical.Ter(case_sensitive=True)
  assert score(reward, ['The cat'], ['the cat']) == 1 - 1 / 2


def test_as_sacrebleu_says():
  random = np.random.default_rng(0)
  words = ['the', 'cat', 'sat', 'on', 'a', 'mat', '.']
  hypotheses, references = (
    [' '.join(random.choice(words, random.integers(1, 9))) for _ in range(30)]
    for _ in range(2)
  )
  pairs = list(zip(hypotheses, references, strict=True))
  theirs = {
    'chrf': [sacrebleu.sentence_chrf(h, [r]).score / 100 for h, r in pairs],
    'bleu': [sacrebleu.sentence_bleu(h, [r]).score / 100 for h, r in pairs],
    'ter': [1 - sacrebleu.sentence_ter(h, [r]).score / 100 for h, r in pairs],
  }
  for reward in REWARDS:
    found = score(reward, hypotheses, references)
    np.testing.assert_allclose(found, theirs[reward.name], atol=1e-6)


@pytest.mark.parametrize('reward', REWARDS, ids=lambda reward: reward.name)
def test_equal_texts_have_the_best_reward(reward):
  found = score(reward, [REFERENCE, HYPOTHESIS], [REFERENCE] * 2)
  assert found[0] == pytest.approx(1.0) and found[1] < found[0]
  assert found.dtype == np.float32


@pytest.mark.parametrize('reward', REWARDS, ids=lambda reward: reward.name)
def test_references_are_needed_and_checked(reward):
  assert reward.needs_references and isinstance(reward, base.RewardConfig)
  with pytest.raises(ValueError, match=f"'{reward.name}' compares with"):
    reward.score(['a'], ['b'])
  with pytest.raises(ValueError, match='one for each hypothesis; got 2 and 1'):
    reward.score(['a'], ['b'], ['c', 'd'])
  assert reward.score([], [], []).shape == (0,)


def test_digests_tell_settings_apart():
  rewards = [*REWARDS, lexical.Chrf(beta=1), lexical.Bleu(tokenize='zh')]
  assert len({reward.digest for reward in rewards}) == 5
  assert lexical.Chrf().digest == lexical.Chrf().digest


@pytest.mark.parametrize(
  ('references', 'tokenize'),
  [(['ein Hund', 'eine Katze'], '13a'), (['一只狗', '一只猫', '天气好'], 'zh')],
)
def test_bleu_follows_the_script_of_the_pairs(references, tokenize, caplog):
  class Pairs:
    def __len__(self):
      return len(references)

    def reference_text(self, row):
      return references[row]

  resources = mock.Mock(pairs=Pairs())
  loaded = lexical.Bleu().load(resources)
  assert loaded == lexical.Bleu(tokenize=tokenize)
  assert loaded.digest == lexical.Bleu(tokenize=tokenize).digest
  # What was set stays, with a warning if it does not fit.
  assert lexical.Bleu(tokenize='13a').load(resources).tokenize == '13a'
  lexical.Ter(normalized=True, asian_support=True).load(resources)
  lexical.Ter().load(resources)
  warned = [text for text in caplog.messages if 'as one word' in text]
  assert len(warned) == (2 if tokenize == 'zh' else 0)


@pytest.mark.parametrize(
  ('make', 'settings', 'message'),
  [
    (lexical.Chrf, {'beta': 0}, 'beta must be at least 1'),
    (lexical.Bleu, {'tokenize': 'x'}, "tokenize must be one of .*; got 'x'"),
    (lexical.Ter, {'asian_support': True}, 'normalized'),
  ],
)
def test_settings_are_checked(make, settings, message):
  with pytest.raises(ValueError, match=message):
    make(**settings)
