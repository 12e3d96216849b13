"""Values of a `config.json`, each checked as it is read."""

from collections.abc import Mapping
import math
from typing import Any

CONFIG_FILE = 'config.json'

# Activations by the names that transformers has for them.
ACTIVATIONS = {
  'gelu': 'gelu_erf',
  'gelu_accurate': 'gelu',
  'gelu_fast': 'gelu',
  'gelu_new': 'gelu',
  'gelu_python': 'gelu_erf',
  'gelu_python_tanh': 'gelu',
  'gelu_pytorch_tanh': 'gelu',
  'linear': 'linear',
  'quick_gelu': 'quick_gelu',
  'relu': 'relu',
  'silu': 'silu',
  'swish': 'silu',
}
# The name under which each of ours is written.
_NAMES = {
  'gelu': 'gelu_new',
  'gelu_erf': 'gelu',
  'linear': 'linear',
  'quick_gelu': 'quick_gelu',
  'relu': 'relu',
  'silu': 'silu',
}
_ROTARY = ('default', 'linear')


def name_of_activation(name: str) -> str:
  """The name that transformers has for one of our activations."""
  return _NAMES[name]


class Values:
  """A section of a `config.json`; errors name the key, its value and the file.

  Attributes:
    described: what the section holds.
  """

  def __init__(self, described: Mapping[str, Any], section: str = ''):
    """Takes a section by its path, 'encoder.' for example."""
    self.described = described
    self._section = section

  def __contains__(self, name: str) -> bool:
    return self.described.get(name) is not None

  def section(self, name: str) -> 'Values':
    """Returns an object within this one."""
    found = self.described.get(name)
    if not isinstance(found, Mapping):
      raise self.error(name, 'an object')
    return Values(found, f'{self._section}{name}.')

  def error(self, name: str, expected: str, hint: str = '') -> ValueError:
    """Returns an error about a key."""
    value = self.described.get(name)
    return ValueError(
      f'{self._section}{name} of {CONFIG_FILE} must be {expected}; got '
      f'{value!r}.{hint}'
    )

  def size(self, name: str, default: int | None = None) -> int:
    """Reads a whole number above 0; the default where there is none or null."""
    value = self.described.get(name)
    value = default if value is None else value
    if type(value) is not int or value < 1:
      raise self.error(
        name, 'a whole number above 0', f' Fetch {CONFIG_FILE} again.'
      )
    return value

  def number(self, name: str, default: float) -> float:
    """Reads a number; the default where there is none or null."""
    value = self.described.get(name)
    value = default if value is None else value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
      raise self.error(name, 'a number')
    return float(value)

  def positive(self, name: str, default: float) -> float:
    """As `number`, above 0."""
    value = self.number(name, default)
    if value <= 0:
      raise self.error(name, 'a number above 0')
    return value

  def cap(self, name: str, default: float | None) -> float | None:
    """As `positive`, where null stands for no cap."""
    if name in self.described and self.described[name] is None:
      return None
    return (
      None
      if default is None and name not in self
      else self.positive(name, default or 1.0)
    )

  def rate(self, name: str, default: float) -> float:
    """Reads a share that is dropped out."""
    value = self.number(name, default)
    if not 0 <= value < 1:
      raise self.error(name, 'in [0, 1)')
    return value

  def flag(self, name: str, default: bool) -> bool:
    value = self.described.get(name)
    value = default if value is None else value
    if not isinstance(value, bool):
      raise self.error(name, 'true or false')
    return value

  def special_id(self, name: str, default: int | None) -> int | None:
    """Reads an id of a token; the first of several."""
    value = self.described.get(name)
    value = value[0] if isinstance(value, list) and value else value
    value = default if value is None else value
    if value is not None and (type(value) is not int or value < 0):
      raise self.error(name, 'the id of a token')
    return value

  def activation(self, name: str, default: str) -> str:
    """Reads the name of an activation; returns ours for it."""
    value = self.described.get(name) or default
    if value not in ACTIVATIONS:
      raise self.error(name, f'one of {tuple(ACTIVATIONS)}')
    return ACTIVATIONS[value]

  def rotary(self, name: str) -> float:
    """Reads how rotary positions are scaled; returns what divides them."""
    if name not in self:
      return 1.0
    values = self.section(name)
    key = 'rope_type' if 'rope_type' in values else 'type'
    kind = values.described.get(key, 'default')
    if kind not in _ROTARY:
      raise values.error(key, f'one of {_ROTARY}')
    if values.number('partial_rotary_factor', 1.0) != 1:
      raise values.error('partial_rotary_factor', '1 or absent')
    return values.positive('factor', 1.0) if kind == 'linear' else 1.0
