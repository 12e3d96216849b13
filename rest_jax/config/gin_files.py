"""Reads gin files and gin flags into a tree of frozen dataclasses.

The only module that imports gin. A configuration is read from left to right:

    files      macros are UPPERCASE (`LOSS = @BC()`), parameters belong to a
               registered class (`BC.label_smoothing = 0.1`)
    overrides  `NAME=VALUE`, for a macro or a `Class.parameter`

It is checked as a whole before anything is built. Misspelt, undefined, missing
(`%gin.REQUIRED`) and unused settings are errors, which are reported together.

A setting in a file may be unused if a later line has superseded it: after
`LOSS = @BC()` in one file and `LOSS = @Gold()` in a later one, the first file's
`BC.label_smoothing` is superseded. Overrides must all be used.
"""

import ast
from collections.abc import Iterator, Sequence
import pathlib
import re
import tokenize
from typing import Any, TypeVar

import gin
from gin import config as gin_config
from gin import config_parser

from rest_jax.config import settings_tree, value_types

_T = TypeVar('_T')

ConfigError = settings_tree.ConfigError

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_COMMAND_LINE = 'command line'
_FLAG = re.compile(r'--?gin\.')
# First characters of values in gin notation; other values are text.
_NOTATION = tuple('@%\'"([{')
_SPELLINGS = {'true': 'True', 'false': 'False', 'none': 'None', 'null': 'None'}

_CLASSES: dict[str, type] = {}


def register(*classes: type) -> None:
  """Registers frozen dataclasses for gin files, each by its bare name.

  Raises:
    ConfigError: if a class is not a frozen dataclass, or its name is taken.
  """
  for cls in classes:
    options = getattr(cls, '__dataclass_params__', None)
    if options is None or not options.frozen:
      raise ConfigError(
        f'{cls.__module__}.{cls.__qualname__} must be a frozen dataclass to be '
        'registered; decorate it with @dataclasses.dataclass(frozen=True).'
      )
    known = _CLASSES.get(cls.__name__, cls)
    if known is not cls:
      raise ConfigError(
        f'two classes are named {cls.__name__}, in {known.__module__} and in '
        f'{cls.__module__}; gin files cannot distinguish them. Rename one.'
      )
    if cls.__name__ not in _CLASSES:
      gin.external_configurable(cls, name=cls.__name__, module='rest_jax')
      _CLASSES[cls.__name__] = cls


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Splits the `--gin.NAME=VALUE` flags from a command line.

  Args:
    argv: command line, including the program name.

  Returns:
    The remaining command line, and the overrides, `NAME=VALUE` each.

  Raises:
    ConfigError: if one of these flags has no name or no value.
  """
  rest: list[str] = []
  overrides: list[str] = []
  for index, argument in enumerate(argv):
    if argument == '--':
      rest.extend(argv[index:])
      break
    flag = _FLAG.match(argument)
    if flag is None:
      rest.append(argument)
    else:
      overrides.append(argument[flag.end() :])
      _split_override(overrides[-1])
  return rest, overrides


def parse_and_build(
  files: Sequence[str], overrides: Sequence[str] = (), *, root: type[_T]
) -> _T:
  """Reads a configuration and builds the tree of objects it describes.

  Args:
    files: gin files, composed left to right. They and their includes are
      searched in the current folder, then in the parent of the package's
      `gin_configs`, then beside the including file.
    overrides: `NAME=VALUE` each, applied after the files. A bare word or path
      is text.
    root: class at the root of the tree.

  Raises:
    ConfigError: if a setting is misspelt, undefined, missing or unused. Errors
      of the classes themselves are not changed.
  """
  register(root)
  gin.clear_config()
  reader = _Reader()
  for file in files:
    reader.read_file(file)
  for override in overrides:
    reader.read_override(override)
  _raise_all(reader.problems)
  tree = settings_tree.Tree(_CLASSES, reader.settings)
  _raise_all(tree.problems(root.__name__))
  for key, history in reader.settings.items():
    gin.bind_parameter(key, history[-1].value)
  try:
    built = gin.get_configurable(root)()
  except (TypeError, AttributeError, ArithmeticError, ValueError) as error:
    for name, problem in tree.single_values.items():
      if f"configurable '{name}'" in str(error):  # Added by gin.
        raise ConfigError(problem) from error
    if isinstance(error, ValueError):
      raise
    # The annotation allows a value that the class does not.
    raise ConfigError(
      f'a setting has a value of the wrong kind: {error}'
    ) from error
  _raise_all(list(dict.fromkeys(value_types.problems(built))))
  return built


def config_text() -> str:
  """Returns all settings of the last configuration, as a gin file."""
  return gin.config_str()


def operative_config_text() -> str:
  """Returns the gin file that builds the last tree, including defaults."""
  return gin.operative_config_str()


class _Delegate(gin_config.ParserDelegate):
  """Collects invalid references that gin would report late, or not at all."""

  def __init__(self):
    super().__init__()
    self.problems: list[str] = []

  def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
    name = scoped_selector.rsplit('/', 1)[-1]
    if name not in _CLASSES:
      self.problems.append(_unknown_class(name))
      return None
    if not evaluate:
      self.problems.append(
        f'@{scoped_selector} is the class; write @{scoped_selector}() for an '
        'instance.'
      )
    return super().configurable_reference(scoped_selector, evaluate)


class _Reader:
  """Collects all settings by key, each with its earlier values."""

  def __init__(self):
    self.settings: dict[settings_tree.Key, list[settings_tree.Setting]] = {}
    self.problems: list[str] = []

  def read_file(
    self, name: str, including: tuple[pathlib.Path, ...] = ()
  ) -> None:
    """Adds the settings of a file and of those it includes, in order."""
    path = _find_file(name, including)
    if path.resolve() in [other.resolve() for other in including]:
      chain = ' includes '.join(map(str, [*including, path]))
      raise ConfigError(f'gin files include each other: {chain}.')
    with open(path, encoding='utf-8') as opened:
      for statement in self._parse(opened, str(path)):
        line = statement.location.line_num
        if isinstance(statement, config_parser.IncludeStatement):
          self.read_file(statement.filename, (*including, path))
        elif isinstance(statement, config_parser.ImportStatement):
          _import_module(statement, f'{path}:{line}')
        elif isinstance(statement, config_parser.BindingStatement):
          self._add(statement, str(path), line)

  def read_override(self, override: str) -> None:
    """Adds one override `NAME=VALUE`."""
    name, value = _split_override(override)
    text = f'{name} = {_quoted(name, value)}'
    statements = list(self._parse(text, f'--gin.{override}'))
    if len(statements) != 1:
      raise ConfigError(f'--gin.{override}: must have exactly one value.')
    self._add(statements[0], _COMMAND_LINE, 0)

  def _parse(self, source: Any, name: str) -> Iterator[Any]:
    """Yields the gin statements of a file or an override."""
    delegate = _Delegate()
    is_file = not isinstance(source, str)
    try:
      for statement in config_parser.ConfigParser(source, delegate):
        place = f'{name}:{statement.location.line_num}' if is_file else name
        self.problems += [f'{place}: {each}' for each in delegate.problems]
        delegate.problems.clear()
        yield statement
    except SyntaxError as error:
      place = f'{name}:{error.lineno}' if is_file and error.lineno else name
      raise ConfigError(
        f'{place}: {(error.text or "").strip()}\n  cannot be read: {error.msg}'
        ' Write text in quotes, a macro as %NAME, an object as @Class().'
      ) from error
    except tokenize.TokenError as error:
      raise ConfigError(
        f'{name}: a bracket or quote is not closed ({error.args[0]}).'
      ) from error
    except UnicodeDecodeError as error:
      raise ConfigError(f'{name} is not valid UTF-8: {error}.') from error

  def _add(
    self, statement: config_parser.BindingStatement, file: str, line: int
  ) -> None:
    scope, selector, parameter = statement[:3]
    if parameter:
      key = (scope, selector, parameter)
      problem = _class_problem(selector, parameter)
    else:
      key = settings_tree.macro_key(
        f'{scope}/{selector}' if scope else selector
      )
      problem = self._macro_problem(selector)
    setting = settings_tree.Setting(
      key=key,
      value=statement.value,
      references=tuple(_references(statement.value)),
      outline=_outline(statement.value),
      file=file,
      line=line,
    )
    history = self.settings.setdefault(key, [])
    twice = [
      old.line for old in history if old.file == file and old.line != line
    ]
    if not problem and twice:
      name = settings_tree.key_name(key)
      problem = (
        f'{name} is already set in line {twice[-1]} of this file. Remove one.'
      )
    if problem:
      self.problems.append(f'{setting.place}: {problem}')
    history.append(setting)

  def _macro_problem(self, name: str) -> str | None:
    if name == name.upper():
      return None
    known = [settings_tree.key_name(key) for key in self.settings]
    for cls in _CLASSES.values():
      known += [
        f'{cls.__name__}.{key}' for key in settings_tree.parameters(cls)
      ]
    return (
      f'{name} is neither a macro (UPPERCASE) nor a Class.parameter.'
      f'{settings_tree.nearest(name, known)}'
    )


def _class_problem(name: str, parameter: str) -> str | None:
  if name not in _CLASSES:
    return _unknown_class(name)
  known = list(settings_tree.parameters(_CLASSES[name]))
  if parameter in known:
    return None
  return (
    f'{name} has no parameter {parameter}.'
    f'{settings_tree.nearest(parameter, known)} It has: {", ".join(known)}.'
  )


def _unknown_class(name: str) -> str:
  near = settings_tree.nearest(name.rsplit('.', 1)[-1], _CLASSES)
  return f'no class is named {name}.{near}'


def _references(value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
  """Yields (scopes, class) of each reference in a value."""
  for reference in gin_config.iterate_references(value):
    *scopes, name = reference.scoped_selector.split('/')
    yield tuple(scopes), name


def _outline(value: Any) -> Any:
  """Replaces gin references in a value by `settings_tree.Reference`."""
  if isinstance(value, gin_config.ConfigurableReference):
    *scopes, name = value.scoped_selector.split('/')
    return settings_tree.Reference(tuple(scopes), name)
  if isinstance(value, list | tuple):
    return type(value)(map(_outline, value))
  return value


def _find_file(name: str, including: tuple[pathlib.Path, ...]) -> pathlib.Path:
  """Returns the path of a gin file in the first folder that has it."""
  installed = (_PACKAGE / 'gin_configs').is_dir()
  folders = [pathlib.Path(), _PACKAGE if installed else _PACKAGE.parent]
  if including:
    folders.append(including[-1].parent)
  for folder in folders:
    if (folder / name).is_file():
      return folder / name
  known = {
    path.relative_to(folder).as_posix()
    for folder in folders
    for path in (folder / 'gin_configs').rglob('*.gin')
  }
  place = f'{including[-1]}: ' if including else ''
  where = ', '.join(dict.fromkeys(str(folder.resolve()) for folder in folders))
  near = settings_tree.nearest(name, sorted(known), by_last_part=False)
  raise ConfigError(f'{place}no gin file {name} in {where}.{near}')


def _import_module(
  statement: config_parser.ImportStatement, place: str
) -> None:
  """Imports a module for the classes that it registers."""
  if statement.module.startswith('__gin__'):
    raise ConfigError(
      f'{place}: dynamic registration is not supported; call '
      'rest_jax.config.gin_files.register in a module and import it.'
    )
  try:
    gin.parse_config(statement.format())
  except ImportError as error:
    raise ConfigError(f'{place}: cannot import: {error}') from error


def _split_override(override: str) -> tuple[str, str]:
  name, _, value = (part.strip() for part in override.partition('='))
  if not name or not value:
    raise ConfigError(
      f'--gin.{override}: must have a name and a value, as in '
      "--gin.NAME=VALUE; write empty text as ''."
    )
  try:
    override.encode()
  except UnicodeEncodeError as error:  # It has bytes that were not decoded.
    raise ConfigError(
      f'--gin.{override!a}: must be text in UTF-8. Rename the file that it '
      'names, or set PYTHONUTF8=1 if the locale has another encoding.'
    ) from error
  return name, value


def _quoted(name: str, value: str) -> str:
  """Returns a value in gin notation; bare words and paths become text."""
  if value.startswith(_NOTATION):
    return value
  if value not in _SPELLINGS.values() and value.lower() in _SPELLINGS:
    right = _SPELLINGS[value.lower()]
    raise ConfigError(
      f'--gin.{name}={value}: write {right}, or quote the text.'
    )
  try:
    literal = ast.literal_eval(value)
  except (SyntaxError, ValueError):
    return repr(value)
  if isinstance(literal, tuple):
    raise ConfigError(f'--gin.{name}={value}: write a tuple as ({value}).')
  return value


def _raise_all(problems: Sequence[str]) -> None:
  if len(problems) == 1:
    raise ConfigError(problems[0])
  if problems:
    listed = '\n'.join(f'- {problem}' for problem in problems)
    raise ConfigError(f'{len(problems)} problems:\n{listed}')
