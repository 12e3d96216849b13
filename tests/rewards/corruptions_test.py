"""Tests of graded corruptions."""

import random

import numpy as np
import pytest
import sacrebleu

from rest_jax.rewards import corruptions

_NOUNS = ('dog', 'cat', 'horse', 'teacher', 'river', 'garden', 'train', 'city')
_VERBS = ('sees', 'follows', 'leaves', 'paints', 'loves', 'finds')
_PLACES = ('in May', 'at home', 'near the lake', 'on 12 June', 'after 3 days')


def _pairs(number):
  draw = random.Random(0)
  sources, references = [], []
  for _ in range(number):
    first, second = draw.sample(range(len(_NOUNS)), 2)
    verb, place = draw.randrange(len(_VERBS)), draw.randrange(len(_PLACES))
    references.append(
      f'The old {_NOUNS[first]} {_VERBS[verb]} the small {_NOUNS[second]} '
      f'{_PLACES[place]}.'
    )
    sources.append(f'der {first}er {verb}t den {second}en um {place}.')
  return sources, references


def _corruptor(seed=0, **settings):
  return corruptions.Corruptor(
    corruptions.CorruptionConfig(**settings), *_pairs(60), seed=seed
  )


def test_quality_falls_with_the_number_of_corruptions():
  corruptor = _corruptor()
  references = _pairs(60)[1]
  chrf = corruptions.Chrf(1)
  means = [
    np.mean(
      [
        chrf(
          corruptor.corrupt(row, number, random.Random(f'{row} {number}')),
          references[row],
        )
        for row in range(60)
      ]
    )
    for number in (0, 1, 3, 6, 12)
  ]
  assert means[0] == 1.0
  assert np.all(np.diff(means) < -0.05), means


def test_scores_are_sacrebleus_and_span_the_scale():
  scored = _corruptor().scored(300)
  corruptor = _corruptor()
  sources, references = _pairs(60)
  metric = sacrebleu.CHRF(beta=1)
  for index in range(0, 300, 7):
    row = corruptor.row(index)
    assert scored.sources[index] == sources[row]
    if scored.hypotheses[index] == f'{references[row]} {references[row]}':
      continue
    expected = metric.sentence_score(
      scored.hypotheses[index], [references[row]]
    ).score
    assert scored.scores[index] == pytest.approx(expected / 100, abs=1e-6)
  assert scored.scores.dtype == np.float32
  assert scored.scores.min() >= 0.0 and scored.scores.max() == 1.0
  shares = np.histogram(scored.scores, 4, (0, 1))[0] / 300
  assert np.all(shares > 0.05), shares


def test_a_hypothesis_depends_on_seed_and_index_alone():
  forwards = [_corruptor().hypothesis(index) for index in range(40)]
  corruptor = _corruptor()
  backwards = [corruptor.hypothesis(index) for index in reversed(range(40))]
  assert forwards == backwards[::-1]
  assert _corruptor().scored(40).hypotheses == forwards
  assert _corruptor(seed=1).scored(40).hypotheses != forwards


def test_few_hypotheses_are_spread_over_the_corpus():
  corruptor = _corruptor()
  rows = [corruptor.row(index) for index in range(60)]
  assert sorted(rows) == list(range(60))
  assert rows != sorted(rows)
  # The second round of the same references is corrupted anew.
  again = [corruptor.hypothesis(index) for index in range(60, 120)]
  assert again != [corruptor.hypothesis(index) for index in range(60)]


def test_unrelated_hypotheses():
  sources, references = _pairs(60)
  scored = _corruptor(unrelated_share=1.0).scored(200)
  corruptor = _corruptor(unrelated_share=1.0)
  kinds = set()
  for index, hypothesis in enumerate(scored.hypotheses):
    row = corruptor.row(index)
    if hypothesis == '':
      kinds.add('empty')
      assert scored.scores[index] == 0.0
    elif hypothesis == sources[row]:
      kinds.add('source')
    elif hypothesis == f'{references[row]} {references[row]}':
      kinds.add('twice')
      # chrF would say 0.67: precision is about one half, recall one.
      assert scored.scores[index] == 0.0
    else:
      assert hypothesis in references
      kinds.add('another')
  assert kinds == {'empty', 'source', 'twice', 'another'}
  assert not any(
    hypothesis in ('', *sources)
    for hypothesis in _corruptor(unrelated_share=0.0).scored(100).hypotheses
  )


def test_negations_may_be_left_out():
  scored = _corruptor(negations=()).scored(300)
  assert not any(' not ' in text for text in scored.hypotheses)
  scored = _corruptor(negations=('not',)).scored(300)
  assert any(' not ' in text for text in scored.hypotheses)


def _severe(**settings):
  config = corruptions.SevereCorruptionConfig(
    **{'unrelated_share': 0.0, 'severe_share': 1.0} | settings
  )
  return corruptions.Corruptor(config, *_pairs(60), seed=0)


def test_severe_hypotheses_have_one_change_and_a_lower_score_than_chrf():
  corruptor = _severe(severe_factor=0.25)
  scored = corruptor.scored(200)
  _, references = _pairs(60)
  metric = sacrebleu.CHRF(beta=1)
  kinds = {'permuted': 0, 'added': 0, 'number': 0, 'negation': 0, 'name': 0}
  for index, hypothesis in enumerate(scored.hypotheses):
    reference = corruptor.reference(index)
    assert hypothesis != reference
    chrf = metric.sentence_score(hypothesis, [reference]).score / 100
    assert scored.scores[index] == pytest.approx(0.25 * chrf, abs=1e-6)
    words, right = hypothesis.split(), reference.split()
    wrong = [(a, b) for a, b in zip(words, right, strict=False) if a != b]
    if hypothesis.removeprefix(f'{reference} ') in references:
      kinds['added'] += 1
    elif sorted(words) == sorted(right):
      kinds['permuted'] += 1
    elif len(words) == len(right) + 1:
      assert set(words) - set(right) <= {'not', 'no', 'never'}
      kinds['negation'] += 1
    elif len(wrong) == 1 and wrong[0][1][0].isdigit():
      assert wrong[0][0][0].isdigit()
      kinds['number'] += 1
    else:
      # Of names there are two.
      assert len(wrong) == 1 and set(wrong[0]) == {'May.', 'June.'}
      kinds['name'] += 1
  assert min(kinds.values()) > 1, kinds


def test_severe_ones_leave_the_others_as_they_are():
  plain = _corruptor(unrelated_share=0.2)
  mixed = _severe(unrelated_share=0.2, severe_share=0.3)
  hypotheses = [(plain.hypothesis(i), mixed.hypothesis(i)) for i in range(300)]
  same = np.mean([first == second for first, second in hypotheses])
  assert 0.6 < same < 0.85
  assert corruptions.CorruptionConfig() != corruptions.SevereCorruptionConfig(
    severe_share=0.0
  )


@pytest.mark.parametrize(
  'settings',
  [
    {'severe_share': -0.1},
    {'severe_share': 0.95},  # With 0.1 of unrelated ones.
    {'severe_factor': 1.1},
  ],
)
def test_bad_settings_of_severe_ones_are_refused(settings):
  with pytest.raises(ValueError, match=next(iter(settings))):
    corruptions.SevereCorruptionConfig(**settings)


def test_samples_are_scored_against_their_references():
  scored = corruptions.score_samples(
    iter([('s', 'the cat', 'the cat'), ('t', 'xyz', 'the cat')]), chrf_beta=2
  )
  assert scored.sources == ['s', 't']
  assert scored.hypotheses == ['the cat', 'xyz']
  np.testing.assert_array_equal(scored.scores, [1.0, 0.0])
  both = scored + scored
  assert both.sources == ['s', 't', 's', 't']
  np.testing.assert_array_equal(both.scores, [1.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize(
  ('sources', 'references', 'message'),
  [
    (['a'], ['b'], 'two or more pairs'),
    (['a', 'b'], ['c', 'd', 'e'], '2 sources and 3 references'),
    (['a', 'b'], ['c', ' '], 'row 1 is empty'),
  ],
)
def test_unfit_pairs_are_refused(sources, references, message):
  with pytest.raises(ValueError, match=message):
    corruptions.Corruptor(
      corruptions.CorruptionConfig(), sources, references, seed=0
    )


@pytest.mark.parametrize(
  'settings',
  [
    {'max_corruptions': 0},
    {'unrelated_share': 1.1},
    {'unrelated_share': -0.1},
    {'chrf_beta': 0},
  ],
)
def test_bad_settings_are_refused(settings):
  with pytest.raises(ValueError, match=next(iter(settings))):
    corruptions.CorruptionConfig(**settings)
