"""Tests of the built-in task: pairs, judge and ratings."""

import collections
import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from rest_jax.data import ratings, sources, task, vocabularies
from rest_jax.synthetic import corpus
from rest_jax.synthetic.grammar import quality


def _read(split='train', size=300, **settings):
  return list(corpus.SyntheticPairs(split=split, size=size, **settings).read())


@pytest.fixture(scope='module')
def train():
  return _read(size=1500)


@pytest.fixture(scope='module')
def rated():
  return corpus.SyntheticRatings(size=2000, rater_noise=0.2).read()


def _quality(pairs):
  return corpus.SyntheticJudge().score(
    [pair.source for pair in pairs], [pair.reference for pair in pairs]
  )


def test_the_parts_fit_a_task():
  built = task.Task(
    name='synthetic',
    train=corpus.SyntheticPairs(split='train', size=10),
    validation=corpus.SyntheticPairs(split='validation', size=10),
    test=corpus.SyntheticPairs(split='test', size=10),
    vocabulary=vocabularies.VocabularyConfig(size=400),
    ratings=corpus.SyntheticRatings(size=10),
    judge=corpus.SyntheticJudge(),
  )
  assert isinstance(built.train, sources.PairSource)
  assert isinstance(built.ratings, ratings.RatingsSource)
  assert built.judge.name == 'oracle'


def test_sources_without_references_are_those_of_later_pairs():
  read = corpus.SyntheticSources(split='train', size=5, first=7).read()
  assert list(read) == [
    sources.Pair(pair.source, None) for pair in _read(size=12)[7:]
  ]


def test_about_the_asked_share_of_training_references_has_errors(train):
  quality = _quality(train)
  share = np.mean(quality < 1)
  assert abs(share - 0.45) < 4 * np.sqrt(0.45 * 0.55 / len(train))
  # The errors are graded.
  wrong = quality[quality < 1]
  counts, _ = np.histogram(wrong, 5, (0, 1))
  assert counts.min() > 0.05 * len(wrong)
  assert 0.45 < wrong.mean() < 0.7


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_other_references_are_clean_whatever_the_noise(split):
  assert _quality(_read(split, 400, noise=1.0)).min() == 1.0


def test_noise_zero_and_one():
  assert _quality(_read(noise=0.0)).min() == 1.0
  assert _quality(_read(noise=1.0)).max() < 1.0


def test_noise_and_size_do_not_change_the_sources(train):
  clean = _read(size=100, noise=0.0)
  assert [p.source for p in clean] == [p.source for p in train[:100]]
  assert _read(size=100) == train[:100]


def test_variety_zero_gives_one_translation():
  pairs = _read('validation', 300, variety=0.0)
  assert all('has seen' not in pair.reference for pair in pairs)
  varied = _read('validation', 300, variety=0.5)
  assert [p.source for p in varied] == [p.source for p in pairs]
  different = sum(a != b for a, b in zip(pairs, varied, strict=True))
  assert different > 150


def test_no_source_twice_and_none_in_two_splits(train, rated):
  by_split = {
    split: [p.source for p in _read(split, 300, seed=seed)]
    for seed, split in enumerate(['validation', 'test', 'train'])
  }
  by_split['train 0'] = [pair.source for pair in train]
  for name, texts in by_split.items():
    assert len(set(texts)) == len(texts), name
  for name in ('train', 'train 0'):
    for other in ('validation', 'test'):
      assert set(by_split[name]).isdisjoint(by_split[other])
  assert set(by_split['validation']).isdisjoint(by_split['test'])
  assert {corpus.split_of(source) for source in rated.source} == {'train'}
  for split in ('train', 'validation', 'test'):
    found = {corpus.split_of(source) for source in by_split[split]}
    assert found == {split}


def test_the_same_in_every_process_and_another_with_another_seed():
  program = (
    'from rest_jax.synthetic import corpus\n'
    'pairs = corpus.SyntheticPairs(split="train", size=60, seed=5).read()\n'
    'rows = corpus.SyntheticRatings(size=40, seed=5).read()\n'
    'print(list(pairs), rows.hypothesis, rows.score.tolist())\n'
  )
  outputs = set()
  for hash_seed in ('1', '2'):
    environment = {**os.environ, 'PYTHONHASHSEED': hash_seed}
    done = subprocess.run(
      [sys.executable, '-c', program],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    outputs.add(done.stdout)
  assert len(outputs) == 1
  assert repr(_read(size=60, seed=5)) in outputs.pop()
  first = {pair.source for pair in _read(size=60, seed=5)}
  assert len(first & {pair.source for pair in _read(size=60, seed=6)}) < 5


def test_scores_are_those_of_each_pair():
  judge = corpus.SyntheticJudge()
  pairs = _read(size=40, noise=1.0)
  texts = [pair.reference for pair in pairs]
  sources_twice = [pair.source for pair in pairs] * 2
  got = judge.score(sources_twice, [*texts, *texts[::-1]])
  assert got.dtype == np.float64
  expected = [quality.score(p.source, p.reference) for p in pairs]
  np.testing.assert_array_equal(got[:40], expected)
  for pair, text, value in zip(pairs, texts[::-1], got[40:], strict=True):
    assert value == quality.score(pair.source, text)
  assert judge.score([], []).shape == (0,)
  with pytest.raises(
    ValueError, match='must have the same length; got 2 and 1'
  ):
    judge.score(sources_twice[:2], texts[:1])
  with pytest.raises(ValueError, match='sentence of the built-in language'):
    judge.score(['hallo welt'], ['hello world'])


def test_ratings_are_quality_and_noise_by_the_number_of_annotators(rated):
  quality = corpus.SyntheticJudge().score(rated.source, rated.hypothesis)
  error = (rated.score - quality) * np.sqrt(rated.weight)
  n = len(rated)
  assert abs(error.mean()) < 4 * 0.2 / np.sqrt(n)
  assert abs(error.std() - 0.2) < 4 * 0.2 / np.sqrt(2 * n)
  assert set(rated.weight) == {1, 2, 3, 4, 5}
  # The error does not depend on the quality.
  assert abs(np.corrcoef(error, quality)[0, 1]) < 4 / np.sqrt(n)
  exact = corpus.SyntheticRatings(size=200, rater_noise=0.0).read()
  judged = corpus.SyntheticJudge().score(exact.source, exact.hypothesis)
  np.testing.assert_allclose(exact.score, judged, rtol=1e-6)


def test_ratings_are_of_systems_of_all_qualities(rated):
  quality = corpus.SyntheticJudge().score(rated.source, rated.hypothesis)
  counts, _ = np.histogram(quality, 5, (0, 1))
  assert counts.min() > 0.08 * len(rated)
  assert np.mean(quality == 1) > 0.12
  assert any(
    s == h for s, h in zip(rated.source, rated.hypothesis, strict=True)
  )
  assert max(len(text.split()) for text in rated.hypothesis) > 25
  assert all(text.strip() for text in rated.hypothesis)


def test_rating_splits_share_no_source(rated):
  splits = collections.defaultdict(set)
  for source, split in zip(rated.source, rated.split, strict=True):
    splits[split].add(source)
  assert set(splits) == {'train', 'dev', 'test'}
  assert sum(map(len, splits.values())) == len(set(rated.source)) == 500
  assert len(splits['train']) > 5 * len(splits['dev']) > 0
  pairs = list(zip(rated.source, rated.hypothesis, strict=True))
  assert len(set(pairs)) == len(pairs) == 2000


@pytest.mark.parametrize(
  ('made', 'settings', 'message'),
  [
    (corpus.SyntheticPairs, {'split': 'dev', 'size': 1}, "got 'dev'"),
    (corpus.SyntheticPairs, {'split': 'test', 'size': 0}, 'size must be'),
    (
      corpus.SyntheticSources,
      {'split': 'train', 'size': 1, 'first': -1},
      'first must be',
    ),
    (
      corpus.SyntheticPairs,
      {'split': 'test', 'size': 1, 'noise': 1.5},
      r'noise must be in \[0, 1\]; got 1.5',
    ),
    (
      corpus.SyntheticPairs,
      {'split': 'test', 'size': 1, 'variety': -0.1},
      'variety',
    ),
    (corpus.SyntheticRatings, {'size': 0}, 'size'),
    (corpus.SyntheticRatings, {'size': 1, 'rater_noise': -1.0}, 'noise'),
    (
      corpus.SyntheticRatings,
      {'size': 1, 'hypotheses_per_source': 0},
      'hypotheses_per_source',
    ),
  ],
)
def test_settings_are_checked(made, settings, message):
  with pytest.raises(ValueError, match=message):
    made(**settings)


def test_raters_give_the_quality_with_the_error_of_their_mean():
  pairs = _read(split='validation', size=400)
  sources = [pair.source for pair in pairs]
  hypotheses = [pair.reference for pair in pairs[1:] + pairs[:1]]
  quality = corpus.SyntheticJudge().score(sources, hypotheses)
  raters = corpus.SyntheticRaters(rater_noise=0.4, num_annotators=4)
  scores, annotators = raters.rate(sources, hypotheses)
  assert annotators.tolist() == [4] * 400
  # One annotator's 0.4, over the root of four.
  errors = scores - quality
  assert errors.std() == pytest.approx(0.2, rel=0.15)
  assert abs(errors.mean()) < 0.03
  # A text has one score, whatever is asked beside it.
  alone, _ = raters.rate(sources[7:8], hypotheses[7:8])
  assert alone[0] == scores[7]
  others = dataclasses.replace(raters, seed=1).rate(sources, hypotheses)[0]
  assert (others != scores).mean() > 0.99
  exact = corpus.SyntheticRaters(rater_noise=0.0)
  np.testing.assert_array_equal(exact.rate(sources, hypotheses)[0], quality)


@pytest.mark.parametrize(
  'settings', [{'rater_noise': -0.1}, {'num_annotators': 0}]
)
def test_unfit_raters_are_refused(settings):
  with pytest.raises(ValueError, match=next(iter(settings))):
    corpus.SyntheticRaters(**settings)
