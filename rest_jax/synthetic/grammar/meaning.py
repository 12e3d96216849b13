"""What a sentence says: the structure between the two languages."""

from typing import NamedTuple, Optional

# Determiners beside numerals and quantifiers, which stand for themselves.
# OWN belongs to the subject of the clause: 'sein' or 'ihr' by its gender,
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
# The place in a relative clause that its head fills.
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
  """A preposition, the case it governs here ('d' or 'a') and its noun."""

  preposition: str
  case: str
  noun_phrase: NounPhrase


class Clause(NamedTuple):
  """A verb, what it governs, and adjuncts.

  `front` names what stands before the verb of a German main clause: 'subject',
  'object', 'indirect', 'time' or 'place'. It is 'subject' in other clauses.
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
  """A main clause, and perhaps another that a conjunction links to it.

  `mood` is a statement, a yes-no question, or a German question word.
  """

  main: Clause
  link: str = ''
  second: Clause | None = None
  link_first: bool = False
  mood: str = STATEMENT
