"""The lexicon of the built-in language pair, parsed from `word_list`."""

from typing import NamedTuple

from rest_jax.synthetic.grammar import word_list

# Classes of nouns that the grammar refers to; others are in `word_list`.
PERSON = 'person'
VEHICLE = 'vehicle'


class NounSense(NamedTuple):
  """One meaning of a noun: its class and its English words."""

  kind: str
  singular: tuple[str, ...]
  plural: tuple[str, ...]
  conditions: frozenset[str]


class Noun(NamedTuple):
  """A German noun; `plural` is empty if only the singular is used."""

  gender: str
  singular: str
  oblique: str
  plural: str
  senses: tuple[NounSense, ...]


class EnglishVerb(NamedTuple):
  """An English verb; `tail` is its particle or preposition."""

  base: str
  third: str
  past: str
  participle: str
  tail: tuple[str, ...]


class VerbSense(NamedTuple):
  """One meaning of a verb: English synonyms, and conditions of this sense."""

  verbs: tuple[EnglishVerb, ...]
  conditions: frozenset[str]


class Verb(NamedTuple):
  """A German verb; `infinitive` and `participle` include the prefix."""

  infinitive: str
  stem_infinitive: str
  third: str
  participle: str
  prefix: str
  auxiliary: str
  frame: str
  subjects: tuple[str, ...]
  objects: tuple[str, ...]
  senses: tuple[VerbSense, ...]


class AdjectiveSense(NamedTuple):
  """One meaning of an adjective, for nouns of the classes in `conditions`."""

  words: tuple[str, ...]
  conditions: frozenset[str]


class Adjective(NamedTuple):
  """A German adjective; endings are added to `stem`."""

  base: str
  stem: str
  senses: tuple[AdjectiveSense, ...]


class Pronoun(NamedTuple):
  """A pronoun: its German cases, and its English subject and object forms."""

  nominative: str
  accusative: str
  dative: str
  plural: bool
  subject: str
  object: str


def _rows(table: str) -> list[list[str]]:
  lines = [line for line in table.splitlines() if line.strip()]
  return [[cell.strip() for cell in line.split('|')] for line in lines]


def _split_senses(cell: str) -> list[tuple[str, frozenset[str]]]:
  """Splits 'a, b @ x y ; c' into [('a, b', {x, y}), ('c', {})]."""
  senses = []
  for part in cell.split(';'):
    english, _, conditions = part.partition('@')
    senses.append((english.strip(), frozenset(conditions.split())))
  return senses


def _with_s(word: str) -> str:
  """Adds the English -s of plurals and of the third person."""
  if word.endswith(('s', 'x', 'ch', 'sh', 'o')):
    return word + 'es'
  if word.endswith('y') and word[-2] not in 'aeiou':
    return word[:-1] + 'ies'
  return word + 's'


def _with_ed(word: str) -> str:
  """Adds the English -ed of a regular verb."""
  if word.endswith('e'):
    return word + 'd'
  if word.endswith('y') and word[-2] not in 'aeiou':
    return word[:-1] + 'ied'
  return word + 'ed'


def _noun_sense(text: str, conditions: frozenset[str]) -> NounSense:
  kind, _, english = text.partition(' ')
  pairs = [word.strip().partition('/') for word in english.split(',')]
  return NounSense(
    kind,
    tuple(singular for singular, _, _ in pairs),
    tuple(plural or _with_s(singular) for singular, _, plural in pairs),
    conditions,
  )


def _read_nouns() -> dict[str, Noun]:
  nouns = {}
  for line in word_list.NOUNS.splitlines():
    if not line:
      continue
    german, _, english = line.partition(' | ')
    gender, singular, plural = german.split()
    name, _, oblique = singular.partition('/')
    form = name.partition('_')[0]
    senses = [_noun_sense(*sense) for sense in _split_senses(english)]
    nouns[name] = Noun(
      gender, form, oblique or form, plural.strip('-'), tuple(senses)
    )
  return nouns


def _english_verb(text: str) -> EnglishVerb:
  head, *tail = text.strip().split('_')
  base, *irregular = head.split(':')
  past = irregular[0] if irregular else _with_ed(base)
  participle = irregular[-1] if irregular else past
  third = {'have': 'has', 'be': 'is'}.get(base, _with_s(base))
  return EnglishVerb(base, third, past, participle, tuple(tail))


def _read_verbs() -> dict[str, Verb]:
  verbs = {}
  for line in word_list.VERBS.splitlines():
    if not line:
      continue
    german, frame, subjects, objects, english = line.rsplit('|', 4)
    name, third, participle, auxiliary = german.split()
    prefix, _, stem = name.partition('_')[0].rpartition('|')
    senses = [
      VerbSense(tuple(map(_english_verb, synonyms.split(','))), conditions)
      for synonyms, conditions in _split_senses(english)
    ]
    verbs[name] = Verb(
      prefix + stem,
      stem,
      third,
      participle,
      prefix,
      auxiliary,
      frame.strip(),
      tuple(subjects.split()),
      tuple(objects.split()),
      tuple(senses),
    )
  return verbs


def _read_adjectives() -> dict[str, Adjective]:
  adjectives = {}
  for german, english in _rows(word_list.ADJECTIVES):
    base, _, stem = german.partition('/')
    senses = [
      AdjectiveSense(tuple(map(str.strip, synonyms.split(','))), conditions)
      for synonyms, conditions in _split_senses(english)
    ]
    adjectives[base] = Adjective(base, stem or base, tuple(senses))
  return adjectives


NOUNS = _read_nouns()
VERBS = _read_verbs()
ADJECTIVES = _read_adjectives()
# Word -> its senses, the default last.
SENSES = {
  name: entry.senses
  for table in (NOUNS, VERBS, ADJECTIVES)
  for name, entry in table.items()
}

# Accusative 'sie' is not used, since it may be 'her' or 'them'.
PRONOUNS = {
  'er': Pronoun('er', 'ihn', 'ihm', False, 'he', 'him'),
  'sie': Pronoun('sie', '', 'ihr', False, 'she', 'her'),
  'wir': Pronoun('wir', 'uns', 'uns', True, 'we', 'us'),
  'sie_plural': Pronoun('sie', '', 'ihnen', True, 'they', 'them'),
}

NUMERALS = {
  'zwei': 'two',
  'drei': 'three',
  'vier': 'four',
  'fünf': 'five',
  'zehn': 'ten',
}
# Quantifiers take -n in the dative plural.
QUANTIFIERS = {'viele': ('many',), 'einige': ('some', 'several')}

# Preposition: case -> English, where '_' joins the words of one preposition.
PREPOSITIONS = {
  'in': {'d': ('in',), 'a': ('into', 'to')},
  'auf': {'d': ('on',), 'a': ('onto',)},
  'mit': {'d': ('with',)},
  'hinter': {'d': ('behind',)},
  'vor': {'d': ('in_front_of',)},
  'neben': {'d': ('next_to', 'beside')},
  'unter': {'d': ('under',)},
  'zu': {'d': ('to',)},
  'aus': {'d': ('from', 'out_of')},
  'für': {'a': ('for',)},
  'ohne': {'a': ('without',)},
  'durch': {'a': ('through',)},
  'von': {'d': ('from',)},
  # Used only as the complement of a verb.
  'an': {'a': ('of',)},
}

# Adverbs of time are at the start or end of an English clause.
TIMES = {
  'heute': 'today',
  'gestern': 'yesterday',
  'jetzt': 'now',
  'morgen': 'tomorrow',
  'bald': 'soon',
  'am morgen': 'in the morning',
  'am abend': 'in the evening',
  'jeden tag': 'every day',
}
# Adverbs of frequency are before the English verb.
FREQUENCIES = {'oft': ('often',), 'immer': ('always',), 'nie': ('never',)}
# Adverbs of manner; those in -ly may also be before the verb. 'gern' is a
# verb in English: 'liest gern' is 'likes to read'.
MANNERS = {
  'schnell': ('quickly',),
  'langsam': ('slowly',),
  'leise': ('quietly',),
  'wieder': ('again',),
  'allein': ('alone',),
}
MANNERS_BEFORE_VERBS = tuple(
  manner for manner, english in MANNERS.items() if english[0].endswith('ly')
)
GLADLY = 'gern'

# Modal: present singular, present plural, past singular, past plural.
MODALS = {
  'können': ('kann', 'können', 'konnte', 'konnten'),
  'müssen': ('muss', 'müssen', 'musste', 'mussten'),
  'wollen': ('will', 'wollen', 'wollte', 'wollten'),
  'sollen': ('soll', 'sollen', '', ''),
  'dürfen': ('darf', 'dürfen', '', ''),
}

# Conjunctions with the German verb at the end, and those without.
SUBORDINATORS = {
  'weil': ('because', 'since'),
  'wenn': ('when', 'if'),
  'obwohl': ('although', 'though'),
  'während': ('while',),
  'bevor': ('before',),
  'dass': ('that',),
  'ob': ('whether', 'if'),
}
COORDINATORS = {'und': ('and',), 'aber': ('but',)}
QUESTION_WORDS = {'warum': 'why', 'wann': 'when'}
