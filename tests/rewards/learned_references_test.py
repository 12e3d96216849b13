"""Tests of what references beside ratings teach."""

import dataclasses

import numpy as np
import pytest
import sacrebleu

from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import learned_references

_RATED = ratings_lib.Ratings(
  source=['eins', 'zwei', 'drei', 'vier'],
  hypothesis=['one', 'too', 'three trees', 'for'],
  score=np.array([0.5, -1.0, 2.0, 0.25], np.float32),
  weight=np.ones(4, np.float32),
  split=['train'] * 4,
  reference=['one', 'two', 'three', 'four'],
)


def test_blended_by_hand():
  # Standardised ratings -1 and 1 twice, chrF -1, 1, 1, -1: their sum with
  # weight 1 is -2, 2, 0, 0, of deviation sqrt(2).
  ratings = np.array([1.0, 5.0, 1.0, 5.0])
  chrf = np.array([0.2, 0.6, 0.6, 0.2])
  found = learned_references.blended(ratings, chrf, weight=1.0)
  expected = 3.0 + 2.0 * np.array([-2.0, 2.0, 0.0, 0.0]) / np.sqrt(2.0)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert found.dtype == np.float32


def test_the_mean_and_deviation_of_the_ratings_stay():
  random = np.random.default_rng(0)
  ratings, chrf = random.normal(3.0, 7.0, 500), random.random(500)
  for weight in (0.3, 1.0, 20.0):
    found = learned_references.blended(ratings, chrf, weight=weight)
    assert found.mean() == pytest.approx(ratings.mean(), abs=1e-4)
    assert found.std() == pytest.approx(ratings.std(), rel=1e-5)
  # Much weight leaves chrF alone.
  found = learned_references.blended(ratings, chrf, weight=1e4)
  assert np.corrcoef(found, chrf)[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_without_weight_the_ratings_are_fitted_as_they_are():
  config = learned_references.RatedReferences(weight=0.0)
  targets, more = learned_references.teach(config, _RATED, chrf_beta=2)
  np.testing.assert_array_equal(targets.scores, _RATED.score)
  assert more is not None
  expected = [
    sacrebleu.sentence_chrf(hypothesis, [reference]).score / 100
    for hypothesis, reference in zip(
      _RATED.hypothesis, _RATED.reference or (), strict=True
    )
  ]
  np.testing.assert_allclose(more.scores, expected, atol=1e-6)
  assert more.hypotheses == targets.hypotheses == _RATED.hypothesis
  assert more.sources == targets.sources == _RATED.source


def test_pretraining_may_do_without():
  config = learned_references.RatedReferences(pretrain=False, weight=0.5)
  targets, more = learned_references.teach(config, _RATED, chrf_beta=1)
  assert more is None
  assert not np.array_equal(targets.scores, _RATED.score)


@pytest.mark.parametrize(
  'reference', [None, ['one', '', 'three', 'four']], ids=['none', 'one lacks']
)
def test_ratings_without_references_are_refused(reference):
  rated = dataclasses.replace(_RATED, reference=reference)
  with pytest.raises(
    ValueError, match=r'RewardStage\.references = None'
  ) as error:
    learned_references.teach(
      learned_references.RatedReferences(), rated, chrf_beta=1
    )
  assert ("'eins'" if reference is None else "'zwei'") in str(error.value)


def test_chrf_that_does_not_vary_is_refused():
  rated = dataclasses.replace(_RATED, reference=_RATED.hypothesis)
  with pytest.raises(ValueError, match="chrF to the ratings' references"):
    learned_references.teach(
      learned_references.RatedReferences(), rated, chrf_beta=1
    )


@pytest.mark.parametrize(
  'settings',
  [
    {'weight': -0.1},
    {'weight': float('nan')},
    {'weight': float('inf')},
    {'pretrain': False, 'weight': 0.0},
  ],
)
def test_settings_without_sense_are_refused(settings):
  with pytest.raises(ValueError, match='must'):
    learned_references.RatedReferences(**settings)
