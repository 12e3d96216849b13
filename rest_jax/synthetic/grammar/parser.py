"""Parses German sentences into meanings.

The parser proposes readings from the words that it recognises, and keeps those
whose German text is exactly the input. If two readings remain, it takes the one
that people would: the first possible subject is the subject.
"""

from collections.abc import Iterator
import functools
import itertools
from typing import NamedTuple

from rest_jax.synthetic.grammar import german, lexicon, meaning

_CASES = ('n', 'a', 'd')
_COLUMNS = ('m', 'f', 'n', 'p')


class _Chunk(NamedTuple):
  """A part of a clause: its kind, its text and, for phrases, its readings."""

  kind: str
  text: str
  readings: tuple = ()


class _VerbReading(NamedTuple):
  verb: str
  tense: str
  modal: str
  passive: bool
  plural: bool


def _determiners() -> dict[str, list[tuple[str, str, str]]]:
  """Form -> [(determiner, column, case)]."""
  forms: dict[str, list[tuple[str, str, str]]] = {}
  words = (
    meaning.DEFINITE,
    meaning.THIS,
    meaning.EVERY,
    *german.EIN_WORDS,
    *german.PLURAL_ONLY,
  )
  for word, column, case in itertools.product(words, _COLUMNS, _CASES):
    if column == 'p' and word in german.SINGULAR_ONLY:
      continue
    if column != 'p' and word in german.PLURAL_ONLY:
      continue
    form = german.determiner_form(word, column, case)
    forms.setdefault(form, []).append((word, column, case))
  for stem, column, case in itertools.product(
    german.OWN_STEMS, _COLUMNS, _CASES
  ):
    form = german.determiner_form(meaning.OWN, column, case, stem)
    forms.setdefault(form, []).append((meaning.OWN, column, case))
  return forms


def _nouns() -> dict[str, list[tuple[str, bool, str]]]:
  """Form -> [(noun, plural, case)]."""
  forms: dict[str, list[tuple[str, bool, str]]] = {}
  for noun, entry in lexicon.NOUNS.items():
    for plural in (False, True) if entry.plural else (False,):
      for case in _CASES:
        form = german.noun_form(noun, plural, case)
        forms.setdefault(form, []).append((noun, plural, case))
  return forms


def _adjectives() -> dict[str, tuple[str, str]]:
  """Form -> (adjective, ending)."""
  return {
    entry.stem + ending: (name, ending)
    for name, entry in lexicon.ADJECTIVES.items()
    for ending in ('e', 'en', 'er', 'es')
  }


def _pronouns() -> dict[str, list[tuple[meaning.NounPhrase, str]]]:
  """Form -> [(noun phrase, case)]."""
  forms: dict[str, list[tuple[meaning.NounPhrase, str]]] = {}
  for name, entry in lexicon.PRONOUNS.items():
    phrase = meaning.NounPhrase(name, entry.plural, meaning.PRONOUN)
    for case, form in zip(_CASES, entry[:3], strict=True):
      if form:
        forms.setdefault(form, []).append((phrase, case))
  return forms


def _verb_readings() -> dict[tuple[str, ...], list[_VerbReading]]:
  """(finite verb, other verbs and the prefix in order) -> readings."""
  readings: dict[tuple[str, ...], list[_VerbReading]] = {}
  subjects = (meaning.NounPhrase('er'), meaning.NounPhrase('er', True))
  modals = [
    (modal, tense, False)
    for modal in lexicon.MODALS
    for tense in ('present', 'past')
  ]
  plain = [('', tense, False) for tense in ('present', 'past', 'future')]
  passive = [('', 'present', True), ('', 'past', True)]
  for verb, subject in itertools.product(lexicon.VERBS, subjects):
    for modal, tense, is_passive in (*plain, *passive, *modals):
      if is_passive and lexicon.VERBS[verb].frame != 't':
        continue
      clause = meaning.Clause(
        verb, subject, tense=tense, modal=modal, passive=is_passive
      )
      try:
        finite, rest, prefix = german.finite_and_rest(clause)
      except german.UnsayableError:
        continue
      reading = _VerbReading(verb, tense, modal, is_passive, subject.plural)
      split = (finite, *rest, prefix) if prefix else (finite, *rest)
      for key in {split, (prefix + finite, *rest)}:
        readings.setdefault(key, []).append(reading)
  return readings


_DETERMINERS = _determiners()
_NOUNS = _nouns()
_ADJECTIVES = _adjectives()
_PRONOUNS = _pronouns()
_VERBS = _verb_readings()
_RELATIVE_PRONOUNS = frozenset({'der', 'die', 'das', 'den'})
_LONGEST_TIME = max(len(time.split()) for time in lexicon.TIMES)
_ADVERBS = {
  **dict.fromkeys(lexicon.FREQUENCIES, 'frequency'),
  **dict.fromkeys((*lexicon.MANNERS, lexicon.GLADLY), 'manner'),
  'nicht': 'negation',
}


def _adjective_readings(
  tokens: list[str], position: int
) -> Iterator[tuple[str, str, int]]:
  """Yields (adjective, ending, end), then none: 'junge' is also a noun."""
  if position < len(tokens) and tokens[position] in _ADJECTIVES:
    yield (*_ADJECTIVES[tokens[position]], position + 1)
  yield '', '', position


def _noun_phrase(
  tokens: list[str], start: int
) -> tuple[int, list[tuple[meaning.NounPhrase, str]]]:
  """Reads a noun phrase; returns its end and its (phrase, case) readings."""
  position = start
  determiners = [(meaning.BARE, 'p', case) for case in _CASES]
  if tokens[position] in _DETERMINERS:
    determiners = _DETERMINERS[tokens[position]]
    position += 1
  for adjective, ending, end in _adjective_readings(tokens, position):
    nouns = _NOUNS.get(tokens[end], []) if end < len(tokens) else []
    readings = [
      (meaning.NounPhrase(noun, plural, determiner, adjective), case)
      for determiner, column, case in determiners
      if not adjective
      or ending == german.adjective_ending(determiner, column, case)
      for noun, plural, noun_case in nouns
      if noun_case == case and german.gender_column(noun, plural) == column
    ]
    if readings:
      return end + 1, readings
  return start + 1, _PRONOUNS.get(tokens[start], [])


def _with_relative(
  tokens: list[str], start: int, readings: list
) -> tuple[int, list[tuple[meaning.NounPhrase, str]]]:
  """Adds the relative clause that starts at `start`, if there is one."""
  if (
    start + 2 >= len(tokens)
    or tokens[start] != ','
    or tokens[start + 1] not in _RELATIVE_PRONOUNS
  ):
    return start, readings
  end = start + 2
  while end < len(tokens) and tokens[end] != ',':
    end += 1
  extended = []
  for head, case in readings:
    gap = meaning.NounPhrase('', head.plural, meaning.GAP)
    gap_chunk = _Chunk('phrase', '', ((gap, 'n'), (gap, 'a')))
    for clause in _clauses(tokens[start + 2 : end], 'final', gap_chunk):
      phrase = head._replace(relative=clause)
      extended.append((phrase, case))
  return end + 1, extended


def _chunks(tokens: list[str]) -> Iterator[_Chunk]:
  position = 0
  while position < len(tokens):
    token = tokens[position]
    for length in range(_LONGEST_TIME, 0, -1):
      time = ' '.join(tokens[position : position + length])
      if time in lexicon.TIMES:
        yield _Chunk('time', time)
        position += length
        break
    else:
      if token in _ADVERBS:
        yield _Chunk(_ADVERBS[token], token)
        position += 1
        continue
      is_preposition = token in lexicon.PREPOSITIONS
      start = position + is_preposition
      readings = []
      if start < len(tokens):
        end, readings = _noun_phrase(tokens, start)
      if readings:
        end, readings = _with_relative(tokens, end, readings)
        kind = 'prepositional' if is_preposition else 'phrase'
        yield _Chunk(kind, token, tuple(readings))
        position = end
      else:
        yield _Chunk('word', token)
        position += 1


def _assignments(
  reading: _VerbReading, phrases: list[_Chunk]
) -> Iterator[dict[str, meaning.NounPhrase]]:
  """Yields possible assignments of phrases to the roles of the verb."""
  frame = lexicon.VERBS[reading.verb].frame
  cases = {'subject': 'n'}
  if frame in ('d', 'dt', 'l'):
    cases['indirect'] = 'd'
  if frame in ('t', 'dt') and not reading.passive:
    cases['object'] = 'a'
  if len(phrases) != len(cases):
    return
  for roles in itertools.permutations(cases):
    choices = [
      [phrase for phrase, case in chunk.readings if case == cases[role]]
      for role, chunk in zip(roles, phrases, strict=True)
    ]
    for chosen in itertools.product(*choices):
      assigned = dict(zip(roles, chosen, strict=True))
      if german.is_plural(assigned['subject']) == reading.plural:
        yield assigned


def _adjuncts(
  reading: _VerbReading, chunks: list[_Chunk]
) -> Iterator[dict[str, object]]:
  """Yields possible assignments of the other chunks to fields of the clause."""
  fields: dict[str, object] = {}
  prepositional = [c for c in chunks if c.kind == 'prepositional']
  for chunk in chunks:
    if chunk.kind == 'negation':
      fields['negated'] = True
    elif chunk.kind in ('time', 'frequency', 'manner', 'predicate'):
      fields[chunk.kind] = chunk.text
  frame = lexicon.VERBS[reading.verb].frame.split(':')
  governed = frame[0] == 'p'
  slots = (['oblique'] if governed else []) + ['place']
  if len(prepositional) not in ((1, 2) if governed else (0, 1)):
    return
  for order in itertools.permutations(prepositional):
    pairs = list(zip(slots, order, strict=False))
    if governed and pairs[0][1].text != frame[1]:
      continue
    choices = []
    for slot, chunk in pairs:
      cases = lexicon.PREPOSITIONS[chunk.text]
      if slot == 'oblique':
        choices.append([p for p, case in chunk.readings if case == frame[2]])
      else:
        choices.append(
          [
            meaning.Place(chunk.text, case, phrase)
            for phrase, case in chunk.readings
            if case in cases
          ]
        )
    for chosen in itertools.product(*choices):
      filled = dict(zip(slots, chosen, strict=False))
      yield {**fields, **filled}


def _front(
  fields: dict[str, object], first: _Chunk, phrases: list[_Chunk]
) -> str:
  """Returns the role of the constituent before the verb."""
  if first.kind == 'phrase':
    wanted = {phrase for phrase, _ in first.readings}
    for role in ('subject', 'indirect', 'object'):
      if fields.get(role) in wanted:
        return role
  return {'time': 'time', 'prepositional': 'place'}.get(first.kind, 'subject')


def _split_verbs(
  chunks: list[_Chunk], order: str
) -> tuple[tuple[str, ...], list[_Chunk]] | None:
  """Splits chunks into verb words, the finite verb first, and the others."""
  words, others = [], []
  for chunk in chunks:
    if chunk.kind == 'word' and chunk.text in lexicon.ADJECTIVES:
      others.append(chunk._replace(kind='predicate'))
    elif chunk.kind == 'word':
      words.append(chunk.text)
    else:
      others.append(chunk)
  if not words:
    return None
  if order == 'final':
    words = [words[-1], *words[:-1]]
  return tuple(words), others


def _clauses(
  tokens: list[str], order: str, gap: _Chunk | None = None
) -> Iterator[meaning.Clause]:
  """Yields the readings of a clause, the most likely first."""
  if not tokens:
    return
  chunks = list(_chunks(tokens))
  split = _split_verbs(chunks, order)
  if split is None:
    return
  verb_words, others = split
  phrases = [chunk for chunk in others if chunk.kind == 'phrase']
  if gap is not None:
    phrases.insert(0, gap)
  for reading in _VERBS.get(verb_words, []):
    for roles in _assignments(reading, phrases):
      for adjuncts in _adjuncts(reading, others):
        fields = {**roles, **adjuncts}
        front = 'subject'
        if order == 'second':
          front = _front(fields, chunks[0], phrases)
        clause = meaning.Clause(
          verb=reading.verb,
          tense=reading.tense,
          modal=reading.modal,
          passive=reading.passive,
          front=front,
          **fields,
        )
        # A clause with a gap is checked as part of its sentence.
        if gap is not None or _says(clause, order, tokens):
          yield clause


def _says(clause: meaning.Clause, order: str, tokens: list[str]) -> bool:
  try:
    said = german.clause_tokens(clause, order)
  except german.UnsayableError:
    return False
  if said[-1] == ',' and tokens[-1] != ',':
    said.pop()
  return said == tokens


def _linked(tokens: list[str]) -> Iterator[meaning.Sentence]:
  """Yields the readings of a statement of two clauses."""
  if tokens[0] in lexicon.SUBORDINATORS and ',' in tokens:
    comma = tokens.index(',')
    for second in _clauses(tokens[1:comma], 'final'):
      for main in _clauses(tokens[comma + 1 :], 'first'):
        yield meaning.Sentence(main, tokens[0], second, link_first=True)
  for position, token in enumerate(tokens[1:-1], 1):
    before, after = tokens[:position], tokens[position + 1 :]
    subordinate = token in lexicon.SUBORDINATORS
    if token == 'aber' or subordinate:
      if before.pop() != ',':
        continue
    elif token != 'und':
      continue
    for main in _clauses(before, 'second'):
      for second in _clauses(after, 'final' if subordinate else 'second'):
        yield meaning.Sentence(main, token, second)


def _sentences(tokens: list[str]) -> Iterator[meaning.Sentence]:
  body, end = german.expand(tokens[:-1]), tokens[-1]
  if end == '?' and body[0] in lexicon.QUESTION_WORDS:
    for clause in _clauses(body[1:], 'first'):
      yield meaning.Sentence(clause, mood=body[0])
  elif end == '?':
    for clause in _clauses(body, 'first'):
      yield meaning.Sentence(clause, mood=meaning.QUESTION)
  elif end == '.':
    for clause in _clauses(body, 'second'):
      yield meaning.Sentence(clause)
    yield from _linked(body)


@functools.lru_cache(maxsize=4096)
def parse(source: str) -> meaning.Sentence | None:
  """Returns the meaning of a German sentence, or None for other text.

  Args:
    source: lower-case words separated by single spaces, with a final mark.
  """
  tokens = source.split()
  if len(tokens) < 2:
    return None
  for sentence in _sentences(tokens):
    try:
      said = german.sentence_tokens(sentence)
    except german.UnsayableError:
      continue
    if said == tokens:
      return sentence
  return None
