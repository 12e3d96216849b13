"""Sets of acceptable word sequences, and edit distances to them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Word(NamedTuple):
  """One word, with all acceptable forms; the most common first."""

  forms: tuple[str, ...]


class Alternatives(NamedTuple):
  """Equally acceptable expressions; the most common first."""

  options: tuple['Expression', ...]


class Orders(NamedTuple):
  """Named parts and their acceptable orders; the most common first."""

  parts: dict[str, 'Expression']
  orders: tuple[tuple[str, ...], ...]


# A list is a sequence.
Expression = Word | Alternatives | Orders | list
NOTHING: Expression = []


def words(*texts: str) -> list[Expression]:
  """Returns the sequence of some words."""
  return [Word((text,)) for text in texts]


def alternatives(options: list[Expression]) -> Expression:
  """Returns an expression for any of the options."""
  return options[0] if len(options) == 1 else Alternatives(tuple(options))


def draw(expression: Expression, pick: Callable[[Sequence], Any]) -> list[str]:
  """Returns one of the word sequences of an expression.

  Args:
    expression: a set of word sequences.
    pick: returns one of several options; the first is the most common.
  """
  if isinstance(expression, Word):
    return [pick(expression.forms)]
  if isinstance(expression, Alternatives):
    return draw(pick(expression.options), pick)
  if isinstance(expression, Orders):
    order = pick(expression.orders)
    return [w for name in order for w in draw(expression.parts[name], pick)]
  return [word for part in expression for word in draw(part, pick)]


def usual(expression: Expression) -> list[str]:
  """Returns the most common word sequence of an expression."""
  return draw(expression, lambda options: options[0])


class Costs(NamedTuple):
  """Costs of edits.

  Attributes:
    deletion: cost of omitting a word, given its forms.
    insertion: cost of adding a word.
    substitution: cost of writing a word in place of given forms; 0 if it is one
      of them.
  """

  deletion: Callable[[tuple[str, ...]], float]
  insertion: Callable[[str], float]
  substitution: Callable[[tuple[str, ...], str], float]


class Lattice:
  """An acyclic graph whose paths are the sequences of an expression.

  Nodes are in topological order. An edge has the index of a slot, which is a
  tuple of word forms, or None for no word.
  """

  def __init__(self, expression: Expression, costs: Costs):
    self._costs = costs
    self._slots: dict[tuple[str, ...], int] = {}
    self._in_edges: list[list[tuple[int, int | None]]] = [[], []]
    self._connect(expression, 0, 1)
    self._sort()
    self._deletions = [costs.deletion(forms) for forms in self._slots]
    self._known: list[dict[str, float]] = [{} for _ in self._slots]
    self.weight = self.distance(())

  def _node(self) -> int:
    self._in_edges.append([])
    return len(self._in_edges) - 1

  def _connect(self, expression: Expression, start: int, end: int) -> None:
    if isinstance(expression, Word):
      slot = self._slots.setdefault(expression.forms, len(self._slots))
      self._in_edges[end].append((start, slot))
    elif isinstance(expression, Alternatives):
      for option in expression.options:
        self._connect(option, start, end)
    elif isinstance(expression, Orders):
      self._connect_orders(expression, start, end)
    elif not expression:
      self._in_edges[end].append((start, None))
    else:
      for part in expression[:-1]:
        middle = self._node()
        self._connect(part, start, middle)
        start = middle
      self._connect(expression[-1], start, end)

  def _connect_orders(self, expression: Orders, start: int, end: int) -> None:
    """Connects all orders; equal beginnings and ends share nodes."""
    nodes = {frozenset(expression.orders): start, frozenset({()}): end}
    waiting = [frozenset(expression.orders)]
    while waiting:
      orders = waiting.pop()
      for name in dict.fromkeys(order[0] for order in sorted(orders)):
        rest = frozenset(o[1:] for o in orders if o[0] == name)
        if rest not in nodes:
          nodes[rest] = self._node()
          waiting.append(rest)
        self._connect(expression.parts[name], nodes[orders], nodes[rest])

  def _sort(self) -> None:
    """Renumbers the nodes topologically, the end last."""
    order: list[int] = []
    seen: set[int] = set()
    stack: list[tuple[int, bool]] = [(1, False)]
    while stack:
      node, done = stack.pop()
      if done:
        order.append(node)
      elif node not in seen:
        seen.add(node)
        stack.append((node, True))
        stack += [(source, False) for source, _ in self._in_edges[node]]
    number = {node: i for i, node in enumerate(order)}
    self._in_edges = [
      [(number[source], slot) for source, slot in self._in_edges[node]]
      for node in order
    ]

  def _substitutions(self, text: Sequence[str]) -> list[list[float]]:
    rows = []
    for forms, known in zip(self._slots, self._known, strict=True):
      row = []
      for word in text:
        cost = known.get(word)
        if cost is None:
          cost = self._costs.substitution(forms, word)
          known[word] = cost
        row.append(cost)
      rows.append(row)
    return rows

  def distance(self, text: Sequence[str]) -> float:
    """Returns the minimum cost of edits that turn the words `text` into a path.

    The row of a node contains, for each j, the distance between the first j
    words and the paths that end in the node.
    """
    substitutions = self._substitutions(text)
    insertions = [self._costs.insertion(word) for word in text]
    deletions = self._deletions
    first = [0.0]
    for cost in insertions:
      first.append(first[-1] + cost)
    rows = [first]
    for edges in self._in_edges[1:]:
      row: list[float] = []
      for source, slot in edges:
        before = rows[source]
        if slot is None:
          candidate = list(before)
        else:
          deletion = deletions[slot]
          candidate = [cost + deletion for cost in before]
          j = 1
          for cost, substitution in zip(before, substitutions[slot]):  # noqa: B905
            cost += substitution
            if cost < candidate[j]:
              candidate[j] = cost
            j += 1
        if not row:
          row = candidate
        else:
          row = [a if a < b else b for a, b in zip(row, candidate)]  # noqa: B905
      cost = row[0]
      for j, insertion in enumerate(insertions, 1):
        cost += insertion
        if cost < row[j]:
          row[j] = cost
        else:
          cost = row[j]
      rows.append(row)
    return rows[-1][-1]
