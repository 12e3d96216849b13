"""Checks the values of settings against the type annotations of fields."""

import collections.abc
from collections.abc import Iterator
import dataclasses
import functools
import math
import types
import typing
from typing import Any, NamedTuple

_NAMES = {
  int: 'an int',
  float: 'a finite number',
  str: 'text',
  bool: 'True or False',
  type(None): 'None',
}
_UNIONS = (typing.Union, types.UnionType)
_LISTS = (list, tuple)


# Placeholder for an unknown value, which fits every annotation.
UNKNOWN = object()


class Instance(NamedTuple):
  """Placeholder for an instance of a class that is not built yet."""

  cls: type

  def __repr__(self) -> str:
    return f'@{self.cls.__name__}()'


def problem(cls: type, name: str, value: Any) -> str | None:
  """Returns what is wrong with the type of a field's value.

  A single number or path in place of a tuple is accepted, since the class may
  convert it; `problems` checks that after the class is built. Text is not
  accepted, since its tuple would consist of its letters.

  Args:
    cls: a dataclass.
    name: name of the field.
    value: the value, with `Instance` in place of objects.

  Returns:
    'must be …; got ….', or None if the value fits.
  """
  annotation = _annotations(cls).get(name, Any)
  if _fits(annotation, value, is_built=False):
    return None
  return _message(annotation, value)


def single_value(cls: type, name: str, value: Any) -> str | None:
  """Like `problem`, for a single number in place of a tuple."""
  annotation = _annotations(cls).get(name, Any)
  is_single = isinstance(value, int | float)
  if not is_single or _fits(annotation, value, is_built=True):
    return None
  return _message(annotation, value)


def problems(built: Any) -> Iterator[str]:
  """Yields the type errors in a tree of dataclasses."""
  if isinstance(built, tuple | list):
    for item in built:
      yield from problems(item)
  if not dataclasses.is_dataclass(built) or isinstance(built, type):
    return
  cls = type(built)
  for field in dataclasses.fields(built):
    value = getattr(built, field.name)
    annotation = _annotations(cls).get(field.name, Any)
    if not _fits(annotation, value, is_built=True):
      yield f'{cls.__name__}.{field.name} {_message(annotation, value)}'
    yield from problems(value)


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
  try:
    return typing.get_type_hints(cls)
  except (NameError, TypeError):  # Names that only type checkers know.
    return {}


def _fits(annotation: Any, value: Any, *, is_built: bool) -> bool:
  if value is UNKNOWN or annotation is Any:
    return True
  fits = functools.partial(_fits, is_built=is_built)
  origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
  if origin in _UNIONS:
    return any(fits(part, value) for part in parts)
  if origin is typing.Literal:
    return any(type(value) is type(part) and value == part for part in parts)
  if annotation in (None, type(None)):
    return value is None
  if annotation in (int, float, bool):
    return _is_number(annotation, value)
  if origin is tuple:
    return _fits_tuple(parts, value, is_built)
  if origin in (list, collections.abc.Sequence):
    if not isinstance(value, _LISTS):
      return _may_stand_alone(parts[0], value, is_built)
    return all(fits(parts[0], item) for item in value)
  return _is_of(origin or annotation, value)


def _is_number(annotation: type, value: Any) -> bool:
  if annotation is bool or isinstance(value, bool):
    return annotation is bool and isinstance(value, bool)
  if annotation is int:
    return isinstance(value, int)
  return isinstance(value, int | float) and math.isfinite(value)


def _fits_tuple(parts: tuple[Any, ...], value: Any, is_built: bool) -> bool:
  fits = functools.partial(_fits, is_built=is_built)
  if not isinstance(value, _LISTS):
    is_of_any_length = len(parts) == 2 and parts[1] is ...
    return is_of_any_length and _may_stand_alone(parts[0], value, is_built)
  if len(parts) == 2 and parts[1] is ...:
    return all(fits(parts[0], item) for item in value)
  return len(parts) == len(value) and all(map(fits, parts, value))


def _may_stand_alone(part: Any, value: Any, is_built: bool) -> bool:
  """Returns whether a class may convert a single value into a tuple."""
  return not (is_built or part is str) and _fits(part, value, is_built=False)


def _is_of(annotation: Any, value: Any) -> bool:
  """Returns whether a value is an instance; True for non-class annotations."""
  if not isinstance(annotation, type) or annotation is object:
    return True
  try:
    if isinstance(value, Instance):
      return issubclass(value.cls, annotation)
    return isinstance(value, annotation)
  except TypeError:  # A protocol without runtime check.
    return True


def _message(annotation: Any, value: Any) -> str:
  hint = ''
  origins = (tuple, list, collections.abc.Sequence)
  is_list = typing.get_origin(annotation) in origins
  if (
    is_list
    and not isinstance(value, Instance)
    and _fits(annotation, (value,), is_built=True)
  ):
    hint = f' Write ({value!r},).'
  elif isinstance(value, float) and value.is_integer():
    hint = f' Write {int(value)}.'
  elif isinstance(value, str) and _is_numeral(value):
    hint = ' Write it without quotes.'
  return f'must be {_expected(annotation)}; got {value!r}.{hint}'


def _is_numeral(text: str) -> bool:
  try:
    return math.isfinite(float(text))
  except ValueError:
    return False


def _expected(annotation: Any) -> str:
  if annotation in _NAMES:
    return _NAMES[annotation]
  origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
  if origin in _UNIONS:
    return ' or '.join(dict.fromkeys(map(_expected, parts)))
  if origin is typing.Literal:
    return 'one of ' + ', '.join(map(repr, parts))
  if origin is tuple and parts[-1:] != (...,):
    return f'a tuple ({", ".join(map(_expected, parts))})'
  if origin in (tuple, list, collections.abc.Sequence):
    return f'a tuple, of {_expected(parts[0])} each'
  name = getattr(origin or annotation, '__name__', str(annotation))
  return 'a path' if name == 'PathLike' else f'a {name}'
