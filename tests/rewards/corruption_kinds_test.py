"""Tests of each kind of corruption."""

import random

import pytest

from rest_jax.rewards import corruption_kinds

_SENTENCE = (
  *('The', 'old', 'dog', 'sees', 'a', 'cat,'),
  *('not', '12', 'birds,', 'on', 'Monday.'),
)
_OTHER = ['other', 'words', 'are', 'here']
_SOURCE = ['Der', 'Hund', 'sieht', 'eine', 'Katze']
_KINDS = pytest.mark.parametrize(
  'kind',
  list(dict.fromkeys(corruption_kinds.KINDS)),
  ids=lambda kind: kind.__name__,
)


def _context(negations=('not', 'never')):
  return corruption_kinds.Context(
    source=_SOURCE, draw_reference=lambda: list(_OTHER), negations=negations
  )


def _results(kind, words, times=40, **settings):
  return [
    kind(list(words), random.Random(seed), _context(**settings))
    for seed in range(times)
  ]


@_KINDS
@pytest.mark.parametrize(
  'words',
  [(), ('a',), ('I.',), ('...',), ('Not', '12,', 'x.')],
  ids=' '.join,
)
def test_short_texts_are_survived(kind, words):
  given = list(words)
  for seed in range(40):
    result = kind(given, random.Random(seed), _context())
    assert all(isinstance(word, str) and word for word in result)
    assert given == list(words)


@_KINDS
def test_a_sentence_is_changed_and_stays_like_itself(kind):
  results = _results(kind, _SENTENCE)
  changed = [result for result in results if result != list(_SENTENCE)]
  assert len(changed) >= 20
  # One corruption is one step: something of the sentence remains.
  assert all(set(result) & set(_SENTENCE) for result in results)


@_KINDS
def test_the_same_draws_give_the_same_words(kind):
  assert _results(kind, _SENTENCE) == _results(kind, _SENTENCE)


@pytest.mark.parametrize('name', ['exchange', 'move', 'shuffle'])
def test_permutations_keep_all_words(name):
  for result in _results(getattr(corruption_kinds, f'_{name}'), _SENTENCE):
    assert sorted(result) == sorted(_SENTENCE)


@pytest.mark.parametrize(
  ('name', 'is_longer'),
  [
    *[('drop', False), ('truncate', False)],
    *[('repeat', True), ('extend', True), ('insert', True)],
  ],
)
def test_lengths_change_the_right_way(name, is_longer):
  for result in _results(getattr(corruption_kinds, f'_{name}'), _SENTENCE):
    assert len(result) != len(_SENTENCE)
    assert (len(result) > len(_SENTENCE)) == is_longer


def test_foreign_words_come_from_where_they_should():
  for result in _results(corruption_kinds._replace, _SENTENCE):
    assert len(result) == len(_SENTENCE)
    assert set(result) - set(_SENTENCE) <= set(_OTHER)
    assert set(result) & set(_OTHER)
  for result in _results(corruption_kinds._untranslated, _SENTENCE):
    assert set(result) - set(_SENTENCE) <= set(_SOURCE)
    assert set(result) & set(_SOURCE)


def test_negations_come_and_go():
  words = ['dogs', 'bark']
  for result in _results(corruption_kinds._negate, words):
    assert sorted(result) in (
      ['bark', 'dogs', 'not'],
      ['bark', 'dogs', 'never'],
    )
  for result in _results(corruption_kinds._negate, ['dogs', 'Never', 'bark']):
    assert result == words
  for result in _results(corruption_kinds._negate, words, negations=()):
    assert len(result) == 2 and set(result) & set(_OTHER)


def test_only_digits_of_numbers_change():
  for result in _results(corruption_kinds._renumber, ['On', '12.3', 'May']):
    assert result[0] == 'On' and result[2] == 'May'
    assert [c.isdigit() for c in result[1]] == [True, True, False, True]


def test_case_changes_leave_the_letters():
  for result in _results(corruption_kinds._recase, _SENTENCE):
    assert [w.lower() for w in result] == [w.lower() for w in _SENTENCE]


def test_misspelling_changes_one_word_a_little():
  for result in _results(corruption_kinds._misspell, _SENTENCE):
    different = [
      (old, new)
      for old, new in zip(_SENTENCE, result, strict=True)
      if old != new
    ]
    assert len(different) <= 1
    assert all(abs(len(old) - len(new)) <= 1 for old, new in different)


def test_punctuation_changes_leave_the_letters():
  for result in _results(corruption_kinds._punctuate, _SENTENCE):
    letters = [word.strip('.,;:!?') for word in result]
    assert letters == [word.strip('.,;:!?') for word in _SENTENCE]


def _severe(kind, text, other='It met Anna Smith in Rome', seed=0):
  context = corruption_kinds.Context(
    source=_SOURCE,
    draw_reference=other.split,
    negations=('not',),
    number_words=('two', 'three'),
  )
  words = text.split()
  changed = kind(words, random.Random(seed), context)
  assert words == text.split()
  return ' '.join(changed)


def test_a_number_becomes_another_in_digits_or_words():
  kind = corruption_kinds._recount
  assert _severe(kind, 'Two dogs') == 'Three dogs'
  assert _severe(kind, 'a dog') == 'a dog'
  for seed in range(20):
    changed = _severe(kind, 'in 7 days', seed=seed)
    assert changed != 'in 7 days' and changed.split()[1].isdigit()


def test_a_name_gives_way_to_one_of_another_text():
  kind = corruption_kinds._rename
  found = {_severe(kind, 'The man saw Bob', seed=s) for s in range(20)}
  assert found == {f'The man saw {n}' for n in ('Anna', 'Smith', 'Rome')}
  # Neither the first word, nor one that the text has already, nor "I".
  assert _severe(kind, 'The man and I') == 'The man and I'
  assert _severe(kind, 'See Rome', other='Go to Rome') == 'See Rome'


def test_a_sentence_is_added_whole_and_words_change_places():
  added = _severe(corruption_kinds._add_sentence, 'a dog', other='b c d')
  assert added == 'a dog b c d'
  permuted = _severe(corruption_kinds._permute, 'a b c d e f')
  assert (
    sorted(permuted.split()) == list('abcdef') and permuted != 'a b c d e f'
  )
