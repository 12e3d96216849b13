"""Checks the settings of a tree of frozen dataclasses.

Follows every reference from the root class, in the same way as gin when it
builds the tree. `gin_files` reads the settings; this module does not depend on
gin.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import difflib
from typing import Any, NamedTuple

from rest_jax.config import value_types

# (scope, class, parameter). A macro is the parameter 'value' of the gin class
# 'gin.macro', in a scope with the name of the macro.
Key = tuple[str, str, str]

MACRO = 'gin.macro'
CONSTANT = 'gin.constant'


class ConfigError(ValueError):
  """An invalid configuration."""


class Reference(NamedTuple):
  """A reference to a macro or a class in a value."""

  scopes: tuple[str, ...]
  name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """One line `key = value`.

  Attributes:
    references: (scopes, class) of all references in the value, at any depth.
    outline: value with `Reference` in place of gin references.
    line: number of the line, from 1; 0 for an override.
  """

  key: Key
  value: Any
  references: tuple[tuple[tuple[str, ...], str], ...]
  file: str
  line: int
  outline: Any = value_types.UNKNOWN

  @property
  def is_override(self) -> bool:
    return self.line == 0

  @property
  def place(self) -> str:
    return self.file if self.is_override else f'{self.file}:{self.line}'


class Tree:
  """The tree that settings describe.

  A setting is used if the tree takes its value, and superseded if the tree
  would take it without a later setting.

  Attributes:
    single_values: message by class about a number in place of a tuple, for the
      case that the class cannot be built with it.
  """

  def __init__(
    self,
    classes: Mapping[str, type],
    settings: Mapping[Key, Sequence[Setting]],
  ):
    """Stores the settings; `problems` checks them.

    Args:
      classes: registered classes by name.
      settings: values of each key in order; the last one counts.
    """
    self._classes = classes
    self._settings = settings
    self._used: set[Key] = set()
    self._superseded: set[Key] = set()
    self._built: set[str] = set()
    self._undefined: list[str] = []
    self._missing: dict[str, str] = {}
    self._problems: list[str] = []
    self._wrong: set[Key] = set()
    self.single_values: dict[str, str] = {}
    # Nodes on the path from the root to the current one, and finished nodes.
    self._open: list[Any] = []
    self._closed: set[Any] = set()

  def problems(self, root: str) -> list[str]:
    """Returns all problems of the tree below the class `root`."""
    self._visit_class(root, (), True, 'the run itself')
    problems = [*self._problems, *self._unused()]
    if self._missing:
      width = max(map(len, self._missing))
      listed = [
        f'\n  {name:{width}}  required by {place}'
        for name, place in self._missing.items()
      ]
      problems.append(
        f'required, but not set:{"".join(listed)}'
        '\n  Set each in a gin file or by --gin.NAME=VALUE.'
      )
    return problems

  def _unused(self) -> Iterator[str]:
    names = {*map(key_name, self._used), *self._undefined}
    for cls in self._built:
      names |= {f'{cls}.{name}' for name in parameters(self._classes[cls])}
    for key, history in self._settings.items():
      setting = history[-1]
      excused = key in self._superseded and not setting.is_override
      if key in self._used or excused:
        continue
      scope, cls, _ = key
      if cls == MACRO:
        why = 'nothing uses it'
      elif cls not in self._built:
        why = f'this configuration builds no {cls}'
      elif scope:
        why = f'no {cls} is built in that scope'
      else:
        why = f'each {cls} takes it from a scope'
      name = key_name(key)
      near = nearest(name, names - {name})
      yield f'{setting.place}: {name} is set, but {why}.{near}'

  def _visit_class(
    self, name: str, scope: tuple[str, ...], live: bool, place: str
  ) -> None:
    if not self._enter((name, scope, live), f'@{name}()', place):
      return
    known = parameters(self._classes[name])
    taken = {}
    for depth in range(len(scope) + 1):  # Inner scopes win.
      for parameter in known:
        key = ('/'.join(scope[:depth]), name, parameter)
        if key in self._settings:
          taken[parameter] = key
    for key in taken.values():
      self._visit_key(key, scope, live)
    if live:
      self._built.add(name)
      for key in taken.values():
        self._check_type(key)
      for parameter, is_needed in known.items():
        if is_needed and parameter not in taken:
          self._missing.setdefault(f'{name}.{parameter}', place)
    self._leave()

  def _check_type(self, key: Key) -> None:
    """Reports a value of a wrong type, once per setting."""
    _, name, parameter = key
    value, origin = self._resolve(key)
    cls = self._classes[name]
    macro = '' if origin.key == key else f' {key_name(origin.key)} sets it.'
    message = f'{origin.place}: {key_name(key)} {{}}{macro}'
    if problem := value_types.single_value(cls, parameter, value):
      self.single_values[name] = message.format(problem)
    problem = value_types.problem(cls, parameter, value)
    if problem and origin.key not in self._wrong:
      self._wrong.add(origin.key)
      self._problems.append(message.format(problem))

  def _resolve(self, key: Key) -> tuple[Any, Setting]:
    """Returns the value of a key with its macros resolved, and its setting."""
    setting, seen = self._settings[key][-1], {key}
    value = setting.outline
    while isinstance(value, Reference) and value.name == MACRO:
      key = macro_key('/'.join(value.scopes))
      if key in seen or key not in self._settings:
        return value_types.UNKNOWN, setting  # Reported elsewhere.
      seen.add(key)
      setting = self._settings[key][-1]
      value = setting.outline
    return self._outlined(value, seen), setting

  def _outlined(self, value: Any, seen: set[Key]) -> Any:
    """Replaces the references in a value by their values."""
    if isinstance(value, Reference):
      if value.name != MACRO:
        cls = self._classes.get(value.name)
        return value_types.Instance(cls) if cls else value_types.UNKNOWN
      key = macro_key('/'.join(value.scopes))
      if key in seen or key not in self._settings:
        return value_types.UNKNOWN
      return self._outlined(self._settings[key][-1].outline, seen | {key})
    if isinstance(value, list | tuple):
      return type(value)(self._outlined(item, seen) for item in value)
    return value

  def _visit_macro(self, name: str, live: bool, place: str) -> None:
    key = macro_key(name)
    if key not in self._settings:
      if live:
        known = [scope for scope, cls, _ in self._settings if cls == MACRO]
        self._undefined.append(name)
        self._problems.append(
          f'{place}: %{name} is not set anywhere.{nearest(name, known)}'
        )
    elif self._enter((name, live), f'%{name}', place):
      # gin evaluates a macro in a scope with the name of the macro.
      self._visit_key(key, tuple(name.split('/')), live)
      self._leave()

  def _visit_key(self, key: Key, scope: tuple[str, ...], live: bool) -> None:
    (self._used if live else self._superseded).add(key)
    *earlier, current = self._settings[key]
    self._visit_value(current, scope, live)
    for setting in earlier:
      self._visit_value(setting, scope, False)
    if earlier and key_name(key) in self._missing:
      self._missing[key_name(key)] += (
        f', after {earlier[-1].place} gave it; name that file later'
      )

  def _visit_value(
    self, setting: Setting, scope: tuple[str, ...], live: bool
  ) -> None:
    for scopes, name in setting.references:
      if name == MACRO:
        self._visit_macro('/'.join(scopes), live, setting.place)
      elif name == CONSTANT:  # The only one is gin.REQUIRED.
        if live:
          self._missing[key_name(setting.key)] = setting.place
      else:
        self._visit_class(name, scopes or scope, live, setting.place)

  def _enter(self, node: Any, name: str, place: str) -> bool:
    """Enters a node unless it was seen; reports a node inside itself."""
    is_live = node[-1]
    if node in self._open and is_live:
      self._problems.append(f'{place}: {name} contains itself.')
    if node in self._open or node in self._closed:
      return False
    self._open.append(node)
    return True

  def _leave(self) -> None:
    self._closed.add(self._open.pop())


def macro_key(name: str) -> Key:
  """Returns the key of a macro."""
  return name, MACRO, 'value'


def key_name(key: Key) -> str:
  """Returns a key in gin notation."""
  scope, cls, parameter = key
  if cls == MACRO:
    return scope
  return f'{scope}/{cls}.{parameter}' if scope else f'{cls}.{parameter}'


def parameters(cls: type) -> dict[str, bool]:
  """Returns whether each parameter of a dataclass is required, by name."""
  return {
    field.name: field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
    for field in dataclasses.fields(cls)
    if field.init
  }


def nearest(
  name: str, known: Iterable[str], *, by_last_part: bool = True
) -> str:
  """Returns ' Did you mean …?' with the closest names, or an empty text.

  Args:
    known: known names.
    by_last_part: whether names that are equal after the last dot are close.
  """
  spellings = {other.lower(): other for other in known}
  lower = name.lower()
  near = [spellings[lower]] if lower in spellings else []
  if by_last_part:
    tail = '.' + lower.rsplit('.', 1)[-1]
    near += [text for key, text in spellings.items() if key.endswith(tail)]
  if not near:
    close = difflib.get_close_matches(lower, spellings, n=2)
    near = [spellings[other] for other in close]
  return f' Did you mean {" or ".join(near[:3])}?' if near else ''
