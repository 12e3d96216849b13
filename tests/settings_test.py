"""Tests of settings as plain values."""

import dataclasses
import json

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
