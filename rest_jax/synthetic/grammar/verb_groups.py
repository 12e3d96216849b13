"""English verb groups: tense, modals, voice and do-support."""

from typing import NamedTuple

from rest_jax.synthetic.grammar import lattice, lexicon, meaning

_BE = {'present': ('is', 'are'), 'past': ('was', 'were')}
# Modal -> English verb, and the adjective in 'is able to'.
_MODALS = {
  'können': ('can', 'able'),
  'sollen': ('should', 'supposed'),
  'dürfen': ('may', 'allowed'),
}
_PAST_MODALS = {'können': ('could', 'able')}


class VerbGroup(NamedTuple):
  """One way to say the verb of a clause.

  `auxiliary` is before the subject of a question and before 'not'; it may be
  empty. `rest` are the other words.
  """

  auxiliary: list[lattice.Expression]
  rest: list[lattice.Expression]


def verb_words(sense: lexicon.VerbSense, form: str) -> list[lattice.Expression]:
  """Returns a verb and its particle, with all synonyms.

  Args:
    form: 'base', 'third', 'past' or 'participle'.
  """
  texts = [(getattr(verb, form), *verb.tail) for verb in sense.verbs]
  if len({len(text) for text in texts}) > 1:
    return [lattice.alternatives([lattice.words(*text) for text in texts])]
  return [
    lattice.Word(tuple(dict.fromkeys(forms)))
    for forms in zip(*texts, strict=True)
  ]


def verb_groups(
  clause: meaning.Clause,
  sense: lexicon.VerbSense,
  plural: bool,
  negated: bool,
  inverted: bool,
) -> list[VerbGroup]:
  """Returns the ways to say the verb of a clause, the most common first.

  Args:
    plural: whether the English subject is plural.
    negated: whether 'not' follows the auxiliary.
    inverted: whether the auxiliary is before the subject.
  """
  if clause.modal:
    return _modal_groups(clause, sense, plural, negated, inverted)
  base = verb_words(sense, 'base')
  participle = verb_words(sense, 'participle')
  is_past = clause.tense == 'past'
  supported = negated or inverted
  do = lattice.words('did' if is_past else 'do' if plural else 'does')
  have = lattice.words('have' if plural else 'has')
  if clause.tense == 'future':
    return [VerbGroup(lattice.words('will'), base)]
  be = lattice.words(_BE[clause.tense][plural])
  if clause.passive:
    groups = [VerbGroup(be, participle)]
    if is_past:
      been = [*lattice.words('been'), *participle]
      groups.append(VerbGroup(have, been))
    return groups
  if clause.verb == 'sein':
    return [VerbGroup(be, [])]
  if clause.manner == lexicon.GLADLY:
    finite = 'liked' if is_past else 'like' if plural else 'likes'
    return [_with_to(finite, 'like', do, base, supported)]
  if is_past:
    past = verb_words(sense, 'past')
    simple = VerbGroup(do, base) if supported else VerbGroup([], past)
    return [simple, VerbGroup(have, participle)]
  finite_verb = base if plural else verb_words(sense, 'third')
  return [VerbGroup(do, base) if supported else VerbGroup([], finite_verb)]


def _with_to(
  finite: str,
  plain: str,
  do: list[lattice.Expression],
  base: list[lattice.Expression],
  supported: bool,
) -> VerbGroup:
  """Returns 'wants to see', or with an auxiliary 'does ... want to see'."""
  if supported:
    return VerbGroup(do, [*lattice.words(plain, 'to'), *base])
  return VerbGroup([], [*lattice.words(finite, 'to'), *base])


def _modal_groups(
  clause: meaning.Clause,
  sense: lexicon.VerbSense,
  plural: bool,
  negated: bool,
  inverted: bool,
) -> list[VerbGroup]:
  modal, is_past = clause.modal, clause.tense == 'past'
  base = verb_words(sense, 'base')
  do = lattice.words('did' if is_past else 'do' if plural else 'does')
  supported = negated or inverted
  if modal == 'wollen':
    finite = 'wanted' if is_past else 'want' if plural else 'wants'
    return [_with_to(finite, 'want', do, base, supported)]
  if modal == 'müssen':
    finite = 'had' if is_past else 'have' if plural else 'has'
    have_to = _with_to(finite, 'have', do, base, supported)
    if is_past:
      return [have_to]
    # 'muss nicht' is 'does not have to', never 'must not'.
    if negated:
      return [have_to, VerbGroup(lattice.words('need'), base)]
    return [VerbGroup(lattice.words('must'), base), have_to]
  verb, adjective = (_PAST_MODALS if is_past else _MODALS)[modal]
  auxiliary: list[lattice.Expression] = lattice.words(verb)
  if modal == 'dürfen':
    auxiliary = [lattice.Word((verb, 'must' if negated else 'can'))]
  be = lattice.words(_BE[clause.tense][plural])
  able_to = VerbGroup(be, [*lattice.words(adjective, 'to'), *base])
  return [VerbGroup(auxiliary, base), able_to]
