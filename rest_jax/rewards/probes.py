"""Reward probes: "unit tests" that change a reference with a known effect.

A probe makes a reference worse in one way that a reward must notice: R(x,
reference) > R(x, changed). A control changes what carries no meaning, and the
reward should hardly change.

Source: ReST (arXiv 2308.08998), A.4, which mentions such tests of a reward
model without listing them; these are ours.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import random
import re
from typing import NamedTuple

from rest_jax import settings
from rest_jax.data import words as words_lib
from rest_jax.rewards import corruption_kinds, corruptions

# Attempts to draw a changed text or another pair, which may come out equal.
_TRIES = 10
_SPLITS = ('train', 'validation', 'test')
_SENTENCE_END = re.compile(r'[.!?:]\W*$')

_CONTRACTIONS = (
  *(
    (f'{verb} not', f"{verb}n't")
    for verb in (
      *('is', 'are', 'was', 'were', 'do', 'does', 'did', 'has', 'have', 'had'),
      *('would', 'could', 'should', 'must'),
    )
  ),
  ('will not', "won't"),
  ('can not', "can't"),
  ('can not', 'cannot'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
  """Settings of the probes. Words are in lower case.

  The default word lists are English; `gin_configs/probes/german.gin` has German
  ones. An empty list disables its probe.

  Attributes:
    minimum: smallest share of cases in which a probe's change must lower the
      reward, in [0, 1]; None for no minimum.
    split: split of the pairs whose references are changed.
    max_sources: number of references to change, evenly spread, and of rated
      sources per split to compare with; None for all.
    names: which of PROBES and CONTROLS.
    negations: words that negate a sentence; the first one is inserted.
    auxiliaries: words after which a negation may be inserted.
    number_words: numbers written as words, exchanged for each other.
    not_names: capitalised words inside a sentence that are not names.
    contractions: (full, short) phrases with the same meaning.
  """

  minimum: float | None = settings.recorded(default=None)
  split: str = 'validation'
  max_sources: int | None = 1000
  names: tuple[str, ...] = ()
  negations: tuple[str, ...] = ('not', 'no', 'never')
  auxiliaries: tuple[str, ...] = (
    *('is', 'are', 'was', 'were', 'am', 'can', 'could', 'will', 'would'),
    *('should', 'must', 'may', 'might'),
  )
  number_words: tuple[str, ...] = (
    *('two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'),
  )
  not_names: tuple[str, ...] = ('i', "i'm", "i've", "i'll", "i'd")
  contractions: tuple[tuple[str, str], ...] = _CONTRACTIONS

  def __post_init__(self):
    words = ('negations', 'auxiliaries', 'number_words', 'not_names')
    settings.make_tuples(self, 'names', *words)
    pairs = tuple(tuple(pair) for pair in self.contractions)
    object.__setattr__(self, 'contractions', pairs)
    known = (*PROBES, *CONTROLS)
    object.__setattr__(self, 'names', self.names or known)
    if unknown := [name for name in self.names if name not in known]:
      raise ValueError(f'names must be some of {known}; got {unknown}.')
    settings.one_of(self, _SPLITS, 'split')
    settings.inside(self, '[0, 1]', 'minimum', none='none')
    hint = 'Probes take words from other pairs.'
    settings.at_least(self, 2, 'max_sources', none='all', hint=hint)
    if any(len(pair) != 2 for pair in pairs):
      raise ValueError(
        f'contractions must be pairs (full, short); got {pairs}.'
      )


class Texts(NamedTuple):
  """Texts that a probe may use.

  Attributes:
    source: x.
    reference: the text to change.
    other_source: source of another pair with different texts; empty if there is
      none.
    other_reference: reference of that pair.
    entities: capitalised words of all references.
  """

  source: str
  reference: str
  other_source: str
  other_reference: str
  entities: Sequence[str]


# Returns the reference if the change does not apply.
Probe = Callable[[Texts, random.Random, ProbeConfig], str]


class Cases(NamedTuple):
  """The references to which a probe applies.

  Attributes:
    rows: their indices, ascending.
    texts: the changed text of each.
  """

  rows: list[int]
  texts: list[str]


def _permuted(texts: Texts, draw: random.Random, config: ProbeConfig) -> str:
  words = words_lib.split_words(texts.reference)
  return words_lib.join_words(draw.sample(words, len(words)))


def _truncated(texts: Texts, draw: random.Random, config: ProbeConfig) -> str:
  """Returns the first half of the words; one word is not changed."""
  spans = words_lib.spans(texts.reference)
  if len(spans) < 2:
    return texts.reference
  return texts.reference[: spans[len(spans) // 2 - 1][1]]


def _changed_number(
  texts: Texts, draw: random.Random, config: ProbeConfig
) -> str:
  """Changes digits, else a number word: "Two," becomes "Six,"."""
  text = texts.reference
  words = words_lib.split_words(text)
  if positions := corruption_kinds.numbers(words):
    position = draw.choice(positions)
    new = corruption_kinds.redraw_digits(words[position], draw)
    return words_lib.replace_word(text, position, new)
  cores = [words_lib.split_marks(word)[1] for word in words]
  if positions := corruption_kinds.positions_of(config.number_words, cores):
    position = draw.choice(positions)
    new = _like(cores[position], draw.choice(config.number_words))
    return _replace_core(text, position, new)
  return text


def _dropped_negation(
  texts: Texts, draw: random.Random, config: ProbeConfig
) -> str:
  """Removes a negation; contractions are expanded first: "isn't" to "is"."""
  text = texts.reference
  for full, short in _negative(config):
    text = _rewrite(text, short, full)
  words = words_lib.split_words(text)
  positions = corruption_kinds.positions_of(config.negations, words)
  if not positions:
    return texts.reference
  return words_lib.replace_word(text, draw.choice(positions), '')


def _added_negation(
  texts: Texts, draw: random.Random, config: ProbeConfig
) -> str:
  """Inserts a negation after an auxiliary, if there is none yet."""
  text = texts.reference
  words = words_lib.split_words(text)
  cores = [words_lib.split_marks(word)[1] for word in words]
  is_negated = corruption_kinds.positions_of(config.negations, cores) or any(
    _rewrite(text, short, full) != text for full, short in _negative(config)
  )
  positions = corruption_kinds.positions_of(config.auxiliaries, words)
  if is_negated or not positions or not config.negations:
    return text
  position = draw.choice(positions)
  new = words_lib.join_words([words[position], config.negations[0]])
  return words_lib.replace_word(text, position, new)


def _swapped_entity(
  texts: Texts, draw: random.Random, config: ProbeConfig
) -> str:
  """Replaces a capitalised word by one of another reference."""
  words = words_lib.split_words(texts.reference)
  positions = _entities(words, config)
  present = {words_lib.split_marks(word)[1] for word in words}
  others = [entity for entity in texts.entities if entity not in present]
  if not positions or not others:
    return texts.reference
  return _replace_core(
    texts.reference, draw.choice(positions), draw.choice(others)
  )


def _first_case(texts: Texts, draw: random.Random, config: ProbeConfig) -> str:
  """Changes the case of the first letter."""
  text = texts.reference
  return text[:1].swapcase() + text[1:]


def _final_mark(texts: Texts, draw: random.Random, config: ProbeConfig) -> str:
  """Removes the final full stop, or adds one where there is no mark."""
  text = texts.reference.rstrip()
  if text.endswith(('.', '。')):
    return text[:-1].rstrip()
  if not text or not text[-1].isalnum():
    return texts.reference
  return text + ('。' if words_lib.is_unspaced(text[-1]) else '.')


def _contraction(texts: Texts, draw: random.Random, config: ProbeConfig) -> str:
  """Changes between "is not" and "isn't"."""
  rewritten = [
    _rewrite(texts.reference, old, new)
    for pair in config.contractions
    for old, new in (pair, pair[::-1])
  ]
  changed = [text for text in rewritten if text != texts.reference]
  return draw.choice(changed) if changed else texts.reference


PROBES: Mapping[str, Probe] = {
  'repeated': lambda texts, draw, config: corruptions.twice(texts.reference),
  'permuted': _permuted,
  'truncated': _truncated,
  'copied_source': lambda texts, draw, config: texts.source,
  # The wrong language and another meaning.
  'wrong_language': lambda texts, draw, config: (
    texts.other_source or texts.reference
  ),
  'unrelated': lambda texts, draw, config: (
    texts.other_reference or texts.reference
  ),
  'empty': lambda texts, draw, config: '',
  'added_sentence': lambda texts, draw, config: words_lib.join_words(
    [texts.reference, texts.other_reference]
  ),
  'changed_number': _changed_number,
  'dropped_negation': _dropped_negation,
  'added_negation': _added_negation,
  'swapped_entity': _swapped_entity,
}
CONTROLS: Mapping[str, Probe] = {
  'first_case': _first_case,
  'final_mark': _final_mark,
  'contraction': _contraction,
}


def cases(
  config: ProbeConfig,
  sources: Sequence[str],
  references: Sequence[str],
  *,
  seed: int,
) -> dict[str, Cases]:
  """Changes every reference in every way that applies to it.

  A changed text depends only on the pairs, the probe, the row and the seed.

  Args:
    config: see `ProbeConfig`.
    sources: n texts.
    references: n texts, n at least 2.
    seed: seed of all changes.

  Returns:
    The changed references by name of the probe.

  Raises:
    ValueError: if there are fewer than two pairs.
  """
  if len(sources) != len(references) or len(references) < 2:
    raise ValueError(
      'sources and references must be two or more pairs; got '
      f'{len(sources)} sources and {len(references)} references.'
    )
  entities = sorted(
    {
      words_lib.split_marks(words[index])[1]
      for words in map(words_lib.split_words, references)
      for index in _entities(words, config)
    }
  )
  result = {}
  for name in config.names:
    probe = PROBES[name] if name in PROBES else CONTROLS[name]
    rows, changed = [], []
    for row in range(len(references)):
      draw = random.Random(f'{seed}/{name}/{row}')
      other = _another_pair(row, sources, references, draw)
      texts = Texts(sources[row], references[row], *other, entities)
      text = _changed(probe, texts, draw, config)
      if text is not None:
        rows.append(row)
        changed.append(text)
    result[name] = Cases(rows, changed)
  return result


def _another_pair(
  row: int,
  sources: Sequence[str],
  references: Sequence[str],
  draw: random.Random,
) -> tuple[str, str]:
  """Returns a random pair that differs from `row`, or two empty texts."""
  for _ in range(_TRIES):
    other = corruption_kinds.another_row(row, len(references), draw)
    if sources[other] != sources[row] and references[other] != references[row]:
      return sources[other], references[other]
  return '', ''


def _changed(
  probe: Probe, texts: Texts, draw: random.Random, config: ProbeConfig
) -> str | None:
  """Returns the changed reference; None if it stays the same."""
  kept = words_lib.split_words(texts.reference)
  for _ in range(_TRIES):
    text = probe(texts, draw, config)
    if words_lib.split_words(text) != kept:
      return text
  return None


def _entities(words: Sequence[str], config: ProbeConfig) -> list[int]:
  """Returns positions of capitalised words inside a sentence."""
  positions = []
  for index in range(1, len(words)):
    core = words_lib.split_marks(words[index])[1]
    if (
      core[:1].isupper()
      and core.lower().replace('’', "'") not in config.not_names
      and not _SENTENCE_END.search(words[index - 1])
    ):
      positions.append(index)
  return positions


def _negative(config: ProbeConfig) -> list[tuple[str, str]]:
  """Returns the contractions that contain a negation."""
  return [
    (full, short)
    for full, short in config.contractions
    if set(full.split()) & set(config.negations)
  ]


def _rewrite(text: str, old: str, new: str) -> str:
  """Replaces whole words everywhere, and keeps capitals."""
  pattern = re.escape(old).replace("'", "['’]")
  return re.sub(
    rf'(?<!\w){pattern}(?!\w)',
    lambda match: _like(match[0], new),
    text,
    flags=re.IGNORECASE,
  )


def _replace_core(text: str, position: int, new: str) -> str:
  """Replaces a word and keeps the punctuation around it."""
  word = words_lib.split_words(text)[position]
  before, _, after = words_lib.split_marks(word)
  return words_lib.replace_word(text, position, f'{before}{new}{after}')


def _like(model: str, text: str) -> str:
  """Returns the text, capitalised if the model is."""
  return text[:1].upper() + text[1:] if model[:1].isupper() else text
