"""Tests of sets of word sequences and distances to them."""

import itertools
import random

import pytest

from rest_jax.synthetic.grammar import lattice

_WORDS = 'abcd'


def _deletion(forms):
  return 1.0 + 0.25 * _WORDS.index(forms[0])


def _insertion(word):
  return 0.75 + 0.125 * _WORDS.index(word)


def _substitution(forms, word):
  return 0.0 if word in forms else 1.5


_COSTS = lattice.Costs(_deletion, _insertion, _substitution)


def _paths(expression):
  """All sequences of slots, by definition."""
  if isinstance(expression, lattice.Word):
    return [(expression.forms,)]
  if isinstance(expression, lattice.Alternatives):
    return [path for option in expression.options for path in _paths(option)]
  if isinstance(expression, lattice.Orders):
    expressions = [
      [expression.parts[name] for name in order] for order in expression.orders
    ]
    return [path for parts in expressions for path in _paths(parts)]
  products = itertools.product(*(_paths(part) for part in expression))
  return [tuple(itertools.chain(*product)) for product in products]


def _edit_distance(path, text):
  """The textbook recursion, one path at a time."""
  if not path:
    return sum(map(_insertion, text))
  if not text:
    return sum(map(_deletion, path))
  return min(
    _edit_distance(path[1:], text) + _deletion(path[0]),
    _edit_distance(path, text[1:]) + _insertion(text[0]),
    _edit_distance(path[1:], text[1:]) + _substitution(path[0], text[0]),
  )


def _random_expression(rng, depth):
  kind = rng.choice(['word', 'sequence', 'alternatives', 'orders'])
  if depth == 0 or kind == 'word':
    return lattice.Word(tuple(rng.sample(_WORDS, rng.choice([1, 1, 2]))))
  parts = [_random_expression(rng, depth - 1) for _ in range(rng.randint(1, 2))]
  if kind == 'sequence':
    return parts if rng.random() < 0.8 else []
  if kind == 'alternatives':
    return lattice.Alternatives(tuple(parts))
  names = {str(i): part for i, part in enumerate(parts)}
  orders = tuple(itertools.permutations(names))
  return lattice.Orders(names, orders)


@pytest.mark.parametrize('seed', range(30))
def test_distance_is_the_least_over_all_paths(seed):
  rng = random.Random(seed)
  expression = [_random_expression(rng, 2) for _ in range(2)]
  built = lattice.Lattice(expression, _COSTS)
  paths = set(_paths(expression))
  for _ in range(6):
    text = [rng.choice(_WORDS) for _ in range(rng.randint(0, 5))]
    expected = min(_edit_distance(path, text) for path in paths)
    assert built.distance(text) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('seed', range(10))
def test_a_drawn_sentence_is_in_the_set(seed):
  rng = random.Random(seed)
  expression = [_random_expression(rng, 3) for _ in range(2)]
  built = lattice.Lattice(expression, _COSTS)
  for _ in range(5):
    assert built.distance(lattice.draw(expression, rng.choice)) == 0.0
  assert built.distance(lattice.usual(expression)) == 0.0
  longer = lattice.usual(expression) + ['a'] * 30
  assert built.distance(longer) > 0.0


def test_the_weight_is_that_of_the_lightest_path():
  expression = lattice.Alternatives(
    (lattice.words('a', 'a'), lattice.words('d'))
  )
  assert lattice.Lattice(expression, _COSTS).weight == 1.75


def test_orders_share_what_they_begin_and_end_with():
  parts = {name: lattice.Word((name,)) for name in _WORDS}
  orders = (('a', 'b', 'c', 'd'), ('a', 'c', 'b', 'd'))
  built = lattice.Lattice(lattice.Orders(parts, orders), _COSTS)
  # a, then b c or c b, then d: six edges in place of eight.
  assert sum(len(edges) for edges in built._in_edges) == 6
