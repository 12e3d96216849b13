"""Translation errors, from a wrong form to a lost meaning."""

from collections.abc import Callable
from typing import Any, TypedDict

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import (
  english,
  lattice,
  lexicon,
  meaning,
  meaning_errors,
  quality,
  word_errors,
)

# Attempts to make an error before it counts as impossible.
_TRIES = 6


class _Settings(TypedDict, total=False):
  """Arguments of `english.Translator`."""

  wrong_sense: str
  untranslated: str
  german_order: bool


def _lexical_words(sentence: meaning.Sentence) -> list[str]:
  """Returns the nouns, verbs and adjectives of a sentence."""
  words = []
  for _, _, phrase in meaning_errors.phrases(sentence):
    words += [phrase.noun, phrase.adjective]
  for _, clause in meaning_errors.clauses(sentence):
    words += [clause.verb, clause.predicate]
  return [word for word in words if word in lexicon.SENSES]


def _wrong_sense(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> _Settings | None:
  words = [w for w in _lexical_words(sentence) if len(lexicon.SENSES[w]) > 1]
  return {'wrong_sense': dice.pick(words)} if words else None


def _untranslated(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> _Settings | None:
  words = [w for w in _lexical_words(sentence) if w not in lexicon.VERBS]
  return {'untranslated': dice.pick(words)} if words else None


def _german_order(sentence: meaning.Sentence, dice: dice_lib.Dice) -> _Settings:
  del sentence, dice
  return {'german_order': True}


# Kind -> (weight, function). The functions of the three tables change the
# meaning, the translation and the words.
_Errors = dict[str, tuple[float, Callable[..., Any]]]
MEANING_ERRORS: _Errors = {
  'wrong_noun': (12, meaning_errors.wrong_noun),
  'wrong_verb': (9, meaning_errors.wrong_verb),
  'wrong_adjective': (6, meaning_errors.wrong_adjective),
  'wrong_number': (8, meaning_errors.wrong_number),
  'wrong_determiner': (6, meaning_errors.wrong_determiner),
  'wrong_tense': (8, meaning_errors.wrong_tense),
  'wrong_modal': (4, meaning_errors.wrong_modal),
  'dropped_negation': (6, meaning_errors.dropped_negation),
  'swapped_roles': (5, meaning_errors.swapped_roles),
  'dropped_phrase': (9, meaning_errors.dropped_phrase),
  'hallucinated': (7, meaning_errors.hallucinated),
  'wrong_link': (3, meaning_errors.wrong_link),
  'wrong_preposition': (4, meaning_errors.wrong_preposition),
}
TRANSLATION_ERRORS: _Errors = {
  'wrong_sense': (14, _wrong_sense),
  'untranslated': (6, _untranslated),
  'german_order': (10, _german_order),
}
WORD_ERRORS: _Errors = {
  'agreement': (9, word_errors.agreement),
  'dropped_word': (7, word_errors.dropped_word),
  'repeated_word': (4, word_errors.repeated_word),
  'repeated_phrase': (2, word_errors.repeated_phrase),
  'swapped_words': (4, word_errors.swapped_words),
  'truncated': (2, word_errors.truncated),
}
KINDS = (*MEANING_ERRORS, *TRANSLATION_ERRORS, *WORD_ERRORS)
_WEIGHTS = tuple(
  (kind, weight)
  for table in (MEANING_ERRORS, TRANSLATION_ERRORS, WORD_ERRORS)
  for kind, (weight, _) in table.items()
)


def _apply(
  sentence: meaning.Sentence,
  kinds: tuple[str, ...],
  dice: dice_lib.Dice,
  variety: float,
) -> list[str] | None:
  """Translates with errors; returns None if one of them does not apply."""
  for kind in kinds:
    if kind in MEANING_ERRORS:
      sentence = MEANING_ERRORS[kind][1](sentence, dice)
      if sentence is None:
        return None
  settings: _Settings = {}
  for kind in kinds:
    if kind in TRANSLATION_ERRORS:
      setting = TRANSLATION_ERRORS[kind][1](sentence, dice)
      if setting is None:
        return None
      settings.update(setting)
  expression = english.Translator(**settings).sentence(sentence)
  words = lattice.draw(expression, dice_lib.usual_with(dice, variety))
  for kind in kinds:
    if kind in WORD_ERRORS:
      words = len(words) > 2 and WORD_ERRORS[kind][1](words, dice)
      if not words:
        return None
  return words


def corrupt(
  source: str,
  sentence: meaning.Sentence,
  kinds: tuple[str, ...],
  dice: dice_lib.Dice,
  variety: float = 0.1,
) -> list[str] | None:
  """Translates a sentence with errors.

  Args:
    kinds: kinds of errors, from KINDS.
    variety: probability of a less common synonym or order, at each choice.

  Returns:
    English words that are not an acceptable translation, or None if the errors
    cannot be made in this sentence.
  """
  acceptable = quality.acceptable(source)
  for _ in range(_TRIES):
    words = _apply(sentence, kinds, dice, variety)
    if words is not None and acceptable.distance(words) > 0:
      return words
  return None


def corrupt_by(
  source: str,
  sentence: meaning.Sentence,
  count: int,
  dice: dice_lib.Dice,
  variety: float = 0.1,
) -> list[str]:
  """Translates a sentence with `count` errors of random kinds."""
  while True:
    kinds = tuple(dice.pick_weighted(_WEIGHTS) for _ in range(count))
    words = corrupt(source, sentence, kinds, dice, variety)
    if words is not None:
      return words
