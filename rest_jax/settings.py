"""Settings as plain values: to record them, compare them and show differences."""

from collections.abc import Iterable, Mapping
import dataclasses
import math
import pathlib
from typing import Any


def recorded(**kwargs: Any) -> Any:
  """A dataclass field that is shown but does not count as a difference.

  For settings that change how a stage is carried out and not what it computes,
  such as how often it logs.

  Args:
    **kwargs: arguments of `dataclasses.field`.

  Returns:
    The field.
  """
  return dataclasses.field(metadata={'feeds': False}, **kwargs)


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


def describe(value: Any) -> Any:
  """Returns a tree of JSON values that says what `value` was built from.

  Dataclasses become dicts with their class under `'is'`; fields declared by
  `recorded` are left out, since they do not feed the result.

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
      if field.metadata.get('feeds', True):
        described[field.name] = describe(getattr(value, field.name))
    return described
  if isinstance(value, Mapping):
    return {str(key): describe(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [describe(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  if isinstance(value, pathlib.Path):
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
