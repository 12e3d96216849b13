"""Errors in the words of a text, independent of its meaning.

Each function takes the words of a text, at least three, and dice. It returns
the changed words, or None if the error cannot be made.
"""

from collections.abc import Sequence

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import lexicon


def _wrong_forms() -> dict[str, tuple[str, ...]]:
  """Returns the forms that may be confused with each English word."""
  groups = [
    ('is', 'are'), ('was', 'were'), ('has', 'have'), ('do', 'does'),
    ('a', 'an'), ('this', 'these'), ('wants', 'want'), ('likes', 'like'),
    ('he', 'him'), ('she', 'her'), ('they', 'them'), ('we', 'us'),
  ]  # fmt: skip
  groups += [
    verb[:4]
    for entry in lexicon.VERBS.values()
    for sense in entry.senses
    for verb in sense.verbs
    if verb.base != 'be'
  ]
  return {
    form: tuple(other for other in dict.fromkeys(group) if other != form)
    for group in groups
    for form in group
  }


_WRONG_FORMS = _wrong_forms()


def agreement(words: Sequence[str], dice: dice_lib.Dice) -> list[str] | None:
  """Replaces a verb, an article or a pronoun by a wrong form."""
  places = [i for i, word in enumerate(words) if _WRONG_FORMS.get(word)]
  if not places:
    return None
  place: int = dice.pick(places)
  form = dice.pick(_WRONG_FORMS[words[place]])
  return [*words[:place], form, *words[place + 1 :]]


def dropped_word(words: Sequence[str], dice: dice_lib.Dice) -> list[str]:
  """Drops a word."""
  place: int = dice.pick(range(len(words) - 1))
  return [*words[:place], *words[place + 1 :]]


def repeated_word(words: Sequence[str], dice: dice_lib.Dice) -> list[str]:
  """Repeats a word."""
  place: int = dice.pick(range(len(words) - 1))
  return [*words[: place + 1], *words[place:]]


def repeated_phrase(words: Sequence[str], dice: dice_lib.Dice) -> list[str]:
  """Repeats several consecutive words."""
  length = 2 + dice.pick(range(3))
  start = dice.pick(range(max(1, len(words) - length)))
  end = min(start + length, len(words) - 1)
  return [*words[:end], *words[start:]]


def swapped_words(words: Sequence[str], dice: dice_lib.Dice) -> list[str]:
  """Swaps two adjacent words."""
  place: int = dice.pick(range(len(words) - 2))
  swapped = [words[place + 1], words[place]]
  return [*words[:place], *swapped, *words[place + 2 :]]


def truncated(words: Sequence[str], dice: dice_lib.Dice) -> list[str]:
  """Drops the end."""
  share = 0.4 + 0.5 * dice.pick(range(10)) / 10
  return list(words[: max(1, int(share * len(words)))])
