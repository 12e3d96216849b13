"""Errors in what is said: the English is right, but means something else.

Each function takes a sentence and dice, and returns a sentence that means
something else, or None where the error cannot be made.
"""

from collections.abc import Iterable
from typing import TypeVar

from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import german, lexicon, meaning, sentences

_Option = TypeVar('_Option')
_ROLES = ('subject', 'object', 'indirect', 'oblique')


def clauses(sentence: meaning.Sentence) -> list[tuple[str, meaning.Clause]]:
  """Returns (field of the sentence, clause) of its clauses."""
  found = [('main', sentence.main)]
  if sentence.second is not None:
    found.append(('second', sentence.second))
  return found


def _draw_clause(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> tuple[str, meaning.Clause]:
  return dice.pick(clauses(sentence))


def phrases(
  sentence: meaning.Sentence,
) -> list[tuple[str, str, meaning.NounPhrase]]:
  """Returns (clause, role, noun phrase) of all phrases."""
  found = []
  for name, clause in clauses(sentence):
    for role in _ROLES:
      if getattr(clause, role) is not None:
        found.append((name, role, getattr(clause, role)))
    if clause.place is not None:
      found.append((name, 'place', clause.place.noun_phrase))
  return found


def _with_phrase(
  sentence: meaning.Sentence,
  name: str,
  role: str,
  phrase: meaning.NounPhrase,
) -> meaning.Sentence:
  clause = getattr(sentence, name)
  changed = phrase
  if role == 'place':
    changed = clause.place._replace(noun_phrase=phrase)
  return sentence._replace(**{name: clause._replace(**{role: changed})})


def _other(
  dice: dice_lib.Dice, options: Iterable[_Option], current: _Option
) -> _Option | None:
  """Returns an option that is not the current one, or None."""
  others = [option for option in options if option != current]
  return dice.pick(others) if others else None


def wrong_noun(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another noun of the same class, or another pronoun."""
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


def wrong_verb(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another verb of the same frame."""
  name, clause = _draw_clause(sentence, dice)
  frame = lexicon.VERBS[clause.verb].frame
  alike = [verb for verb, e in lexicon.VERBS.items() if e.frame == frame]
  verb = _other(dice, alike, clause.verb)
  if verb is None:
    return None
  return sentence._replace(**{name: clause._replace(verb=verb)})


def wrong_adjective(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another adjective."""
  described = [item for item in phrases(sentence) if item[2].adjective]
  predicates = [item for item in clauses(sentence) if item[1].predicate]
  if not described and not predicates:
    return None
  if predicates and (not described or dice.chance(0.5)):
    name, clause = dice.pick(predicates)
    wrong = _other(dice, tuple(lexicon.ADJECTIVES), clause.predicate)
    return sentence._replace(**{name: clause._replace(predicate=wrong)})
  name, role, phrase = dice.pick(described)
  wrong = _other(dice, tuple(lexicon.ADJECTIVES), phrase.adjective)
  wrong_phrase = phrase._replace(adjective=wrong)
  return _with_phrase(sentence, name, role, wrong_phrase)


def wrong_number(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Singular for plural, or plural for singular."""
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


def wrong_determiner(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another article, number or quantifier."""
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


def wrong_tense(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another tense."""
  name, clause = _draw_clause(sentence, dice)
  tenses = ('present', 'past', 'future')
  if clause.modal or clause.passive or clause.verb == 'sein':
    tenses = tenses[:2]
  if clause.modal and not lexicon.MODALS[clause.modal][2]:
    return None
  tense = _other(dice, tenses, clause.tense)
  return sentence._replace(**{name: clause._replace(tense=tense)})


def wrong_modal(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another modal, or none."""
  name, clause = _draw_clause(sentence, dice)
  if not clause.modal:
    return None
  modals = [m for m, forms in lexicon.MODALS.items() if forms[2]]
  modal = _other(dice, ('', *modals), clause.modal)
  return sentence._replace(**{name: clause._replace(modal=modal)})


def dropped_negation(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """'not', 'no' or 'never' is lost."""
  options = []
  for name, clause in clauses(sentence):
    if clause.negated:
      options.append(
        sentence._replace(**{name: clause._replace(negated=False)})
      )
    if clause.frequency == 'nie':
      wrong = clause._replace(frequency='immer')
      options.append(sentence._replace(**{name: wrong}))
  for name, role, phrase in phrases(sentence):
    if phrase.determiner == meaning.NO:
      article = meaning.BARE if phrase.plural else meaning.INDEFINITE
      wrong = phrase._replace(determiner=article)
      options.append(_with_phrase(sentence, name, role, wrong))
  return dice.pick(options) if options else None


def swapped_roles(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Who acts and who is acted on change places."""
  name, clause = _draw_clause(sentence, dice)
  other = 'indirect' if clause.object is None else 'object'
  first, second = clause.subject, getattr(clause, other)
  if second is None or meaning.OWN in (first.determiner, second.determiner):
    return None
  wrong = clause._replace(**{'subject': second, other: first})
  return sentence._replace(**{name: wrong})


def dropped_phrase(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """An adjective, an adjunct or a relative clause is lost."""
  options = []
  for name, clause in clauses(sentence):
    for field in ('time', 'frequency', 'manner'):
      if getattr(clause, field):
        wrong = clause._replace(**{field: ''})
        options.append(sentence._replace(**{name: wrong}))
    if clause.place is not None:
      options.append(sentence._replace(**{name: clause._replace(place=None)}))
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


def hallucinated(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Adds something the source does not say."""
  name, clause = _draw_clause(sentence, dice)
  what = dice.pick(('time', 'place', 'adjective', 'negation'))
  if what == 'time' and not clause.time:
    wrong = clause._replace(time=sentences.draw_time(dice, clause))
  elif what == 'place' and clause.place is None:
    place = sentences.draw_place(dice, clause)
    wrong = place and clause._replace(place=place)
  elif what == 'negation' and not clause.negated:
    wrong = clause._replace(negated=True)
  elif what == 'adjective' and _can_have_adjective(clause.subject):
    adjective = sentences.draw_adjective(dice, clause.subject, (clause.verb,))
    subject = clause.subject._replace(adjective=adjective)
    wrong = clause._replace(subject=subject)
  else:
    return None
  return wrong and sentence._replace(**{name: wrong})


def wrong_link(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another conjunction."""
  if sentence.link in ('', 'dass', 'ob'):
    return None
  links = ('weil', 'obwohl', 'während', 'bevor')
  if sentence.link in lexicon.COORDINATORS:
    links = tuple(lexicon.COORDINATORS)
  return sentence._replace(link=_other(dice, links, sentence.link))


def wrong_preposition(
  sentence: meaning.Sentence, dice: dice_lib.Dice
) -> meaning.Sentence | None:
  """Another preposition, or direction for place."""
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
  return sentence._replace(**{name: clause._replace(place=place)})
