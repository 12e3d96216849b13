"""Guards: what passes and what does not, and what a veto does."""

import numpy as np
import pytest

from rest_jax.rewards import base, composed, guards
from tests.rewards import fakes

PAIRS = (
  ('der Hund schläft heute nicht', 'the dog does not sleep today'),
  ('ich sehe die kleine Katze', 'i see the small cat'),
)
ALL = (
  guards.LengthRatio(),
  guards.Repetition(),
  guards.SourceCopy(),
  guards.Language(),
)


def passes(guard, source, hypothesis):
  return bool(guard.prepare(fakes.Pairs(*PAIRS))([source], [hypothesis])[0])


@pytest.mark.parametrize(
  ('length', 'expected'),
  [(0, False), (1, False), (2, True), (8, True), (9, False)],
)
def test_length_ratio(length, expected):
  guard = guards.LengthRatio(low=0.5, high=2.0)
  assert passes(guard, 'abcd', 'x' * length) == expected


@pytest.mark.parametrize(
  ('text', 'share'),
  [
    ('a b c d', 0.0),
    # Bigrams ab ba ab ba ab: 2 distinct of 5.
    ('a b a b a b', 3 / 5),
    ('A b a B', 1 / 3),
    # 我很 很我 我很
    ('我很我很', 1 / 3),
    ('a a', 0.0),
    ('', 0.0),
  ],
)
def test_repetition(text, share):
  assert passes(guards.Repetition(max_share=share), 's', text)
  if share:
    assert not passes(guards.Repetition(max_share=share - 0.01), 's', text)


def test_repetition_of_one_word():
  assert not passes(guards.Repetition(order=1, max_share=0.4), 's', 'a a')
  assert passes(guards.Repetition(order=1, max_share=0.5), 's', 'a a')


def test_source_copy():
  guard = guards.SourceCopy(max_share=0.5, min_words=4)
  source = 'Anna wohnt in Berlin'
  assert not passes(guard, source, source)
  # 'in', 'anna' and 'berlin' of 4.
  assert not passes(guard, source, 'anna lives in Berlin')
  # 2 of 4 are not too many.
  assert passes(guard, source, 'Anna lives near Berlin')
  assert passes(guard, 'Guten Tag Anna', 'Guten Tag Anna')


def test_language():
  guard = guards.Language(min_characters=8)
  assert passes(guard, 's', 'the small dog does not see the cat')
  assert not passes(guard, 's', 'der kleine Hund sieht die Katze nicht')
  assert passes(guard, 's', 'der Hun')
  strict = guards.Language(min_characters=8, min_evidence=50.0)
  assert not passes(strict, 's', 'the small dog does not see the cat')


def test_a_language_is_learned_from_pairs_that_are_evenly_spread():
  class Watched(fakes.Pairs):
    read = ()

    def source_text(self, row):
      self.read += (row,)
      return super().source_text(row)

  pairs = Watched(*[('der Hund', 'the dog')] * 9)
  guards.Language(max_pairs=3).prepare(pairs)
  assert pairs.read == (0, 4, 8)
  guards.Language().prepare(pairs)
  assert pairs.read[3:] == tuple(range(9))


GOOD = 'the small dog does not see the cat'
BAD = {
  'length_ratio': 'the',
  'repetition': 'the dog the dog the dog the dog',
  'source_copy': 'Paul Maier York London Rom',
  'language': 'der kleine Hund sieht die Katze nicht',
}
SOURCE = 'Paul Maier York London Rom Lima'
TABLE = fakes.Table(
  rewards=((GOOD, -0.5), *((text, 0.9) for text in BAD.values())), name='fooled'
)


def loaded(**settings):
  config = guards.Guarded(
    **{'reward': TABLE, 'guards': ALL, 'floor': -3.0, **settings}
  )
  return config.load(fakes.resources(*PAIRS))


def test_a_vetoed_hypothesis_gets_the_floor():
  hypotheses = [GOOD, *BAD.values()]
  columns = base.columns(loaded(), [SOURCE] * 5, hypotheses)
  np.testing.assert_array_equal(columns['guarded'], [-0.5, -3, -3, -3, -3])
  # What the reward thought is kept, and which guard objected.
  np.testing.assert_allclose(columns['fooled'], [-0.5, 0.9, 0.9, 0.9, 0.9])
  for row, name in enumerate(BAD, start=1):
    column = columns[f'guarded_{name}']
    assert column[0] == 1 and column[row] == 0, name
  assert set(base.scales(loaded())) == set(columns) - {'guarded'}
  assert base.describe(loaded())['guarded']['floor'] == -3.0


def test_a_reward_below_the_floor_is_an_error_that_names_it():
  with pytest.raises(ValueError, match=r'-0\.5 at position 1 \(1 such among 2'):
    loaded(floor=-0.5).score([SOURCE] * 2, [BAD['length_ratio'], GOOD])
  # What is vetoed may have been below.
  table = fakes.Table(rewards=(('the', -9.0), (GOOD, 1.0)))
  rewards = loaded(reward=table).score([SOURCE] * 2, ['the', GOOD])
  np.testing.assert_array_equal(rewards, [-3, 1])


def test_nan_stays_an_error_under_a_veto():
  table = fakes.Table(rewards=(('the', np.nan),))
  with pytest.raises(FloatingPointError, match=r"'table' .* position 0"):
    loaded(reward=table).score([SOURCE], ['the'])


def test_columns_include_the_parts_of_the_guarded_reward():
  other = fakes.Table(rewards=TABLE.rewards, name='other')
  several = composed.Minimum(
    components=[composed.Component(reward=r) for r in (TABLE, other)]
  )
  reward = loaded(reward=several, guards=[guards.LengthRatio()])
  assert list(base.columns(reward, [SOURCE], [GOOD])) == [
    'guarded', 'minimum', 'fooled', 'other', 'guarded_length_ratio',
  ]  # fmt: skip
  assert set(base.scales(reward)) == {
    'minimum', 'fooled', 'other', 'guarded_length_ratio',
  }  # fmt: skip


def test_digests_tell_settings_apart():
  made = [
    loaded(),
    loaded(floor=-4.0),
    loaded(guards=ALL[:2]),
    loaded(guards=(guards.LengthRatio(high=3.0),)),
    loaded(reward=fakes.Table(rewards=())),
  ]
  assert len({reward.digest for reward in made}) == 5


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'guards': ()}, 'at least one'),
    ({'guards': ALL + ALL[:1]}, 'each kind once'),
    ({'floor': float('nan')}, 'floor must be a finite number'),
    ({'name': 'fooled'}, "got 'fooled' more than once"),
  ],
)
def test_settings_are_checked(settings, message):
  with pytest.raises(ValueError, match=message):
    loaded(**settings)


def test_a_guard_must_be_one():
  with pytest.raises(TypeError, match='guards must be guards'):
    loaded(guards=('length',))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: guards.LengthRatio(low=2.0, high=1.0), 'low < high'),
    (lambda: guards.Repetition(max_share=1.0), 'max_share must be in'),
    (lambda: guards.Repetition(order=0), 'order must be at least 1'),
    (lambda: guards.SourceCopy(min_words=0), 'min_words must be at least 1'),
    (lambda: guards.Language(order=0), 'order must be at least 1'),
  ],
)
def test_settings_of_guards_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()
