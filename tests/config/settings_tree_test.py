"""Tests of settings_tree: names, suggestions and trees without gin."""

import dataclasses
from typing import Any

import pytest

from rest_jax.config import settings_tree


@dataclasses.dataclass(frozen=True)
class Leaf:
  needed: int
  given: int = 1
  made: tuple = dataclasses.field(default_factory=tuple)
  derived: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass(frozen=True)
class Root:
  leaf: Any = None


CLASSES = {'Leaf': Leaf, 'Root': Root}
LEAF = (((), 'Leaf'),)


def _settings(*lines):
  """Builds histories from (key, references) in the order of one file each."""
  settings = {}
  for number, (key, references) in enumerate(lines):
    setting = settings_tree.Setting(
      key=key, value=None, references=references, file=f'{number}', line=1
    )
    settings.setdefault(key, []).append(setting)
  return settings


def _problems(*lines):
  return settings_tree.Tree(CLASSES, _settings(*lines)).problems('Root')


def test_parameters_and_which_must_be_set():
  assert settings_tree.parameters(Leaf) == {
    'needed': True,
    'given': False,
    'made': False,
  }


@pytest.mark.parametrize(
  ('key', 'name'),
  [
    (settings_tree.macro_key('LOSS'), 'LOSS'),
    (settings_tree.macro_key('a/LOSS'), 'a/LOSS'),
    (('', 'Leaf', 'given'), 'Leaf.given'),
    (('a/b', 'Leaf', 'given'), 'a/b/Leaf.given'),
  ],
)
def test_key_name(key, name):
  assert settings_tree.key_name(key) == name


@pytest.mark.parametrize(
  ('name', 'known', 'suggested'),
  [
    ('LOS', ['LOSS', 'STEPS'], ' Did you mean LOSS?'),
    ('loss', ['LOSS', 'LOSSES'], ' Did you mean LOSS?'),
    ('given', ['Leaf.given', 'Root.leaf'], ' Did you mean Leaf.given?'),
    ('Leav.given', ['Leaf.given'], ' Did you mean Leaf.given?'),
    ('STEP', ['STEPS', 'STEPS2'], ' Did you mean STEPS or STEPS2?'),
    ('XYZ', ['LOSS', 'STEPS'], ''),
    ('XYZ', [], ''),
  ],
)
def test_nearest(name, known, suggested):
  assert settings_tree.nearest(name, known) == suggested


def test_a_tree_without_fault():
  leaf = ('', 'Root', 'leaf'), LEAF
  assert _problems() == []
  assert _problems(leaf, (('', 'Leaf', 'needed'), ())) == []
  # In the scope that the macro opens.
  macro = ('', 'Root', 'leaf'), ((('M',), settings_tree.MACRO),)
  made = settings_tree.macro_key('M'), LEAF
  assert _problems(macro, made, (('M', 'Leaf', 'needed'), ())) == []


def test_a_field_without_default_is_missing():
  (problem,) = _problems((('', 'Root', 'leaf'), LEAF))
  assert 'Leaf.needed  required by 0:1' in problem


def test_replaced_values_excuse_their_settings():
  leaf = ('', 'Root', 'leaf'), LEAF
  needed = ('', 'Leaf', 'needed'), ()
  nothing = ('', 'Root', 'leaf'), ()
  assert _problems(leaf, needed, nothing) == []
  (problem,) = _problems(nothing, needed)
  assert problem == (
    '1:1: Leaf.needed is set, but this configuration builds no Leaf.'
  )
