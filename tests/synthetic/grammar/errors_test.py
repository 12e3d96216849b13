"""Tests of errors in translations."""

import functools

import pytest

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import errors, parser, quality, sentences


@functools.cache
def _drawn():
  dice = dice_lib.Dice('errors')
  return [sentences.draw_sentence(dice) for _ in range(150)]


@pytest.mark.parametrize('kind', errors.KINDS)
def test_every_kind_lowers_the_quality(kind):
  dice = dice_lib.Dice(kind)
  values = []
  for source, sentence in _drawn():
    words = errors.corrupt(source, sentence, (kind,), dice, variety=0.2)
    if words is not None:
      values.append(quality.score(source, ' '.join(words)))
  assert len(values) >= 8
  assert max(values) < 1.0
  # A single error leaves something of nearly every sentence.
  assert sum(values) / len(values) > 0.2


def test_more_errors_are_worse():
  dice = dice_lib.Dice('counts')
  means = []
  for count in range(1, 6):
    values = [
      quality.score(source, ' '.join(errors.corrupt_by(source, s, count, dice)))
      for source, s in _drawn()
    ]
    means.append(sum(values) / len(values))
  assert means == sorted(means, reverse=True)
  assert means[0] > 0.6
  assert means[-1] < 0.35


@pytest.mark.parametrize(
  ('kind', 'source', 'expected'),
  [
    (
      'dropped_negation',
      'der hund sieht die katze nicht .',
      {'the dog sees the cat .'},
    ),
    ('dropped_negation', 'er schläft nie .', {'he always sleeps .'}),
    ('dropped_negation', 'kein hund schläft .', {'a dog sleeps .'}),
    (
      'wrong_sense',
      'der mann trägt den hut .',
      {'the man carries the hat .'},
    ),
    (
      'wrong_sense',
      'der mann repariert das schloss .',
      {'the man repairs the castle .'},
    ),
    (
      'swapped_roles',
      'der hund sieht die katze .',
      {'the cat sees the dog .'},
    ),
    (
      'german_order',
      'der hund wird die katze sehen .',
      {'the dog will the cat see .'},
    ),
    (
      'german_order',
      'heute schläft der hund .',
      {'today sleeps the dog .'},
    ),
    (
      'untranslated',
      'der hund schläft .',
      {'the hund sleeps .'},
    ),
    (
      'wrong_number',
      'der hund schläft .',
      {'the dogs sleep .'},
    ),
    (
      'wrong_tense',
      'der hund wird schlafen .',
      {'the dog sleeps .', 'the dog slept .'},
    ),
    ('dropped_phrase', 'der kleine hund schläft .', {'the dog sleeps .'}),
    ('truncated', 'der kleine hund schläft .', None),
  ],
)
def test_errors_written_by_hand(kind, source, expected):
  sentence = parser.parse(source)
  dice = dice_lib.Dice('hand')
  found = {
    ' '.join(errors.corrupt(source, sentence, (kind,), dice, variety=0.0))
    for _ in range(20)
  }
  if expected is None:
    assert all('the small dog sleeps .'.startswith(text) for text in found)
  else:
    assert found == expected


@pytest.mark.parametrize(
  ('kind', 'source'),
  [
    ('dropped_negation', 'der hund sieht die katze .'),
    ('wrong_sense', 'der hund schläft .'),
    ('swapped_roles', 'der hund schläft .'),
    ('german_order', 'der hund schläft .'),
    ('wrong_modal', 'der hund schläft .'),
    ('wrong_link', 'der hund schläft .'),
    ('wrong_preposition', 'der hund schläft .'),
    ('dropped_phrase', 'der hund schläft .'),
  ],
)
def test_an_error_without_a_place_is_not_made(kind, source):
  dice = dice_lib.Dice('none')
  sentence = parser.parse(source)
  assert errors.corrupt(source, sentence, (kind,), dice) is None
