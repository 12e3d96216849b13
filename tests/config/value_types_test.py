"""Tests of config_types: which values fit which annotations."""

import dataclasses
import math
import os
from typing import Any, Literal, Protocol

import pytest

from rest_jax.config import value_types


@dataclasses.dataclass(frozen=True)
class Leaf:
  size: int = 1


class Readable(Protocol):
  name: str


@dataclasses.dataclass(frozen=True)
class Config:
  count: int = 1
  rate: float = 1.0
  flag: bool = True
  name: str = ''
  limit: int | None = None
  kind: Literal['a', 'b'] = 'a'
  sizes: tuple[int, ...] = ()
  sizes_or_count: tuple[int, ...] | int = ()
  words: tuple[str, ...] = ()
  paths: tuple[str | os.PathLike[str], ...] = ()
  pairs: tuple[tuple[str, str], ...] = ()
  leaf: Leaf | None = None
  leaves: tuple[Leaf, ...] = ()
  source: Readable | None = None
  anything: Any = None


LEAF = value_types.Instance(Leaf)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('count', 3),
    ('rate', 3),
    ('rate', 0.5),
    ('flag', False),
    ('limit', None),
    ('kind', 'b'),
    ('sizes', (1, 2)),
    ('sizes', [1, 2]),
    # The class may make a tuple of it.
    ('sizes', 3),
    ('sizes_or_count', 3),
    ('words', ('a',)),
    ('paths', 'a/b'),
    ('pairs', [('a', 'b')]),
    ('leaf', LEAF),
    ('leaves', (LEAF,)),
    ('source', LEAF),
    ('anything', 'x'),
    ('unknown', 'x'),
    ('count', value_types.UNKNOWN),
  ],
)
def test_what_fits(name, value):
  assert value_types.problem(Config, name, value) is None


@pytest.mark.parametrize(
  ('name', 'value', 'words'),
  [
    ('count', 'thirty', "must be an int; got 'thirty'."),
    ('count', '30', "must be an int; got '30'. Write it without quotes."),
    ('count', 30.5, 'must be an int; got 30.5.'),
    ('count', 1e5, 'must be an int; got 100000.0. Write 100000.'),
    ('count', True, 'must be an int; got True.'),
    ('count', None, 'must be an int; got None.'),
    ('count', (3,), 'must be an int; got (3,).'),
    ('rate', False, 'must be a finite number; got False.'),
    ('rate', math.nan, 'must be a finite number; got nan.'),
    ('rate', math.inf, 'must be a finite number; got inf.'),
    ('flag', 1, 'must be True or False; got 1.'),
    ('name', 5, 'must be text; got 5.'),
    ('limit', 'all', "must be an int or None; got 'all'."),
    ('kind', 'c', "must be one of 'a', 'b'; got 'c'."),
    ('sizes', (1, 2.5), 'must be a tuple, of an int each; got (1, 2.5).'),
    ('sizes', 'x', "must be a tuple, of an int each; got 'x'."),
    ('words', 'no', "must be a tuple, of text each; got 'no'. Write ('no',)."),
    ('pairs', (('a',),), "tuple, of a tuple (text, text) each; got (('a',),)."),
    ('leaf', 5, 'must be a Leaf or None; got 5.'),
    ('leaf', value_types.Instance(Config), 'or None; got @Config().'),
    ('leaves', (LEAF, 1), 'must be a tuple, of a Leaf each; got (@Leaf(), 1).'),
  ],
)
def test_what_does_not_fit(name, value, words):
  assert words in (value_types.problem(Config, name, value) or '')


def test_a_built_tree_holds_what_its_annotations_say():
  assert not list(value_types.problems(Config(leaf=Leaf(), leaves=(Leaf(2),))))
  wrong = Config(sizes=3, leaves=(Leaf(size=2.5),))
  assert list(value_types.problems(wrong)) == [
    'Config.sizes must be a tuple, of an int each; got 3. Write (3,).',
    'Leaf.size must be an int; got 2.5.',
  ]
