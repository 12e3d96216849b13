"""Random sentences that mostly make sense."""

from collections.abc import Callable, Sequence
import functools

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import (
  english,
  german,
  lattice,
  lexicon,
  meaning,
  parser,
)
from rest_jax.synthetic.grammar import senses as senses_lib

_Dice = dice_lib.Dice
_Clause = meaning.Clause

MIN_WORDS = 4
MAX_WORDS = 20

_KINDS = {
  noun: frozenset(sense.kind for sense in entry.senses)
  for noun, entry in lexicon.NOUNS.items()
}
_MOVING = tuple(v for v, e in lexicon.VERBS.items() if e.frame == 'm')
_CLAUSAL = tuple(v for v, e in lexicon.VERBS.items() if e.frame == 'c')
_PLAIN = tuple(v for v in lexicon.VERBS if v not in _CLAUSAL)
_TRANSITIVE = tuple(v for v, e in lexicon.VERBS.items() if e.frame == 't')
_PASSIVE = tuple(verb for verb in _TRANSITIVE if verb != 'haben')
# Kinds of nouns that each preposition of place may govern.
_PLACE_KINDS = {
  'in': ('place',),
  'auf': ('place', 'thing'),
  'mit': ('vehicle', 'person', 'animal'),
  'hinter': ('place', 'person', 'vehicle'),
  'vor': ('place', 'vehicle', 'person'),
  'neben': ('place', 'thing', 'person', 'machine'),
  'unter': ('place', 'thing', 'vehicle'),
  'zu': ('place', 'person'),
  'aus': ('place',),
  'für': ('person',),
  'ohne': ('person', 'animal'),
  'durch': ('place',),
}
_MOTION = ('zu', 'aus', 'durch')
_DETERMINERS = (
  (meaning.DEFINITE, 40),
  (meaning.INDEFINITE, 18),
  (meaning.OWN, 9),
  (meaning.THIS, 6),
  (meaning.MY, 5),
  (meaning.NO, 5),
  (meaning.EVERY, 3),
  (meaning.BARE, 4),
  (meaning.ALL, 2),
  *((numeral, 1.5) for numeral in lexicon.NUMERALS),
  *((quantifier, 2) for quantifier in lexicon.QUANTIFIERS),
)


def draw_noun_phrase(
  dice: _Dice,
  kinds: Sequence[str],
  context: Sequence[str] = (),
  owner: meaning.NounPhrase | None = None,
  pronouns: float = 0.12,
) -> meaning.NounPhrase | None:
  """Draws a noun phrase; None if the draw makes no sense.

  Args:
    kinds: allowed classes of the noun, in the sense of this context.
    context: verb and preposition, which determine the sense.
    owner: subject, if OWN may refer to it.
    pronouns: probability of a pronoun, if persons are allowed.
  """
  if lexicon.PERSON in kinds and dice.chance(pronouns):
    name = dice.pick(tuple(lexicon.PRONOUNS))
    plural = lexicon.PRONOUNS[name].plural
    return meaning.NounPhrase(name, plural, meaning.PRONOUN)
  noun = dice.pick_early(_nouns(tuple(kinds)))
  determiner = dice.pick_weighted(_DETERMINERS)
  if determiner == meaning.OWN and not german.own_stem(owner):
    determiner = meaning.DEFINITE
  plural = dice.chance(0.25)
  if determiner in (*german.PLURAL_ONLY, meaning.BARE):
    plural = True
  if determiner in german.SINGULAR_ONLY:
    plural = False
  if plural and not lexicon.NOUNS[noun].plural:
    return None
  phrase = meaning.NounPhrase(noun, plural, determiner)
  if dice.chance(0.2):
    phrase = phrase._replace(adjective=draw_adjective(dice, phrase, context))
  if senses_lib.of_noun(phrase, context).kind not in kinds:
    return None
  return phrase


@functools.cache
def _nouns(kinds: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the nouns with a sense of one of these kinds."""
  return tuple(n for n, own in _KINDS.items() if not own.isdisjoint(kinds))


def draw_adjective(
  dice: _Dice, phrase: meaning.NounPhrase, context: Sequence[str]
) -> str:
  """Draws an adjective that fits the sense of the noun with this adjective."""
  is_pronoun = phrase.determiner == meaning.PRONOUN
  fitting = _fitting(phrase.noun, is_pronoun, tuple(context))
  return dice.pick_early(fitting) if fitting else ''


@functools.lru_cache(maxsize=4096)
def _fitting(
  noun: str, is_pronoun: bool, context: tuple[str, ...]
) -> tuple[str, ...]:
  """Returns the adjectives that fit the sense of the noun with each of them."""
  determiner = meaning.PRONOUN if is_pronoun else meaning.DEFINITE
  fitting = []
  for adjective, entry in lexicon.ADJECTIVES.items():
    described = meaning.NounPhrase(noun, False, determiner, adjective)
    kind = senses_lib.of_noun(described, context).kind
    if any(kind in sense.conditions for sense in entry.senses):
      fitting.append(adjective)
  return tuple(fitting)


def draw_place(dice: _Dice, clause: _Clause) -> meaning.Place | None:
  """Draws a prepositional adjunct for a clause."""
  moving = clause.verb in _MOVING
  if clause.passive and dice.chance(0.5):
    preposition, case, kinds = 'von', 'd', (lexicon.PERSON,)
  else:
    preposition = dice.pick_early(
      [p for p in _PLACE_KINDS if moving or p not in _MOTION]
    )
    cases = lexicon.PREPOSITIONS[preposition]
    case = 'a' if 'a' in cases and (moving or 'd' not in cases) else 'd'
    if moving and 'd' in cases and dice.chance(0.3):
      case = 'd'
    kinds = _PLACE_KINDS[preposition]
  phrase = draw_noun_phrase(
    dice, kinds, (clause.verb, preposition), clause.subject, pronouns=0.03
  )
  if phrase is None or phrase.determiner == meaning.NO:
    return None
  return meaning.Place(preposition, case, phrase)


def _draw_verb_phrase(dice: _Dice, clause: _Clause) -> _Clause | None:
  """Draws the complements of the verb."""
  entry = lexicon.VERBS[clause.verb]
  person = (lexicon.PERSON,)
  wanted = {
    't': {'object': entry.objects},
    'd': {'indirect': person},
    'l': {'indirect': person},
    'dt': {'indirect': person, 'object': entry.objects},
    'p': {'oblique': entry.objects},
  }.get(entry.frame.split(':')[0], {})
  if clause.passive:
    wanted = {}
  for role, kinds in wanted.items():
    phrase = draw_noun_phrase(dice, kinds, (clause.verb,), clause.subject)
    if phrase is None:
      return None
    if phrase.determiner == meaning.NO and role != 'object':
      return None
    clause = clause._replace(**{role: phrase})
  if entry.frame == 'a':
    subject = clause.subject
    if subject.determiner == meaning.PRONOUN:
      predicate = dice.pick(('krank', 'müde', 'klug', 'hungrig', 'traurig'))
    else:
      predicate = draw_adjective(dice, subject._replace(adjective=''), ())
    if predicate in ('', subject.adjective):
      return None
    clause = clause._replace(predicate=predicate)
  return clause


def _draw_tense(dice: _Dice, clause: _Clause) -> _Clause:
  """Draws tense, modal and voice."""
  kind = dice.pick_weighted(
    (
      ('present', 44),
      ('past', 28),
      ('future', 8),
      ('modal', 16),
      ('passive', 4),
    )
  )
  if kind == 'modal' and clause.verb not in ('sein', 'gefallen', 'gehören'):
    modal = dice.pick_early(tuple(lexicon.MODALS))
    past = lexicon.MODALS[modal][2] and dice.chance(0.35)
    return clause._replace(modal=modal, tense='past' if past else 'present')
  if kind == 'passive' and clause.verb in _PASSIVE:
    tense = 'past' if dice.chance(0.4) else 'present'
    return clause._replace(passive=True, tense=tense)
  if kind == 'future' and clause.verb == 'sein':
    return clause
  if kind in ('past', 'future'):
    return clause._replace(tense=kind)
  return clause


def draw_time(dice: _Dice, clause: _Clause) -> str:
  """Draws an adverb of time that fits the tense."""
  times = ['heute', 'am morgen', 'am abend', 'jeden tag']
  if clause.tense == 'past':
    times.insert(0, 'gestern')
  elif clause.tense == 'future' or clause.modal:
    times = ['morgen', 'bald', *times]
  else:
    times.insert(0, 'jetzt')
  return dice.pick_early(times)


def _draw_adjuncts(dice: _Dice, clause: _Clause) -> _Clause | None:
  copula = clause.verb == 'sein'
  has_no = any(
    phrase is not None and phrase.determiner == meaning.NO
    for phrase in (clause.subject, clause.object)
  )
  if dice.chance(0.2):
    clause = clause._replace(time=draw_time(dice, clause))
  if not has_no and dice.chance(0.13):
    clause = clause._replace(negated=True)
  elif not has_no and clause.time == '' and dice.chance(0.1):
    clause = clause._replace(frequency=dice.pick(tuple(lexicon.FREQUENCIES)))
  if not copula and not clause.passive and dice.chance(0.12):
    manner = dice.pick(tuple(lexicon.MANNERS))
    clause = clause._replace(manner=manner)
  elif (
    clause.subject.determiner != meaning.NO
    and not (copula or clause.passive or clause.modal or clause.negated)
    and lexicon.VERBS[clause.verb].frame not in ('l', 'c')
    and clause.tense != 'future'
    and dice.chance(0.06)
  ):
    clause = clause._replace(manner=lexicon.GLADLY)
  wants_place = 0.75 if clause.verb in _MOVING or clause.passive else 0.2
  if clause.oblique is None and not copula and dice.chance(wants_place):
    place = draw_place(dice, clause)
    if place is None:
      return None
    clause = clause._replace(place=place)
  return clause


def draw_clause(
  dice: _Dice,
  verbs: Sequence[str] = _PLAIN,
  gap: meaning.NounPhrase | None = None,
  gap_kind: str = '',
) -> _Clause | None:
  """Draws a clause; None if the draw makes no sense.

  Args:
    gap: subject of a relative clause; None to draw the subject.
    gap_kind: class of the noun in the gap.
  """
  verb = dice.pick_early(verbs)
  kinds = lexicon.VERBS[verb].subjects
  clause = _draw_tense(dice, meaning.Clause(verb, meaning.NounPhrase('')))
  if clause.passive:
    kinds = lexicon.VERBS[verb].objects
  subject = gap
  if gap is None:
    subject = draw_noun_phrase(dice, kinds, (verb,), pronouns=0.25)
  elif gap_kind not in kinds:
    return None
  if subject is None:
    return None
  drawn = _draw_verb_phrase(dice, clause._replace(subject=subject))
  return drawn and _draw_adjuncts(dice, drawn)


def _draw_front(dice: _Dice, clause: _Clause) -> _Clause:
  """Draws the constituent before the verb."""
  fronts = [('subject', 2.0)]
  if clause.time:
    fronts.append(('time', 2.0))
  if clause.place is not None:
    fronts.append(('place', 0.5))
  if clause.object is not None:
    fronts.append(('object', 0.5))
  if clause.indirect is not None:
    like = lexicon.VERBS[clause.verb].frame == 'l'
    fronts.append(('indirect', 2.0 if like else 0.3))
  return clause._replace(front=dice.pick_weighted(fronts))


def _draw_relative(dice: _Dice, clause: _Clause) -> _Clause | None:
  """Attaches a relative clause to the subject or the object."""
  role = 'subject' if clause.object is None or dice.chance(0.6) else 'object'
  head = getattr(clause, role)
  if head.determiner == meaning.PRONOUN:
    return None
  gap = meaning.NounPhrase('', head.plural, meaning.GAP)
  kind = senses_lib.of_noun(head, (clause.verb, clause.predicate)).kind
  if dice.chance(0.6):
    verbs = tuple(verb for verb in _PLAIN if verb != 'sein')
    relative = draw_clause(dice, verbs, gap, kind)
  else:
    relative = draw_clause(dice, _TRANSITIVE)
    if relative is not None:
      if relative.passive or kind not in lexicon.VERBS[relative.verb].objects:
        return None
      relative = relative._replace(object=gap)
  if relative is None:
    return None
  return clause._replace(**{role: head._replace(relative=relative)})


def _draw_linked(dice: _Dice) -> meaning.Sentence | None:
  """Draws a statement of two clauses."""
  if dice.chance(0.3):
    main, second = draw_clause(dice, _CLAUSAL), draw_clause(dice)
    if main is None or second is None or main.place or main.passive:
      return None
    asking = main.verb == 'fragen_ob' or (
      main.verb == 'wissen' and main.negated
    )
    return meaning.Sentence(main, 'ob' if asking else 'dass', second)
  main, second = draw_clause(dice), draw_clause(dice)
  if main is None or second is None:
    return None
  if dice.chance(0.2):
    link = dice.pick(tuple(lexicon.COORDINATORS))
    second = _draw_front(dice, second)
    return meaning.Sentence(_draw_front(dice, main), link, second)
  link = dice.pick(('weil', 'wenn', 'obwohl', 'während', 'bevor'))
  if dice.chance(0.35):
    return meaning.Sentence(main, link, second, link_first=True)
  return meaning.Sentence(_draw_front(dice, main), link, second)


def _draw_meaning(dice: _Dice) -> meaning.Sentence | None:
  shape = dice.pick_weighted(
    (('simple', 58), ('linked', 20), ('relative', 9), ('question', 13))
  )
  if shape == 'linked':
    return _draw_linked(dice)
  clause = draw_clause(dice)
  if clause is None:
    return None
  if shape == 'question':
    mood = dice.pick((meaning.QUESTION, *lexicon.QUESTION_WORDS))
    if mood == 'wann' and clause.time:
      return None
    return meaning.Sentence(clause, mood=mood)
  if shape == 'relative':
    clause = _draw_relative(dice, clause)
    if clause is None:
      return None
  return meaning.Sentence(_draw_front(dice, clause))


def draw_sentence(
  dice: _Dice, wanted: Callable[[str], bool] = lambda text: True
) -> tuple[str, meaning.Sentence]:
  """Draws a sentence with an unambiguous German text.

  Args:
    wanted: returns whether a German text may be drawn.

  Returns:
    The German text and its meaning. The text and its most common English
    translation have MIN_WORDS to MAX_WORDS words.
  """
  while True:
    sentence = _draw_meaning(dice)
    if sentence is None:
      continue
    try:
      tokens = german.sentence_tokens(sentence)
    except german.UnsayableError:
      continue
    text = ' '.join(tokens)
    if (
      MIN_WORDS <= len(tokens) <= MAX_WORDS
      and wanted(text)
      and parser.parse(text) == sentence
    ):
      usual = lattice.usual(english.translations(sentence))
      if MIN_WORDS <= len(usual) <= MAX_WORDS:
        return text, sentence
