"""Which sense of an ambiguous word is meant."""

from collections.abc import Iterable
from typing import TypeVar

from rest_jax.synthetic.grammar import lexicon, meaning

_PERSON = lexicon.NounSense(lexicon.PERSON, (), (), frozenset())
_Sense = TypeVar(
  '_Sense', lexicon.NounSense, lexicon.VerbSense, lexicon.AdjectiveSense
)
# A noun phrase and the sense of its noun.
Head = tuple[meaning.NounPhrase, lexicon.NounSense]


def choose(
  senses: tuple[_Sense, ...], context: Iterable[str], wrong: bool = False
) -> _Sense:
  """Returns the first sense whose conditions the context meets, or the last.

  Args:
    senses: in order of precedence.
    context: what stands around the word.
    wrong: returns another sense instead, to make an error.
  """
  found = frozenset(context)
  index = len(senses) - 1
  for position, sense in enumerate(senses):
    if sense.conditions & found:
      index = position
      break
  return senses[(index + wrong) % len(senses)]


def of_noun(
  phrase: meaning.NounPhrase, context: Iterable[str], wrong: str = ''
) -> lexicon.NounSense:
  """Returns the sense of a noun, or that of a person for a pronoun.

  Args:
    phrase: whose adjective counts as context too.
    context: the verb, and a preposition or a predicate.
    wrong: a noun of which another sense is returned.
  """
  if phrase.determiner == meaning.PRONOUN:
    return _PERSON
  senses = lexicon.NOUNS[phrase.noun].senses
  return choose(senses, (*context, phrase.adjective), phrase.noun == wrong)


def of_roles(
  clause: meaning.Clause, head: Head | None = None, wrong: str = ''
) -> dict[str, lexicon.NounSense]:
  """Returns role -> sense of the noun in that role, 'place' among them.

  Args:
    clause: where the nouns stand.
    head: what a relative clause describes; it fills the gap.
    wrong: a noun of which another sense is returned.
  """
  senses = {}
  for role in ('subject', 'object', 'indirect', 'oblique'):
    phrase = getattr(clause, role)
    if phrase is None:
      continue
    if head is not None and phrase.determiner == meaning.GAP:
      senses[role] = head[1]
    else:
      predicate = clause.predicate if role == 'subject' else ''
      senses[role] = of_noun(phrase, (clause.verb, predicate), wrong)
  if clause.place is not None:
    context = (clause.verb, clause.place.preposition)
    senses['place'] = of_noun(clause.place.noun_phrase, context, wrong)
  return senses


def of_verb(
  clause: meaning.Clause,
  nouns: dict[str, lexicon.NounSense],
  wrong: str = '',
) -> lexicon.VerbSense:
  """Returns the sense of the verb, by what it acts on or who acts.

  Args:
    clause: whose verb.
    nouns: as `of_roles` returns them.
    wrong: a verb of which another sense is returned.
  """
  role = next(r for r in ('object', 'oblique', 'subject') if r in nouns)
  context = [nouns[role].kind]
  if clause.place is not None:
    context.append(clause.place.preposition)
  senses = lexicon.VERBS[clause.verb].senses
  return choose(senses, context, clause.verb == wrong)
