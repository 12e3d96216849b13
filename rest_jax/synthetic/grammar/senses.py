"""The choice between the senses of an ambiguous word."""

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
    senses: senses in order of precedence.
    context: words and classes around the word.
    wrong: whether to return a wrong sense instead.
  """
  words = frozenset(context)
  index = next(
    (i for i, sense in enumerate(senses) if sense.conditions & words),
    len(senses) - 1,
  )
  return senses[(index + wrong) % len(senses)]


def of_noun(
  phrase: meaning.NounPhrase, context: Iterable[str], wrong: str = ''
) -> lexicon.NounSense:
  """Returns the sense of a noun, or that of a person for a pronoun.

  Args:
    context: the verb, and a preposition or a predicate.
    wrong: noun for which a wrong sense is returned.
  """
  if phrase.determiner == meaning.PRONOUN:
    return _PERSON
  senses = lexicon.NOUNS[phrase.noun].senses
  return choose(senses, (*context, phrase.adjective), phrase.noun == wrong)


def of_roles(
  clause: meaning.Clause, head: Head | None = None, wrong: str = ''
) -> dict[str, lexicon.NounSense]:
  """Returns the sense of the noun in each role, including 'place'.

  Args:
    head: head of a relative clause and its sense; it fills the gap.
    wrong: noun for which a wrong sense is returned.
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
  """Returns the sense of the verb, by the class of its object or subject.

  Args:
    nouns: result of `of_roles`.
    wrong: verb for which a wrong sense is returned.
  """
  role = next(r for r in ('object', 'oblique', 'subject') if r in nouns)
  context = [nouns[role].kind]
  if clause.place is not None:
    context.append(clause.place.preposition)
  senses = lexicon.VERBS[clause.verb].senses
  return choose(senses, context, clause.verb == wrong)
