"""Counts of BLEU and chrF add up to sacrebleu's scores, and pair by source."""

import random

import numpy as np
import pytest

from rest_jax.evaluation import metrics, paired_text, text_metrics

_WORDS = ('a', 'dog', 'cat,', 'sees', 'the', 'big', 'bird.', 'Runs', '12')


def texts(number, seed, most=9):
  draw = random.Random(seed)
  return [
    ' '.join(draw.choices(_WORDS, k=draw.randint(0, most)))
    for _ in range(number)
  ]


def references(number, seed):
  return [text or 'nothing' for text in texts(number, seed)]


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('number', [1, 2, 40])
def test_sums_give_sacrebleus_corpus_scores(number, seed):
  hypotheses, right = texts(number, seed), references(number, f'r{seed}')
  counts = paired_text.bleu_counts(hypotheses, right)
  assert counts.shape == (number, 10)
  expected = text_metrics.corpus_bleu(hypotheses, right)[0]
  assert paired_text.bleu(counts.sum(axis=0)) == pytest.approx(expected)
  counts = paired_text.chrf_counts(hypotheses, right)
  assert counts.shape == (number, 18)
  expected = text_metrics.corpus_chrf(hypotheses, right)[0]
  assert paired_text.chrf(counts.sum(axis=0)) == pytest.approx(expected)


def test_chrf_of_short_texts_is_sacrebleus():
  for pair in (('ab', 'abc'), ('abcdefgh', 'ab'), ('a', 'b'), ('', 'a')):
    counts = paired_text.chrf_counts(*([text] for text in pair))
    expected = text_metrics.corpus_chrf(*([text] for text in pair))[0]
    assert paired_text.chrf(counts[0]) == pytest.approx(expected), pair


def test_the_tokeniser_counts():
  counts = paired_text.bleu_counts(['天气好'], ['天气好'], tokenize='zh')
  assert counts.tolist() == [[3, 2, 1, 0, 3, 2, 1, 0, 3, 3]]


class TestPairedDifference:
  def test_of_a_mean_it_is_the_usual_standard_error(self):
    generator = np.random.default_rng(0)
    common = generator.integers(0, 1000, size=(400, 1))
    a = common + generator.integers(0, 50, size=(400, 1))
    b = common + generator.integers(0, 50, size=(400, 1))
    found = paired_text.paired_difference(
      lambda sums: float(sums[0]) / 400, a, b, num_resamples=4000
    )
    expected = metrics.paired_difference(a.astype(float), b.astype(float))
    assert found.mean == pytest.approx(expected.mean)
    assert found.stderr == pytest.approx(expected.stderr, rel=0.05)

  def test_the_difference_is_that_of_the_corpora(self):
    right = references(60, 'r')
    good, bad = [*right[:50], *texts(10, 'x')], texts(60, 'y')
    for counts, score, corpus in (
      (paired_text.bleu_counts, paired_text.bleu, text_metrics.corpus_bleu),
      (paired_text.chrf_counts, paired_text.chrf, text_metrics.corpus_chrf),
    ):
      sides = counts(good, right), counts(bad, right)
      found = paired_text.paired_difference(score, *sides)
      expected = corpus(good, right)[0] - corpus(bad, right)[0]
      assert found.mean == pytest.approx(expected)
      assert found.z > 4
      opposite = paired_text.paired_difference(score, *sides[::-1])
      assert opposite.mean == pytest.approx(-found.mean)
      assert opposite.stderr == pytest.approx(found.stderr)
      assert found == paired_text.paired_difference(score, *sides)

  def test_a_policy_does_not_differ_from_itself(self):
    counts = paired_text.chrf_counts(texts(30, 0), references(30, 1))
    found = paired_text.paired_difference(paired_text.chrf, counts, counts)
    assert (found.mean, found.stderr) == (0.0, 0.0)

  def test_other_sources_are_refused(self):
    counts = paired_text.chrf_counts(texts(3, 0), references(3, 1))
    with pytest.raises(ValueError, match='same sources'):
      paired_text.paired_difference(paired_text.chrf, counts, counts[:2])
