"""Errors of meaning: correct English with another meaning.

Each function takes a sentence and dice. It returns a sentence with another
meaning, or None if the error cannot be made.
"""

from collections.abc import Iterable
from typing import TypeVar

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import german, lexicon, meaning, sentences

_Option = TypeVar('_Option')
_Dice = dice_lib.Dice
_Sentence = meaning.Sentence
_ROLES = ('subject', 'object', 'indirect', 'oblique')


def clauses(sentence: _Sentence) -> list[tuple[str, meaning.Clause]]:
  """Returns (field of the sentence, clause) of each clause."""
  pairs = [('main', sentence.main), ('second', sentence.second)]
  return [(name, clause) for name, clause in pairs if clause is not None]


def _draw_clause(
  sentence: _Sentence, dice: _Dice
) -> tuple[str, meaning.Clause]:
  return dice.pick(clauses(sentence))


def phrases(sentence: _Sentence) -> list[tuple[str, str, meaning.NounPhrase]]:
  """Returns (field of the sentence, role, noun phrase) of each noun phrase."""
  phrases = []
  for name, clause in clauses(sentence):
    for role in _ROLES:
      if getattr(clause, role) is not None:
        phrases.append((name, role, getattr(clause, role)))
    if clause.place is not None:
      phrases.append((name, 'place', clause.place.noun_phrase))
  return phrases


def _with_clause(sentence: _Sentence, name: str, **changes) -> _Sentence:
  """Returns the sentence with changed fields of one clause."""
  clause = getattr(sentence, name)
  return sentence._replace(**{name: clause._replace(**changes)})


def _with_phrase(
  sentence: _Sentence, name: str, role: str, phrase: meaning.NounPhrase
) -> _Sentence:
  """Returns the sentence with another noun phrase in a role of one clause."""
  changed = phrase
  if role == 'place':
    changed = getattr(sentence, name).place._replace(noun_phrase=phrase)
  return _with_clause(sentence, name, **{role: changed})


def _other(
  dice: _Dice, options: Iterable[_Option], current: _Option
) -> _Option | None:
  """Returns an option other than the current one, or None if there is none."""
  others = [option for option in options if option != current]
  return dice.pick(others) if others else None


def wrong_noun(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces a noun by one of the same class, or a pronoun by another."""
  name, role, phrase = dice.pick(phrases(sentence))
  if phrase.determiner == meaning.PRONOUN:
    pronoun = dice.pick([p for p in lexicon.PRONOUNS if p != phrase.noun])
    plural = lexicon.PRONOUNS[pronoun].plural
    wrong = phrase._replace(noun=pronoun, plural=plural)
  else:
    kind = lexicon.NOUNS[phrase.noun].senses[-1].kind
    alike = [
      noun
      for noun, entry in lexicon.NOUNS.items()
      if entry.senses[-1].kind == kind and (entry.plural or not phrase.plural)
    ]
    noun = _other(dice, alike, phrase.noun)
    if noun is None:
      return None
    wrong = phrase._replace(noun=noun)
  return _with_phrase(sentence, name, role, wrong)


def wrong_verb(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces a verb by one with the same frame."""
  name, clause = _draw_clause(sentence, dice)
  frame = lexicon.VERBS[clause.verb].frame
  alike = [verb for verb, e in lexicon.VERBS.items() if e.frame == frame]
  verb = _other(dice, alike, clause.verb)
  if verb is None:
    return None
  return _with_clause(sentence, name, verb=verb)


def wrong_adjective(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces an adjective."""
  described = [item for item in phrases(sentence) if item[2].adjective]
  predicates = [item for item in clauses(sentence) if item[1].predicate]
  if not described and not predicates:
    return None
  if predicates and (not described or dice.chance(0.5)):
    name, clause = dice.pick(predicates)
    wrong = _other(dice, tuple(lexicon.ADJECTIVES), clause.predicate)
    return _with_clause(sentence, name, predicate=wrong)
  name, role, phrase = dice.pick(described)
  wrong = _other(dice, tuple(lexicon.ADJECTIVES), phrase.adjective)
  wrong_phrase = phrase._replace(adjective=wrong)
  return _with_phrase(sentence, name, role, wrong_phrase)


def wrong_number(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Exchanges singular and plural."""
  name, role, phrase = dice.pick(phrases(sentence))
  determiner, plural = phrase.determiner, not phrase.plural
  fixed = (meaning.PRONOUN, meaning.EVERY, *german.PLURAL_ONLY)
  if determiner in fixed:
    return None
  if plural and not lexicon.NOUNS[phrase.noun].plural:
    return None
  if determiner == meaning.INDEFINITE:
    determiner = meaning.BARE
  elif determiner == meaning.BARE:
    determiner = meaning.INDEFINITE
  wrong = phrase._replace(plural=plural, determiner=determiner)
  if phrase.relative is not None:
    relative = phrase.relative
    if relative.subject.determiner == meaning.GAP:
      gap = relative.subject._replace(plural=plural)
      wrong = wrong._replace(relative=relative._replace(subject=gap))
  return _with_phrase(sentence, name, role, wrong)


def wrong_determiner(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces an article, number or quantifier."""
  name, role, phrase = dice.pick(phrases(sentence))
  swaps = {
    meaning.DEFINITE: (meaning.THIS, meaning.MY),
    meaning.INDEFINITE: (meaning.DEFINITE, meaning.THIS),
    meaning.OWN: (meaning.DEFINITE, meaning.MY),
    meaning.MY: (meaning.DEFINITE,),
    meaning.THIS: (meaning.DEFINITE,),
    meaning.EVERY: (meaning.DEFINITE, meaning.THIS),
    meaning.ALL: (*lexicon.QUANTIFIERS, meaning.DEFINITE),
    **{number: tuple(lexicon.NUMERALS) for number in lexicon.NUMERALS},
    **{many: (meaning.ALL, 'zwei') for many in lexicon.QUANTIFIERS},
  }
  wrong = _other(dice, swaps.get(phrase.determiner, ()), phrase.determiner)
  if wrong is None:
    return None
  return _with_phrase(sentence, name, role, phrase._replace(determiner=wrong))


def wrong_tense(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Changes the tense."""
  name, clause = _draw_clause(sentence, dice)
  tenses = ('present', 'past', 'future')
  if clause.modal or clause.passive or clause.verb == 'sein':
    tenses = tenses[:2]
  if clause.modal and not lexicon.MODALS[clause.modal][2]:
    return None
  tense = _other(dice, tenses, clause.tense)
  return _with_clause(sentence, name, tense=tense)


def wrong_modal(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces or drops a modal."""
  name, clause = _draw_clause(sentence, dice)
  if not clause.modal:
    return None
  modals = [m for m, forms in lexicon.MODALS.items() if forms[2]]
  modal = _other(dice, ('', *modals), clause.modal)
  return _with_clause(sentence, name, modal=modal)


def dropped_negation(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Drops 'not', 'no' or 'never'."""
  options = []
  for name, clause in clauses(sentence):
    if clause.negated:
      options.append(_with_clause(sentence, name, negated=False))
    if clause.frequency == 'nie':
      options.append(_with_clause(sentence, name, frequency='immer'))
  for name, role, phrase in phrases(sentence):
    if phrase.determiner == meaning.NO:
      article = meaning.BARE if phrase.plural else meaning.INDEFINITE
      wrong = phrase._replace(determiner=article)
      options.append(_with_phrase(sentence, name, role, wrong))
  return dice.pick(options) if options else None


def swapped_roles(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Swaps subject and object."""
  name, clause = _draw_clause(sentence, dice)
  other = 'indirect' if clause.object is None else 'object'
  first, second = clause.subject, getattr(clause, other)
  if second is None or meaning.OWN in (first.determiner, second.determiner):
    return None
  return _with_clause(sentence, name, **{'subject': second, other: first})


def dropped_phrase(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Drops an adjective, an adjunct or a relative clause."""
  options = []
  for name, clause in clauses(sentence):
    for field in ('time', 'frequency', 'manner'):
      if getattr(clause, field):
        options.append(_with_clause(sentence, name, **{field: ''}))
    if clause.place is not None:
      options.append(_with_clause(sentence, name, place=None))
  for name, role, phrase in phrases(sentence):
    if phrase.adjective:
      wrong = phrase._replace(adjective='')
      options.append(_with_phrase(sentence, name, role, wrong))
    if phrase.relative is not None:
      wrong = phrase._replace(relative=None)
      options.append(_with_phrase(sentence, name, role, wrong))
  return dice.pick(options) if options else None


def _can_have_adjective(phrase: meaning.NounPhrase) -> bool:
  return phrase.noun in lexicon.NOUNS and not phrase.adjective


def hallucinated(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Adds a phrase that is not in the source."""
  name, clause = _draw_clause(sentence, dice)
  added = dice.pick(('time', 'place', 'adjective', 'negation'))
  if added == 'time' and not clause.time:
    wrong = clause._replace(time=sentences.draw_time(dice, clause))
  elif added == 'place' and clause.place is None:
    place = sentences.draw_place(dice, clause)
    wrong = place and clause._replace(place=place)
  elif added == 'negation' and not clause.negated:
    wrong = clause._replace(negated=True)
  elif added == 'adjective' and _can_have_adjective(clause.subject):
    adjective = sentences.draw_adjective(dice, clause.subject, (clause.verb,))
    subject = clause.subject._replace(adjective=adjective)
    wrong = clause._replace(subject=subject)
  else:
    return None
  return wrong and sentence._replace(**{name: wrong})


def wrong_link(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces the conjunction."""
  if sentence.link in ('', 'dass', 'ob'):
    return None
  links = ('weil', 'obwohl', 'während', 'bevor')
  if sentence.link in lexicon.COORDINATORS:
    links = tuple(lexicon.COORDINATORS)
  return sentence._replace(link=_other(dice, links, sentence.link))


def wrong_preposition(sentence: _Sentence, dice: _Dice) -> _Sentence | None:
  """Replaces a preposition, or place by direction."""
  name, clause = _draw_clause(sentence, dice)
  if clause.place is None:
    return None
  options = [
    (preposition, case)
    for preposition, cases in lexicon.PREPOSITIONS.items()
    for case in cases
    if (preposition, case) != clause.place[:2]
  ]
  preposition, case = dice.pick(options)
  place = clause.place._replace(preposition=preposition, case=case)
  return _with_clause(sentence, name, place=place)
