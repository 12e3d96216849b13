"""Tests of the exact quality of translations."""

import random
import time

import pytest

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import english, lattice, quality, sentences

_SOURCE = 'der hund sieht die katze .'
# the .25, dog 1, sees 1, the .25, cat 1, full stop .2
_WEIGHT = 3.7


def _value(distance: float, weight: float = _WEIGHT) -> float:
  return max(0.0, 1.0 - distance / weight) ** 2


@pytest.mark.parametrize(
  ('text', 'distance'),
  [
    ('the dog sees the cat .', 0.0),
    ('The dog sees the cat.', 0.0),
    ('  the  dog sees the\tcat .\n', 0.0),
    ('the dog sees the cat', 0.2),
    ('a dog sees the cat .', 0.25),
    ('the dog sees the cats .', 0.5),
    ('the dog saw the cat .', 0.5),
    ('the dog see the cat .', 0.5),
    ('the dog sees the the cat .', 0.25 * 0.75),
    ('the dog sees the bird .', 1.0),
    ('the hund sees the cat .', 1.0),
    ('the dog the cat .', 1.0),
    ('the big dog sees the cat .', 0.75),
    ('the dog the cat sees .', 1.75),
    ('the dog never sees the cat .', 1.5),
    ('two dogs see the cat .', 1.2 + 0.5 + 0.5),
    ('the cat sees the dog .', 2.0),
    ('the bird hears a child ?', 1.0 + 1.0 + 0.25 + 1.0 + 0.2),
    ('.', _WEIGHT - 0.2),
    ('', _WEIGHT),
    ('   ', _WEIGHT),
    ('zzz', _WEIGHT),
  ],
)
def test_edits_cost_what_their_words_weigh(text, distance):
  assert quality.score(_SOURCE, text) == pytest.approx(_value(distance))


def test_negation_and_numbers_weigh_more_than_other_words():
  source = 'der hund sieht die katze nicht .'
  weight = _WEIGHT + 0.3 + 1.5  # does, not
  assert quality.score(source, 'the dog does not see the cat .') == 1.0
  dropped = quality.score(source, 'the dog sees the cat .')
  assert dropped == pytest.approx(_value(0.3 + 1.5 + 0.5, weight))
  numbers = 'zwei hunde sehen die katze .'
  weight = 1.2 + 1.0 + 1.0 + 0.25 + 1.0 + 0.2
  wrong = quality.score(numbers, 'three dogs see the cat .')
  assert wrong == pytest.approx(_value(1.2, weight))


def test_the_nearest_acceptable_translation_counts():
  source = 'er hat heute keinen großen hund gesehen .'
  # he has not seen any large dog today: 'has' weighs less than 'did'+'see'
  assert quality.score(source, 'today he has not seen any large dog .') == 1.0
  weight = quality.acceptable(source).weight
  wrong = quality.score(source, 'today he has not seen any large dogs .')
  assert wrong == pytest.approx(_value(0.5, weight))


def _drawn(count: int, seed: str = 'quality'):
  dice = dice_lib.Dice(seed)
  return [sentences.draw_sentence(dice) for _ in range(count)]


def test_every_translation_that_is_drawn_is_perfect():
  dice = dice_lib.Dice('variety')
  for source, sentence in _drawn(1500):
    expression = english.translations(sentence)
    for variety in (0.0, 0.5):
      pick = dice_lib.usual_with(dice, variety)
      text = ' '.join(lattice.draw(expression, pick))
      assert quality.score(source, text) == 1.0, (source, text)


def test_hopeless_texts_are_near_zero():
  drawn = _drawn(300)
  rng = random.Random(0)
  texts = [' '.join(lattice.usual(english.translations(s))) for _, s in drawn]
  kinds = {'other': [], 'copy': [], 'salad': [], 'twice': [], 'thrice': []}
  for (source, _), text, other in zip(drawn, texts, texts[1:] + texts[:1]):  # noqa: B905
    words = text.split()
    rng.shuffle(words)
    kinds['other'].append(quality.score(source, other))
    kinds['copy'].append(quality.score(source, source))
    kinds['salad'].append(quality.score(source, ' '.join(words)))
    kinds['twice'].append(quality.score(source, f'{text} {text}'))
    kinds['thrice'].append(quality.score(source, f'{text} {text} {text}'))
  means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
  assert means['other'] < 0.02
  assert means['copy'] < 0.01
  assert means['salad'] < 0.2
  assert means['twice'] < 0.1
  assert max(kinds['thrice']) == 0.0


def test_adding_words_never_helps_a_perfect_text():
  rng = random.Random(1)
  added = ['the', '.', ',', 'not', 'dog', 'zzz', 'is', 'today', 'two', 'die']
  for source, sentence in _drawn(100):
    words = lattice.usual(english.translations(sentence))
    last = 1.0
    for _ in range(12):
      # After the end nothing added can belong to a translation.
      words = [*words, rng.choice(added)]
      current = quality.score(source, ' '.join(words))
      assert current < last or current == 0.0
      last = current


@pytest.mark.parametrize(
  'text',
  [
    '\x00',
    '⁇ ⁇ ⁇',
    'ſ ß İ 漢字 🙂' * 50,
    '. ' * 100_000,
    'the ' * 100_000,
    'a' * 1_000_000,
    ' ' * 1_000_000,
    '(' * 500,
    'the dog sees the cat . ' * 5_000,
    '.?!,;:' * 90,
  ],
)
def test_any_text_gets_a_value_at_once(text):
  start = time.perf_counter()
  value = quality.score(_SOURCE, text)
  assert 0.0 <= value < 0.1
  # Ten times what is seen: a quadratic time would take minutes.
  assert time.perf_counter() - start < 2.0


def test_spaces_alone_do_not_make_a_text_too_long():
  text = 'the dog sees the cat .'.replace(' ', ' ' * 1000)
  assert quality.score(_SOURCE, text) == 1.0


@pytest.mark.parametrize('source', ['', 'the dog sees .', 'hund', _SOURCE[:-2]])
def test_a_foreign_source_is_an_error(source):
  with pytest.raises(ValueError, match='sentence of the built-in language'):
    quality.score(source, 'the dog sees the cat .')
