"""JSON values of dataclasses, read with errors that name the field."""

from collections.abc import Mapping
import dataclasses
import difflib
import math
import numbers
import types
import typing
from typing import Any


def check(holds: bool, field: str, expected: str, value: Any) -> None:
  """Raises ValueError unless a condition on a field's value holds."""
  if not holds:
    raise ValueError(f'{field} must be {expected}; got {show(value)}.')


def show(value: Any) -> str:
  """Formats a value for an error, in at most 60 characters."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def dump(value: Any) -> Any:
  """Returns plain JSON values; mappings with number keys are sorted."""
  if dataclasses.is_dataclass(value):
    fields = dataclasses.fields(value)
    return {field.name: dump(getattr(value, field.name)) for field in fields}
  if isinstance(value, Mapping):
    is_numbered = not any(isinstance(key, str) for key in value)
    keys = sorted(value) if is_numbered else value
    return {str(key): dump(value[key]) for key in keys}
  if isinstance(value, (list, tuple)):
    return [dump(item) for item in value]
  if isinstance(value, numbers.Integral) and not isinstance(value, bool):
    return int(value)
  if isinstance(value, numbers.Real) and not isinstance(value, bool):
    return float(value)
  return value


def parse(kind: Any, value: Any, path: str) -> Any:
  """Reads one value.

  Args:
    kind: annotation of the value.
    value: the JSON value.
    path: path of the value, for errors.

  Raises:
    ValueError: the value is of another kind or out of range.
  """
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is types.UnionType:  # only `X | None` occurs
    return None if value is None else parse(arguments[0], value, path)
  if dataclasses.is_dataclass(kind):
    return _parse_fields(kind, value, path)
  if origin is tuple:
    check(isinstance(value, list), path, 'a list', value)
    return tuple(
      parse(arguments[0], item, f'{path}[{index}]')
      for index, item in enumerate(value)
    )
  if origin is Mapping:
    check(isinstance(value, Mapping), path, 'an object', value)
    keys = {key: f'{path}[{show(key)}]' for key in value}
    if arguments[0] is str:
      return {k: parse(arguments[1], value[k], n) for k, n in keys.items()}
    for key, name in keys.items():
      check(str(key).isdecimal(), name, 'keyed by a whole number', key)
    return {
      int(key): parse(arguments[1], value[key], name)
      for key, name in keys.items()
    }
  if kind is str:
    check(isinstance(value, str), path, 'a text', value)
    return value
  number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if kind is int:
    check(number and isinstance(value, int), path, 'a whole number', value)
    return value
  check(number and math.isfinite(value), path, 'a finite number', value)
  return float(value)


def _parse_fields(kind: Any, value: Any, path: str) -> Any:
  """Reads an object with the fields of a dataclass."""
  prefix = f'{path}.' if path else ''
  check(isinstance(value, Mapping), path or 'results', 'an object', value)
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name in value:
    near = difflib.get_close_matches(str(name), fields, n=1)
    hint = f'; did you mean {near[0]!r}?' if near else '.'
    if name not in fields:
      raise ValueError(f'{prefix}{name} is not a field of results{hint}')
  for name, field in fields.items():
    required = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if required and name not in value:
      raise ValueError(f'{prefix}{name} is missing.')
  hints = typing.get_type_hints(kind)
  parsed = {
    name: parse(hints[name], item, f'{prefix}{name}')
    for name, item in value.items()
  }
  try:
    return kind(**parsed)
  except ValueError as error:
    raise ValueError(f'{prefix}{error}') from error
