"""Settings: checks of their values, and plain values to record and compare."""

from collections.abc import Collection, Iterable, Iterator, Mapping
import dataclasses
import itertools
import math
import numbers
import operator
import pathlib
from typing import Any


def recorded(**kwargs: Any) -> Any:
  """A dataclass field that is shown but does not count as a difference.

  For settings that change how a stage is carried out and not what it computes,
  such as how often it logs.
  """
  return dataclasses.field(metadata={'feeds': False}, **kwargs)


def added(**kwargs: Any) -> Any:
  """A dataclass field that is described only where it is not its default.

  For settings that came later: folders made without them stay as they are.
  """
  return dataclasses.field(metadata={'since': 'later'}, **kwargs)


def make_tuples(config: Any, *names: str) -> None:
  """Makes tuples of a dataclass's fields, which gin hands over as lists.

  For `__post_init__`.

  Raises:
    ValueError: if one is a bare number or text, which is no sequence or one of
      letters.
  """
  for name in names:
    value = getattr(config, name)
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
      raise ValueError(
        f'{name} must be a sequence, such as {(value,)}; got {value!r}.'
      )
    object.__setattr__(config, name, tuple(value))


def at_least(
  config: Any, least: float, *names: str, none: str = '', hint: str = ''
) -> None:
  """Checks fields of a dataclass, for `__post_init__`, as those below do.

  Args:
    *names: the fields.
    none: what None stands for, which is then right too.
    hint: what to do, a sentence to end the error with.
  """
  for name, value in _values(config, names, none):
    if not (_is_number(value) and value >= least):
      raise _error(name, f'at least {least}', value, none, hint)


def positive(config: Any, *names: str, none: str = '', hint: str = '') -> None:
  """Checks that fields are above 0 and finite; see `at_least`."""
  for name, value in _values(config, names, none):
    if not (_is_number(value) and 0 < value < math.inf):
      raise _error(name, 'positive', value, none, hint)


def inside(
  config: Any, interval: str, *names: str, none: str = '', hint: str = ''
) -> None:
  """Checks that fields lie in an interval, such as '[0, 1)'; see `at_least`."""
  low, high = map(float, interval[1:-1].split(','))
  above = operator.ge if interval[0] == '[' else operator.gt
  below = operator.le if interval[-1] == ']' else operator.lt
  for name, value in _values(config, names, none):
    is_inside = _is_number(value) and above(value, low) and below(value, high)
    if not is_inside:
      raise _error(name, f'in {interval}', value, none, hint)


def one_of(
  config: Any, choices: Collection[Any], *names: str, hint: str = ''
) -> None:
  """Checks that fields are among some choices; see `at_least`."""
  for name, value in _values(config, names):
    if value not in choices:
      raise _error(name, f'one of {tuple(choices)}', value, '', hint)


def rising(
  config: Any, *names: str, may_be_empty: bool = False, hint: str = ''
) -> None:
  """Checks that fields are strictly rising lengths; see `at_least`."""
  for name, value in _values(config, names):
    is_rising = all(a < b for a, b in itertools.pairwise((0, *value)))
    if not is_rising or not (value or may_be_empty):
      raise _error(name, 'rising lengths, at least 1', value, '', hint)


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real)


def _values(
  config: Any, names: Iterable[str], none: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields names and values of fields, without None where that is right."""
  for name in names:
    value = getattr(config, name)
    if value is not None or not none:
      yield name, value


def _error(
  name: str, expected: str, value: Any, none: str, hint: str
) -> ValueError:
  known = f', or None for {none}' if none else ''
  end = f'. {hint}' if hint else ''
  return ValueError(f'{name} must be {expected}{known}; got {value!r}{end}')


def describe(value: Any) -> Any:
  """Returns a tree of JSON values that says what `value` was built from.

  Dataclasses become dicts with their class under `'is'`; fields declared by
  `recorded` are left out, since they do not feed the result, and those declared
  by `added` at their defaults.

  Args:
    value: a frozen dataclass, a container or a plain value.

  Returns:
    Dicts, lists, strings, numbers, booleans and None. Infinities become
    strings, so that the result is valid JSON.

  Raises:
    TypeError: if a value has no plain form.
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    described = {'is': type(value).__name__}
    for field in dataclasses.fields(value):
      own = getattr(value, field.name)
      is_unset = 'since' in field.metadata and own == field.default
      if field.metadata.get('feeds', True) and not is_unset:
        described[field.name] = describe(own)
    return described
  if isinstance(value, Mapping):
    return {str(key): describe(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [describe(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  if isinstance(value, pathlib.PurePath):
    return str(value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise TypeError(
    f'a setting of type {type(value).__name__} has no plain form: {value!r}'
  )


def differences(old: Any, new: Any, at: str = '') -> list[str]:
  """Lists where two described settings differ, one `path: old -> new` each."""
  if isinstance(old, dict) and isinstance(new, dict):
    found = []
    for key in list(old) + [key for key in new if key not in old]:
      path = f'{at}.{key}' if at else key
      if key not in old:
        found.append(f'{path}: (absent) -> {new[key]!r}')
      elif key not in new:
        found.append(f'{path}: {old[key]!r} -> (absent)')
      else:
        found.extend(differences(old[key], new[key], path))
    return found
  if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
    return [
      line
      for index, (a, b) in enumerate(zip(old, new, strict=True))
      for line in differences(a, b, f'{at}[{index}]')
    ]
  return [] if old == new else [f'{at}: {old!r} -> {new!r}']
