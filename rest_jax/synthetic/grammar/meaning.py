"""Meanings of sentences: the structure between the two languages."""

from typing import NamedTuple, Optional

# Determiners, besides numerals and quantifiers, which are their own keys.
# OWN refers to the subject of the clause: 'sein' or 'ihr' by its gender, and
# 'his', 'her', 'its' or 'their' by its gender and number.
DEFINITE = 'der'
INDEFINITE = 'ein'
NO = 'kein'
OWN = 'sein'
MY = 'mein'
THIS = 'dies'
EVERY = 'jed'
ALL = 'alle'
BARE = ''
PRONOUN = 'pronoun'
# The gap in a relative clause, which its head fills.
GAP = 'gap'

STATEMENT = 'statement'
QUESTION = 'question'


class NounPhrase(NamedTuple):
  """A noun with its determiner, or a pronoun, or the gap of a relative clause.

  `noun` is a key of the lexicon's nouns or pronouns; empty for a gap.
  """

  noun: str
  plural: bool = False
  determiner: str = DEFINITE
  adjective: str = ''
  relative: Optional['Clause'] = None


class Place(NamedTuple):
  """A preposition, its case here ('d' or 'a') and its noun phrase."""

  preposition: str
  case: str
  noun_phrase: NounPhrase


class Clause(NamedTuple):
  """A verb, its complements and adjuncts.

  `front` is the constituent before the verb of a German main clause: 'subject',
  'object', 'indirect', 'time' or 'place'. In other clauses it is 'subject'.
  """

  verb: str
  subject: NounPhrase
  object: NounPhrase | None = None
  indirect: NounPhrase | None = None
  oblique: NounPhrase | None = None
  predicate: str = ''
  tense: str = 'present'
  modal: str = ''
  passive: bool = False
  negated: bool = False
  time: str = ''
  frequency: str = ''
  manner: str = ''
  place: Place | None = None
  front: str = 'subject'


class Sentence(NamedTuple):
  """A main clause, and optionally a second clause after a conjunction.

  `mood` is a statement, a yes-no question, or a German question word.
  """

  main: Clause
  link: str = ''
  second: Clause | None = None
  link_first: bool = False
  mood: str = STATEMENT
