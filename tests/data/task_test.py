"""Tests of the task's own checks."""

import pytest

from rest_jax.data import ratings, sources, task, vocabularies
from rest_jax.rewards import lexical

_TEXT = sources.SourceText(files='a')


def _task(**changes):
  settings = {
    'name': 'x',
    'train': _TEXT,
    'validation': _TEXT,
    'test': _TEXT,
    'vocabulary': vocabularies.VocabularyConfig(),
  }
  return task.Task(**{**settings, **changes})


def test_a_task_and_its_defaults():
  made = _task()
  assert made.grow is None
  assert made.ratings is None
  assert made.judge is None
  assert (made.max_source_length, made.max_target_length) == (128, 128)
  full = _task(
    grow=_TEXT,
    max_length_ratio=1.0,
    ratings=ratings.RatingsFile(path='a'),
    judge=lexical.Chrf(),
  )
  assert full.judge.name == 'chrf'


@pytest.mark.parametrize(
  ('change', 'error', 'message'),
  [
    ({'name': ''}, ValueError, 'name must not be empty'),
    ({'train': 'a.de'}, TypeError, "train must be .* got 'a.de'"),
    ({'validation': None}, TypeError, 'validation must be .* got None'),
    (
      {'more_tests': {'test_2017': 'a'}},
      TypeError,
      "test_2017 must be a source of pairs, .* got 'a'",
    ),
    (
      {'more_tests': {'test': _TEXT}},
      ValueError,
      "more_tests must .* got 'test'",
    ),
    (
      {'more_tests': {'../test': _TEXT}},
      ValueError,
      r"more_tests must .* got '\.\./test'",
    ),
    ({'more_tests': {2017: _TEXT}}, ValueError, 'more_tests must .* got 2017'),
    ({'grow': 3}, TypeError, 'grow must be .* got 3'),
    ({'vocabulary': 'v.model'}, TypeError, "vocabulary must be .* 'v.model'"),
    ({'ratings': 'r.tsv'}, TypeError, "ratings must be .* 'r.tsv'"),
    ({'judge': 'oracle'}, TypeError, "judge must be .* 'oracle'"),
    ({'max_source_length': 1}, ValueError, 'max_source_length must .* got 1'),
    ({'max_target_length': 1}, ValueError, 'max_target_length must .* got 1'),
    ({'max_length_ratio': 0.5}, ValueError, 'max_length_ratio .* got 0.5'),
  ],
)
def test_wrong_settings_are_refused(change, error, message):
  with pytest.raises(error, match=message):
    _task(**change)
