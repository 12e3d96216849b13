"""The kinds of corruption: each makes the words of a reference worse.

A kind is a function (words, draw, context) -> words. It leaves its input alone,
and returns it where it cannot do its work, such as exchanging the words of a
text of one word.
"""

from collections.abc import Callable
import dataclasses
import random
import re

_DIGIT = re.compile(r'\d')
# Draws of other digits, which may turn out the same.
_TRIES = 10
_PUNCTUATION = '.,;:!?。，；：！？'

Words = list[str]


@dataclasses.dataclass(frozen=True)
class Context:
  """What a corruption may take words from.

  Attributes:
    source: the words of the source.
    draw_reference: returns the words of another source's reference.
    negations: words that turn a sentence round.
    number_words: numbers written as words.
  """

  source: Words
  draw_reference: Callable[[], Words]
  negations: tuple[str, ...]
  number_words: tuple[str, ...] = ()


Kind = Callable[[Words, random.Random, Context], Words]


def another_row(row: int, num_rows: int, draw: random.Random) -> int:
  """A random row that is not `row`; there are at least two."""
  other = draw.randrange(num_rows - 1)
  return other + (other >= row)


def _span(words: Words, draw: random.Random, most: float) -> tuple[int, int]:
  """A random span of at least one word and at most a share of all words."""
  size = draw.randint(1, max(1, round(most * len(words))))
  size = min(size, len(words))
  start = draw.randint(0, len(words) - size)
  return start, start + size


def _drop(words: Words, draw: random.Random, context: Context) -> Words:
  if not words:
    return words
  start, stop = _span(words, draw, 0.25)
  return words[:start] + words[stop:]


def _repeat(words: Words, draw: random.Random, context: Context) -> Words:
  if not words:
    return words
  start, stop = _span(words, draw, 0.35)
  return words[:stop] + words[start:]


def _exchange(words: Words, draw: random.Random, context: Context) -> Words:
  """Two words, such as two entities, change places."""
  if len(words) < 2:
    return words
  first, second = draw.sample(range(len(words)), 2)
  words = list(words)
  words[first], words[second] = words[second], words[first]
  return words


def _move(words: Words, draw: random.Random, context: Context) -> Words:
  """A span goes to another place."""
  if len(words) < 2:
    return words
  start, stop = _span(words, draw, 0.4)
  rest = words[:start] + words[stop:]
  place = draw.randint(0, len(rest))
  return rest[:place] + words[start:stop] + rest[place:]


def _shuffle(words: Words, draw: random.Random, context: Context) -> Words:
  if len(words) < 2:
    return words
  start, stop = _span(words, draw, 0.6)
  window = words[start:stop]
  draw.shuffle(window)
  return words[:start] + window + words[stop:]


def _replace(words: Words, draw: random.Random, context: Context) -> Words:
  """A span gives way to as many words of another reference."""
  if not words:
    return words
  start, stop = _span(words, draw, 0.25)
  other = context.draw_reference()
  return (
    words[:start]
    + [draw.choice(other) for _ in range(stop - start)]
    + words[stop:]
  )


def _untranslated(words: Words, draw: random.Random, context: Context) -> Words:
  """A span gives way to the source's words of about the same place."""
  source = context.source
  if not words or not source:
    return words
  start, stop = _span(words, draw, 0.25)
  ratio = len(source) / len(words)
  first = min(int(start * ratio), len(source) - 1)
  last = max(first + 1, round(stop * ratio))
  return words[:start] + source[first:last] + words[stop:]


def _truncate(words: Words, draw: random.Random, context: Context) -> Words:
  return words[: int(len(words) * draw.uniform(0.3, 1.0))]


def _extend(words: Words, draw: random.Random, context: Context) -> Words:
  """A clause of another reference is added at the end."""
  other = context.draw_reference()
  start, stop = _span(other, draw, 0.8)
  return words + other[start:stop]


def _insert(words: Words, draw: random.Random, context: Context) -> Words:
  place = draw.randint(0, len(words))
  word = draw.choice(context.draw_reference())
  return [*words[:place], word, *words[place:]]


def _misspell(words: Words, draw: random.Random, context: Context) -> Words:
  """A character of a word is lost, doubled or exchanged with the next."""
  if not words:
    return words
  position = draw.randrange(len(words))
  word = words[position]
  at = draw.randrange(len(word))
  kind = draw.randrange(3)
  if kind == 0 and len(word) > 1:
    word = word[:at] + word[at + 1 :]
  elif kind == 1:
    word = word[: at + 1] + word[at:]
  else:
    word = word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
  return [*words[:position], word, *words[position + 1 :]]


def _recase(words: Words, draw: random.Random, context: Context) -> Words:
  """Words in lower or upper case, or with a capital.

  Few at a time: chrF calls a sentence in capitals another language, a reader
  does not.
  """
  if not words:
    return words
  start, stop = _span(words, draw, 0.2)
  change = draw.choice((str.lower, str.upper, str.title))
  return words[:start] + [change(w) for w in words[start:stop]] + words[stop:]


def _punctuate(words: Words, draw: random.Random, context: Context) -> Words:
  """A mark is lost where there is one, or set where there is none."""
  if not words:
    return words
  marked = [i for i, word in enumerate(words) if word[-1] in _PUNCTUATION]
  position = draw.choice(marked or range(len(words)))
  if marked and draw.random() < 0.5:
    stripped = words[position].rstrip(_PUNCTUATION)
    kept = [stripped] if stripped else []
    return words[:position] + kept + words[position + 1 :]
  marked_word = words[position] + draw.choice('.,;:!?')
  return [*words[:position], marked_word, *words[position + 1 :]]


def numbers(words: Words) -> list[int]:
  """Positions of words with a digit."""
  return [i for i, word in enumerate(words) if _DIGIT.search(word)]


def redraw_digits(word: str, draw: random.Random) -> str:
  """The word with its digits drawn anew; by chance they stay the same."""
  return _DIGIT.sub(lambda _: str(draw.randrange(10)), word)


def _renumber(words: Words, draw: random.Random, context: Context) -> Words:
  """A number becomes another; where there is none, a word is replaced."""
  found = numbers(words)
  if not found:
    return _replace(words, draw, context)
  position = draw.choice(found)
  changed = redraw_digits(words[position], draw)
  return [*words[:position], changed, *words[position + 1 :]]


def positions_of(wanted: tuple[str, ...], words: Words) -> list[int]:
  """Positions of words that, in small letters, are among the wanted ones."""
  return [i for i, word in enumerate(words) if word.lower() in wanted]


def _negate(words: Words, draw: random.Random, context: Context) -> Words:
  """A negation is lost where there is one, or comes in where there is none."""
  if not context.negations:
    return _replace(words, draw, context)
  found = positions_of(context.negations, words)
  if found:
    position = draw.choice(found)
    return words[:position] + words[position + 1 :]
  place = draw.randint(0, len(words))
  return [*words[:place], draw.choice(context.negations), *words[place:]]


def _recount(words: Words, draw: random.Random, context: Context) -> Words:
  """A number, in digits or as a word, becomes another one."""
  digits = numbers(words)
  spelled = positions_of(context.number_words, words)
  if not digits and not spelled:
    return words
  position = draw.choice(digits + spelled)
  word = words[position]
  if position in digits:
    changed = _another(word, lambda: redraw_digits(word, draw))
  else:
    others = [w for w in context.number_words if w != word.lower()]
    changed = draw.choice(others or [word])
    changed = changed.capitalize() if word[:1].isupper() else changed
  return [*words[:position], changed, *words[position + 1 :]]


def _another(word: str, redraw: Callable[[], str]) -> str:
  for _ in range(_TRIES):
    if (changed := redraw()) != word:
      return changed
  return word


def _rename(words: Words, draw: random.Random, context: Context) -> Words:
  """A word with a capital inside the text gives way to one of another text."""
  found = _names(words)
  others = [
    word
    for other in [context.draw_reference()]
    for word in (other[position] for position in _names(other))
    if word not in words
  ]
  if not found or not others:
    return words
  position = draw.choice(found)
  return [*words[:position], draw.choice(others), *words[position + 1 :]]


def _names(words: Words) -> list[int]:
  return [
    i
    for i, word in enumerate(words)
    if i and len(word) > 1 and word[0].isupper() and word[1:].islower()
  ]


def _permute(words: Words, draw: random.Random, context: Context) -> Words:
  """All words in another order."""
  return draw.sample(words, len(words))


def _add_sentence(words: Words, draw: random.Random, context: Context) -> Words:
  """The whole of another reference is added at the end."""
  return words + context.draw_reference()


# Those that a reader minds more than chrF does: most characters stay.
SEVERE_KINDS: tuple[Kind, ...] = (
  _recount,
  _negate,
  _rename,
  _permute,
  _add_sentence,
)

# Drawn evenly; omissions and wrong words, a policy's commonest faults, twice.
KINDS: tuple[Kind, ...] = (
  _drop,
  _drop,
  _repeat,
  _exchange,
  _move,
  _shuffle,
  _replace,
  _replace,
  _untranslated,
  _truncate,
  _extend,
  _insert,
  _misspell,
  _recase,
  _punctuate,
  _renumber,
  _negate,
)
