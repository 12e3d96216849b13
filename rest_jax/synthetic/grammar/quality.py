"""The exact quality of an English text as translation of a German sentence.

All acceptable translations of a sentence are known. The distance to the nearest
one is the minimum total cost of edits, and

    quality = max(0, 1 - distance / weight)^2,

where `weight` is the cost of omitting all words. The quality is 1 if and only
if the text is an acceptable translation, and 0 for an empty text.
"""

from collections.abc import Iterable, Iterator
import functools
import re

from rest_jax.synthetic.grammar import english, lattice, lexicon, parser

# Longer texts have quality 0; all sentences are much shorter.
MAX_CHARACTERS = 600
MAX_WORDS = 60

_CONTENT = 1.0
_NUMBER = 1.2
_NEGATION = 1.5
_FUNCTION_WORDS = {
  0.2: '. ? ,',
  0.25: 'a an the',
  0.3: 'is are was were be been do does did has have had to that who whom which',
  0.4: 'will this these my his her its our their any',
  0.5: 'in into on onto with behind front of next beside under from out for'
  ' without through by up at or',
  0.6: 'because since when if although though while before whether and but why',
  0.7: 'he she we they him us them can must should may need able allowed'
  ' supposed want wants wanted like likes liked all every each some several',
  _NUMBER: ' '.join((*lexicon.NUMERALS.values(), 'many')),
  _NEGATION: 'not no never without',
}
COSTS = {
  word: cost
  for cost, words in _FUNCTION_WORDS.items()
  for word in words.split()
}
# An added word costs this share of its weight (negations and numbers: all of
# it), so that a misplaced word, which is omitted and added, costs less than two
# wrong words.
_ADDED_SHARE = 0.75
# A wrong form of the right word costs this share of its weight.
_FORM_SHARE = 0.5
# Words that are forms of one another.
_FORMS_OF_ONE_WORD = (
  'a an',
  'is are was were be been',
  'do does did',
  'has have had',
  'want wants wanted',
  'like likes liked',
  'this these',
  'he him his',
  'she her',
  'we us our',
  'they them their',
  'in into',
  'on onto',
)
_MARKS = re.compile(r'([.,?!;:])')


def _inflections() -> Iterator[Iterable[str]]:
  for group in _FORMS_OF_ONE_WORD:
    yield group.split()
  for noun in lexicon.NOUNS.values():
    for sense in noun.senses:
      yield from zip(sense.singular, sense.plural, strict=True)
  for entry in lexicon.VERBS.values():
    for verb_sense in entry.senses:
      for verb in verb_sense.verbs:
        yield verb[:4]


def _related() -> dict[str, frozenset[str]]:
  """Word -> all forms of the words it is a form of."""
  related: dict[str, set[str]] = {}
  for forms in _inflections():
    for form in forms:
      related.setdefault(form, set()).update(forms)
  return {form: frozenset(forms) for form, forms in related.items()}


_RELATED = _related()


def _weight(word: str) -> float:
  return COSTS.get(word, _CONTENT)


def _deletion(forms: tuple[str, ...]) -> float:
  return max(_weight(form) for form in forms)


def _insertion(word: str) -> float:
  weight = _weight(word)
  return weight if weight > _CONTENT else weight * _ADDED_SHARE


def _substitution(forms: tuple[str, ...], word: str) -> float:
  if word in forms:
    return 0.0
  weight = _deletion(forms)
  related = _RELATED.get(word)
  if related is not None and not related.isdisjoint(forms):
    return weight * _FORM_SHARE
  return max(weight, _weight(word))


_EDIT_COSTS = lattice.Costs(_deletion, _insertion, _substitution)


@functools.lru_cache(maxsize=4096)
def acceptable(source: str) -> lattice.Lattice:
  """Returns the acceptable translations of a German sentence.

  Raises:
    ValueError: if the source is not a sentence of the language.
  """
  sentence = parser.parse(source)
  if sentence is None:
    raise ValueError(
      'source must be a sentence of the built-in language, in lower case and '
      f'with words between spaces; got {source[:200]!r}. Only sources from '
      'SyntheticPairs can be judged.'
    )
  return lattice.Lattice(english.translations(sentence), _EDIT_COSTS)


def split_words(text: str) -> list[str]:
  """Splits a text into lower-case words and punctuation marks."""
  return _MARKS.sub(r' \1 ', text.lower()).split()


def quality(translations: lattice.Lattice, words: list[str]) -> float:
  """Returns the quality of a text, in [0, 1], higher is better."""
  if len(words) > MAX_WORDS:
    return 0.0
  distance = translations.distance(words)
  return max(0.0, 1.0 - distance / translations.weight) ** 2


def score(source: str, hypothesis: str) -> float:
  """Returns the quality of any text as the translation of a source."""
  translations = acceptable(source)
  if len(hypothesis) > MAX_CHARACTERS:
    hypothesis = ' '.join(hypothesis.split())
    if len(hypothesis) > MAX_CHARACTERS:
      return 0.0
  return quality(translations, split_words(hypothesis))
