"""English word orders: positions of verbs, adverbs and adjuncts.

A clause has named parts: 'question' (a question word), 'subject', 'objects',
'predicate', 'frequency', 'manner', 'place', 'time' and 'not'. Missing parts are
empty. The functions add the parts of the verb and return orders of the names,
the most common first.
"""

from typing import NamedTuple

from rest_jax.synthetic.grammar import lattice, meaning, verb_groups

Parts = dict[str, lattice.Expression]
Order = tuple[str, ...]


class Mode(NamedTuple):
  """One way to say a clause, with or without 'not'.

  `name` distinguishes the parts of two modes.
  """

  name: str
  negated: bool
  groups: list[verb_groups.VerbGroup]

  @property
  def objects(self) -> str:
    return f'objects {self.name}'


def statement_orders(
  clause: meaning.Clause, parts: Parts, mode: Mode, manner_first: bool
) -> list[Order]:
  """Returns the orders of a statement or a subordinate clause.

  Time is at either end, manner and place in either order; a place is first if
  it is first in German.

  Args:
    parts: parts of the clause; those of the verb are added.
    manner_first: whether manner may also be before the verb.
  """

  def verb(manner: lattice.Expression) -> lattice.Expression:
    not_ = lattice.words('not') if mode.negated else []
    return lattice.alternatives(
      [
        [*auxiliary, *not_, parts['frequency'], manner, *rest]
        for auxiliary, rest in mode.groups
      ]
    )

  name = f'verb {mode.name}'
  parts[name] = verb(lattice.NOTHING)
  after = (mode.objects, 'predicate')
  cores: list[Order] = [('subject', name, *after, 'manner', 'place')]
  if clause.manner and clause.place is not None:
    cores.append(('subject', name, *after, 'place', 'manner'))
  if manner_first:
    manner_name = f'manner and verb {mode.name}'
    parts[manner_name] = verb(parts['manner'])
    cores.append(('subject', manner_name, *after, 'place'))
  if clause.front == 'place':
    cores += [
      ('place', *(part for part in core if part != 'place')) for core in cores
    ]
  if not clause.time:
    return cores
  last = [(*core, 'time') for core in cores]
  first = [('time', *core) for core in cores]
  return first + last if clause.front == 'time' else last + first


def question_orders(
  clause: meaning.Clause, parts: Parts, mode: Mode
) -> list[Order]:
  """Returns the orders of a question; arguments as in `statement_orders`."""
  orders = []
  for index, (auxiliary, rest) in enumerate(mode.groups):
    suffix = f'{mode.name} {index}'
    parts[f'auxiliary {suffix}'] = auxiliary
    parts[f'verb {suffix}'] = [parts['frequency'], *rest]
    start = ['question', f'auxiliary {suffix}', 'subject']
    if mode.negated:
      start.append('not')
    start += [f'verb {suffix}', mode.objects, 'predicate']
    orders.append((*start, 'manner', 'place', 'time'))
    if clause.manner and clause.place is not None:
      orders.append((*start, 'place', 'manner', 'time'))
  return orders


def german_orders(
  clause: meaning.Clause, parts: Parts, mode: Mode, subordinate: bool
) -> list[Order]:
  """Returns the German order of the words: the verb last, or split.

  Args:
    parts: parts of the clause; those of the verb are added.
    subordinate: whether the whole verb is last in German.
  """
  auxiliary, rest = next(
    (group for group in mode.groups if group.auxiliary), mode.groups[0]
  )
  first, last = f'auxiliary {mode.name}', f'verb {mode.name}'
  parts[first], parts[last] = auxiliary, rest
  middle = [mode.objects, 'predicate', 'frequency']
  if mode.negated:
    middle.append('not')
  middle += ['manner', 'place']
  if subordinate:
    return [('subject', 'time', *middle, last, first)]
  if not auxiliary:
    first, last = last, first
  if clause.front == 'time':
    return [('time', first, 'subject', *middle, last)]
  return [('subject', first, 'time', *middle, last)]
