"""The kinds of corruption, each of which makes a reference worse.

A kind is a function (words, draw, context) -> words. It does not change its
input, and returns it if the change does not apply, such as exchanging words in
a text of one word.
"""

from collections.abc import Callable
import dataclasses
import random
import re

_DIGIT = re.compile(r'\d')
# Attempts to draw other digits, which may come out equal.
_TRIES = 10
_PUNCTUATION = '.,;:!?。，；：！？'

Words = list[str]


@dataclasses.dataclass(frozen=True)
class Context:
  """Where a corruption may take words from.

  Attributes:
    source: words of the source.
    draw_reference: returns the words of another source's reference.
    negations: words that negate a sentence.
    number_words: numbers written as words.
  """

  source: Words
  draw_reference: Callable[[], Words]
  negations: tuple[str, ...]
  number_words: tuple[str, ...] = ()


Kind = Callable[[Words, random.Random, Context], Words]


def another_row(row: int, num_rows: int, draw: random.Random) -> int:
  """Returns a random row other than `row`, of at least two."""
  other = draw.randrange(num_rows - 1)
  return other + (other >= row)


def _span(words: Words, draw: random.Random, most: float) -> tuple[int, int]:
  """Returns a random span of one word up to a share of all words."""
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
  """Exchanges two words, such as two entities."""
  if len(words) < 2:
    return words
  first, second = draw.sample(range(len(words)), 2)
  words = list(words)
  words[first], words[second] = words[second], words[first]
  return words


def _move(words: Words, draw: random.Random, context: Context) -> Words:
  """Moves a span to another place."""
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
  """Replaces a span by as many words of another reference."""
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
  """Replaces a span by the source's words at about the same place."""
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
  """Adds a clause of another reference at the end."""
  other = context.draw_reference()
  start, stop = _span(other, draw, 0.8)
  return words + other[start:stop]


def _insert(words: Words, draw: random.Random, context: Context) -> Words:
  place = draw.randint(0, len(words))
  word = draw.choice(context.draw_reference())
  return [*words[:place], word, *words[place:]]


def _misspell(words: Words, draw: random.Random, context: Context) -> Words:
  """Drops or doubles a character of a word, or exchanges it with the next."""
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
  """Changes the case of a few words.

  Few at a time: to chrF a sentence in capitals is another language, to a reader
  it is not.
  """
  if not words:
    return words
  start, stop = _span(words, draw, 0.2)
  change = draw.choice((str.lower, str.upper, str.title))
  return words[:start] + [change(w) for w in words[start:stop]] + words[stop:]


def _punctuate(words: Words, draw: random.Random, context: Context) -> Words:
  """Removes a punctuation mark where there is one, or adds one."""
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
  """Returns positions of words with a digit."""
  return [i for i, word in enumerate(words) if _DIGIT.search(word)]


def redraw_digits(word: str, draw: random.Random) -> str:
  """Returns the word with random digits, which may equal the old ones."""
  return _DIGIT.sub(lambda _: str(draw.randrange(10)), word)


def _renumber(words: Words, draw: random.Random, context: Context) -> Words:
  """Changes a number; where there is none, replaces a word."""
  positions = numbers(words)
  if not positions:
    return _replace(words, draw, context)
  position = draw.choice(positions)
  changed = redraw_digits(words[position], draw)
  return [*words[:position], changed, *words[position + 1 :]]


def positions_of(wanted: tuple[str, ...], words: Words) -> list[int]:
  """Returns positions of words whose lower-case form is wanted."""
  return [i for i, word in enumerate(words) if word.lower() in wanted]


def _negate(words: Words, draw: random.Random, context: Context) -> Words:
  """Removes a negation where there is one, or adds one."""
  if not context.negations:
    return _replace(words, draw, context)
  positions = positions_of(context.negations, words)
  if positions:
    position = draw.choice(positions)
    return words[:position] + words[position + 1 :]
  place = draw.randint(0, len(words))
  return [*words[:place], draw.choice(context.negations), *words[place:]]


def _recount(words: Words, draw: random.Random, context: Context) -> Words:
  """Changes a number, in digits or as a word."""
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
  """Replaces a capitalised word inside the text by one of another text."""
  positions = _names(words)
  others = [
    word
    for other in [context.draw_reference()]
    for word in (other[position] for position in _names(other))
    if word not in words
  ]
  if not positions or not others:
    return words
  position = draw.choice(positions)
  return [*words[:position], draw.choice(others), *words[position + 1 :]]


def _names(words: Words) -> list[int]:
  return [
    i
    for i, word in enumerate(words)
    if i and len(word) > 1 and word[0].isupper() and word[1:].islower()
  ]


def _permute(words: Words, draw: random.Random, context: Context) -> Words:
  """Permutes all words."""
  return draw.sample(words, len(words))


def _add_sentence(words: Words, draw: random.Random, context: Context) -> Words:
  """Adds another whole reference at the end."""
  return words + context.draw_reference()


# Kinds that chrF underrates, since most characters stay the same.
SEVERE_KINDS: tuple[Kind, ...] = (
  _recount,
  _negate,
  _rename,
  _permute,
  _add_sentence,
)

# Drawn uniformly; omissions and wrong words, the most common errors of
# policies, are listed twice.
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
