"""German sentences for meanings: inflection and word order."""

from rest_jax.synthetic.grammar import lexicon, meaning

# Case ('n', 'a', 'd') -> gender ('m', 'f', 'n', or 'p' for plurals) -> form.
_DEFINITE = {
  'n': {'m': 'der', 'f': 'die', 'n': 'das', 'p': 'die'},
  'a': {'m': 'den', 'f': 'die', 'n': 'das', 'p': 'die'},
  'd': {'m': 'dem', 'f': 'der', 'n': 'dem', 'p': 'den'},
}
_DIES_ENDINGS = {
  'n': {'m': 'er', 'f': 'e', 'n': 'es', 'p': 'e'},
  'a': {'m': 'en', 'f': 'e', 'n': 'es', 'p': 'e'},
  'd': {'m': 'em', 'f': 'er', 'n': 'em', 'p': 'en'},
}
_EIN_ENDINGS = {
  'n': {'m': '', 'f': 'e', 'n': '', 'p': 'e'},
  'a': {'m': 'en', 'f': 'e', 'n': '', 'p': 'e'},
  'd': {'m': 'em', 'f': 'er', 'n': 'em', 'p': 'en'},
}
# Endings of adjectives after ein-words, if they differ from -en.
_MIXED_ENDINGS = {
  'n': {'m': 'er', 'f': 'e', 'n': 'es'},
  'a': {'f': 'e', 'n': 'es'},
  'd': {},
}
_CASES = {'n': 'nominative', 'a': 'accusative', 'd': 'dative'}
CONTRACTIONS = {
  ('in', 'dem'): 'im',
  ('in', 'das'): 'ins',
  ('zu', 'dem'): 'zum',
  ('zu', 'der'): 'zur',
  ('von', 'dem'): 'vom',
}
EIN_WORDS = (meaning.INDEFINITE, meaning.NO, meaning.MY)
OWN_STEMS = ('sein', 'ihr')
PLURAL_ONLY = (*lexicon.NUMERALS, *lexicon.QUANTIFIERS, meaning.ALL)
SINGULAR_ONLY = (meaning.INDEFINITE, meaning.EVERY)

# Forms of 'sein' by tense: singular, plural.
_BE = {'present': ('ist', 'sind'), 'past': ('war', 'waren')}
_PASSIVE = {'present': ('wird', 'werden'), 'past': ('wurde', 'wurden')}
_PERFECT = {'h': ('hat', 'haben'), 's': ('ist', 'sind')}
_FUTURE = ('wird', 'werden')


class UnsayableError(ValueError):
  """The meaning has no German form, such as the plural of some nouns."""


def is_plural(noun_phrase: meaning.NounPhrase) -> bool:
  """Returns whether a noun phrase, which may be a pronoun, is plural."""
  if noun_phrase.determiner == meaning.PRONOUN:
    return lexicon.PRONOUNS[noun_phrase.noun].plural
  return noun_phrase.plural


def gender_column(noun: str, plural: bool) -> str:
  """Returns the column of the article tables: gender, or 'p' for plurals."""
  return 'p' if plural else lexicon.NOUNS[noun].gender


def noun_form(noun: str, plural: bool, case: str) -> str:
  """Inflects a noun; raises UnsayableError for a missing plural."""
  entry = lexicon.NOUNS[noun]
  if not plural:
    return entry.singular if case == 'n' else entry.oblique
  if not entry.plural:
    raise UnsayableError(f'{noun} has no plural')
  if case == 'd' and not entry.plural.endswith(('n', 's')):
    return entry.plural + 'n'
  return entry.plural


def adjective_ending(determiner: str, column: str, case: str) -> str:
  """Returns the ending that an adjective takes after a determiner.

  Args:
    determiner: see `meaning.NounPhrase`.
    column: gender 'm', 'f', 'n', or 'p' for plurals.
    case: 'n', 'a' or 'd'.
  """
  if column == 'p':
    strong = (meaning.BARE, *lexicon.NUMERALS, *lexicon.QUANTIFIERS)
    return 'e' if determiner in strong and case != 'd' else 'en'
  if determiner in (*EIN_WORDS, meaning.OWN):
    return _MIXED_ENDINGS[case].get(column, 'en')
  if case == 'n' or (case == 'a' and column != 'm'):
    return 'e'
  return 'en'


def determiner_form(
  determiner: str, column: str, case: str, own_stem: str = ''
) -> str:
  """Inflects a determiner; empty for bare plurals."""
  if determiner == meaning.DEFINITE:
    return _DEFINITE[case][column]
  if determiner in (meaning.THIS, meaning.EVERY):
    return determiner + _DIES_ENDINGS[case][column]
  if determiner == meaning.OWN:
    return own_stem + _EIN_ENDINGS[case][column]
  if determiner in EIN_WORDS:
    return determiner + _EIN_ENDINGS[case][column]
  if determiner in (*lexicon.QUANTIFIERS, meaning.ALL) and case == 'd':
    return determiner + 'n'
  return determiner


def own_stem(owner: meaning.NounPhrase | None) -> str:
  """Returns 'sein' or 'ihr', or '' if there is no possible owner."""
  if owner is None or owner.determiner == meaning.GAP:
    return ''
  if owner.determiner == meaning.PRONOUN:
    return {'er': 'sein', 'sie': 'ihr', 'sie_plural': 'ihr'}.get(owner.noun, '')
  if owner.plural or lexicon.NOUNS[owner.noun].gender == 'f':
    return 'ihr'
  return 'sein'


def _check_number(noun_phrase: meaning.NounPhrase) -> None:
  determiner, plural = noun_phrase.determiner, noun_phrase.plural
  if plural and determiner in SINGULAR_ONLY:
    raise UnsayableError(f'{determiner} has no plural')
  if not plural and determiner in (*PLURAL_ONLY, meaning.BARE):
    raise UnsayableError(f'{determiner or "a bare noun"} needs a plural')


def noun_phrase_tokens(
  noun_phrase: meaning.NounPhrase,
  case: str,
  owner: meaning.NounPhrase | None = None,
) -> list[str]:
  """Inflects a noun phrase.

  Args:
    case: 'n', 'a' or 'd'.
    owner: subject of the clause, which OWN refers to.

  Returns:
    German words; a relative clause is enclosed in commas.

  Raises:
    UnsayableError: if German has no such form.
  """
  if noun_phrase.determiner == meaning.GAP:
    return []
  if noun_phrase.determiner == meaning.PRONOUN:
    form = getattr(lexicon.PRONOUNS[noun_phrase.noun], _CASES[case])
    if not form:
      raise UnsayableError(f'{noun_phrase.noun} is not used in case {case}')
    return [form]
  _check_number(noun_phrase)
  column = gender_column(noun_phrase.noun, noun_phrase.plural)
  stem = own_stem(owner)
  if noun_phrase.determiner == meaning.OWN and not stem:
    raise UnsayableError('nobody in the clause can own this')
  form = determiner_form(noun_phrase.determiner, column, case, stem)
  tokens = [form] if form else []
  if noun_phrase.adjective:
    ending = adjective_ending(noun_phrase.determiner, column, case)
    tokens.append(lexicon.ADJECTIVES[noun_phrase.adjective].stem + ending)
  tokens.append(noun_form(noun_phrase.noun, noun_phrase.plural, case))
  if noun_phrase.relative is not None:
    tokens += _relative_tokens(noun_phrase, noun_phrase.relative, column)
  return tokens


def _relative_tokens(
  head: meaning.NounPhrase, clause: meaning.Clause, column: str
) -> list[str]:
  if clause.subject.determiner == meaning.GAP:
    case = 'n'
    subject = head._replace(relative=None)
    if clause.subject.plural != head.plural:
      raise UnsayableError('a relative clause agrees with its head')
  else:
    case = 'a'
    subject = clause.subject
  pronoun = _DEFINITE[case][column]
  return [',', pronoun, *clause_tokens(clause, 'final', subject), ',']


def finite_and_rest(clause: meaning.Clause) -> tuple[str, list[str], str]:
  """Conjugates the verb of a clause.

  Returns:
    The finite verb, the infinitive or participle at the end of the clause, and
    the prefix that a main clause without these separates.
  """
  verb = lexicon.VERBS[clause.verb]
  plural = int(is_plural(clause.subject))
  past = clause.tense == 'past'
  if clause.modal:
    form = lexicon.MODALS[clause.modal][plural + 2 * past]
    if not form:
      raise UnsayableError(f'{clause.modal} has no past here')
    return form, [verb.infinitive], ''
  if clause.tense == 'future':
    return _FUTURE[plural], [verb.infinitive], ''
  if clause.passive:
    return _PASSIVE[clause.tense][plural], [verb.participle], ''
  if clause.verb == 'sein':
    return _BE[clause.tense][plural], [], ''
  if past:
    return _PERFECT[verb.auxiliary][plural], [verb.participle], ''
  return (verb.stem_infinitive if plural else verb.third), [], verb.prefix


def _constituents(
  clause: meaning.Clause, owner: meaning.NounPhrase
) -> list[tuple[str, list[str]]]:
  """Returns (role, words) in the order of the German middle field."""

  def phrase(role: str, case: str) -> tuple[str, list[str]]:
    noun_phrase = getattr(clause, role)
    if noun_phrase is None:
      return role, []
    # OWN in the subject has no owner.
    own = None if role == 'subject' else owner
    return role, noun_phrase_tokens(noun_phrase, case, own)

  subject = phrase('subject', 'n')
  verb = lexicon.VERBS[clause.verb]
  objects = [phrase('indirect', 'd'), phrase('object', 'a')]
  pronouns = [
    item
    for item in objects
    if item[1] and getattr(clause, item[0]).determiner == meaning.PRONOUN
  ]
  nouns = [item for item in objects if item not in pronouns]
  oblique = []
  if clause.oblique is not None:
    _, preposition, case = verb.frame.split(':')
    oblique = [preposition, *phrase('oblique', case)[1]]
  place = []
  if clause.place is not None:
    where = clause.place
    place = [
      where.preposition,
      *noun_phrase_tokens(where.noun_phrase, where.case, owner),
    ]
  gladly = [clause.manner] if clause.manner == lexicon.GLADLY else []
  return [
    subject,
    *pronouns,
    ('time', clause.time.split()),
    ('manner', gladly),
    *nouns,
    ('frequency', clause.frequency.split()),
    ('negation', ['nicht'] if clause.negated else []),
    ('manner', [] if gladly else clause.manner.split()),
    ('oblique', oblique),
    ('place', place),
    ('predicate', clause.predicate.split()),
  ]


def clause_tokens(
  clause: meaning.Clause,
  order: str,
  owner: meaning.NounPhrase | None = None,
) -> list[str]:
  """Orders the words of a clause.

  Args:
    order: position of the finite verb: 'second' (main clause), 'first'
      (question, or after a subordinate clause) or 'final' (subordinate clause).
    owner: noun phrase that OWN refers to; by default the subject.

  Raises:
    UnsayableError: if German has no such form.
  """
  finite, rest, prefix = finite_and_rest(clause)
  constituents = _constituents(clause, owner or clause.subject)
  front: list[str] = []
  if order == 'second':
    front = dict(constituents)[clause.front]
    if not front:
      raise UnsayableError(f'nothing to put first: {clause.front}')
  middle = [
    word
    for role, words in constituents
    if order != 'second' or role != clause.front
    for word in words
  ]
  if order == 'final':
    return [*middle, *rest, prefix + finite]
  return [*front, finite, *middle, *rest, *([prefix] if prefix else [])]


def sentence_tokens(sentence: meaning.Sentence) -> list[str]:
  """Returns the German words of a sentence, including the final mark.

  Raises:
    UnsayableError: if German has no such form.
  """
  main, link = sentence.main, sentence.link
  end = '.' if sentence.mood == meaning.STATEMENT else '?'
  if sentence.mood in lexicon.QUESTION_WORDS:
    tokens = [sentence.mood, *clause_tokens(main, 'first')]
  elif sentence.mood == meaning.QUESTION:
    tokens = clause_tokens(main, 'first')
  elif sentence.second is None:
    tokens = clause_tokens(main, 'second')
  elif link in lexicon.COORDINATORS:
    comma = [] if link == 'und' else [',']
    second = clause_tokens(sentence.second, 'second')
    tokens = [*clause_tokens(main, 'second'), *comma, link, *second]
  elif sentence.link_first:
    second = clause_tokens(sentence.second, 'final')
    tokens = [link, *second, ',', *clause_tokens(main, 'first')]
  else:
    second = clause_tokens(sentence.second, 'final')
    tokens = [*clause_tokens(main, 'second'), ',', link, *second]
  if tokens[-1] == ',':
    tokens.pop()
  return contract([*tokens, end])


def contract(tokens: list[str]) -> list[str]:
  """Joins prepositions and articles, as in 'in dem' -> 'im'."""
  joined: list[str] = []
  for token in tokens:
    if joined and (joined[-1], token) in CONTRACTIONS:
      joined[-1] = CONTRACTIONS[joined[-1], token]
    else:
      joined.append(token)
  return joined


def expand(tokens: list[str]) -> list[str]:
  """Undoes `contract`."""
  pairs = {joined: pair for pair, joined in CONTRACTIONS.items()}
  return [part for token in tokens for part in pairs.get(token, (token,))]
