"""Tests of settings: their checks, and their plain values."""

import dataclasses
import json
import math
from typing import Any

import pytest

from rest_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
  value: float = 1.0
  log_every: int = settings.recorded(default=5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  inner: Inner = Inner()
  names: tuple[str, ...] = ('a', 'b')


def test_describe_is_json_and_leaves_out_what_does_not_feed():
  described = settings.describe({'x': Outer()})
  assert described == {
    'x': {
      'is': 'Outer',
      'inner': {'is': 'Inner', 'value': 1.0},
      'names': ['a', 'b'],
    }
  }
  assert json.loads(json.dumps(described)) == described


def test_infinities_become_text():
  assert settings.describe((float('-inf'), 2.0)) == ['-inf', 2.0]


def test_differences_name_the_path():
  old = settings.describe(Outer())
  new = settings.describe(Outer(inner=Inner(value=2.0, log_every=9)))
  assert settings.differences(old, new) == ['inner.value: 1.0 -> 2.0']
  assert settings.differences({'a': 1}, {'b': 2}) == [
    'a: 1 -> (absent)',
    'b: (absent) -> 2',
  ]
  assert settings.differences(old, old) == []


def test_what_has_no_plain_form_is_an_error():
  with pytest.raises(TypeError, match='object'):
    settings.describe({'x': object()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
  buckets: tuple[int, ...] = (16, 32)
  names: tuple[str, ...] = ()

  def __post_init__(self):
    settings.make_tuples(self, 'buckets', 'names')


def test_sequences_become_tuples():
  made = Lengths(buckets=[8, 16], names=['a'])
  assert (made.buckets, made.names) == ((8, 16), ('a',))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'buckets': 16}, r'buckets must be a sequence, such as \(16,\); got 16'),
    ({'buckets': None}, 'buckets must be a sequence'),
    ({'names': 'bc'}, r"names must be a sequence, such as \('bc',\); got 'bc'"),
  ],
)
def test_a_bare_value_is_no_sequence(arguments, message):
  with pytest.raises(ValueError, match=message):
    Lengths(**arguments)


@dataclasses.dataclass(frozen=True)
class _Checked:
  """Has a value of each kind that is checked."""

  steps: Any = 1
  rate: Any = 0.5
  share: Any = 0.0
  kind: Any = 'a'
  lengths: Any = (1, 2)
  limit: Any = None

  def __post_init__(self):
    settings.at_least(self, 1, 'steps')
    settings.positive(self, 'rate', hint='Raise it.')
    settings.inside(self, '[0, 1)', 'share')
    settings.one_of(self, ('a', 'b'), 'kind')
    settings.rising(self, 'lengths')
    settings.at_least(self, 2, 'limit', none='all')


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('steps', 0, 'steps must be at least 1; got 0'),
    ('steps', None, 'steps must be at least 1; got None'),
    ('steps', '5', "steps must be at least 1; got '5'"),
    ('rate', 0, 'rate must be positive; got 0. Raise it.'),
    ('rate', math.nan, 'rate must be positive; got nan. Raise it.'),
    ('rate', math.inf, 'rate must be positive; got inf. Raise it.'),
    ('share', 1.0, 'share must be in [0, 1); got 1.0'),
    ('share', -0.1, 'share must be in [0, 1); got -0.1'),
    ('kind', 'c', "kind must be one of ('a', 'b'); got 'c'"),
    ('lengths', (), 'lengths must be rising lengths, at least 1; got ()'),
    ('lengths', (2, 2), 'lengths must be rising lengths, at least 1; got (2, 2)'),
    ('lengths', (0, 2), 'lengths must be rising lengths, at least 1; got (0, 2)'),
    ('limit', 1, 'limit must be at least 2, or None for all; got 1'),
  ],
)  # fmt: skip
def test_a_check_says_what_was_expected_and_what_came(name, value, message):
  _Checked()
  with pytest.raises(ValueError) as error:
    _Checked(**{name: value})
  assert str(error.value) == message
