"""What is to be run, wherever that is."""

from collections.abc import Sequence
import dataclasses
import pathlib
import re

from rest_jax.launch import commands

PACKAGE = pathlib.Path(__file__).resolve().parents[1]

_EXTRAS = re.compile(r'[a-z0-9_]+(,[a-z0-9_]+)*')
_VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """The arguments of rest_jax.main, and variables of its environment.

  Attributes:
    model_dir: the folder of the run.
    gin_files: they compose left to right.
    run_mode: one of rest_jax.main's.
    overrides: `NAME=VALUE`, as gin_files.split_flags gives them.
    arguments: any others, as they are.
    environment: names and values.
    extras: of setup.py, for the environment that is made elsewhere.
  """

  model_dir: str
  gin_files: tuple[str, ...]
  run_mode: str = 'rest'
  overrides: tuple[str, ...] = ()
  arguments: tuple[str, ...] = ()
  environment: dict[str, str] = dataclasses.field(default_factory=dict)
  extras: str = 'tpu'

  def __post_init__(self):
    if not self.model_dir:
      raise commands.LaunchError('--model_dir must name the folder of the run.')
    if not self.gin_files:
      raise commands.LaunchError(
        '--gin_file must name an experiment; see gin_configs/.'
      )
    if not _EXTRAS.fullmatch(self.extras):
      raise commands.LaunchError(
        f'--extras={self.extras} must be names with commas between them, such '
        'as tpu,iwslt.'
      )

  def program(self, python: str, *added: str) -> tuple[str, ...]:
    """Returns the program with its arguments.

    Args:
      python: the interpreter.
      *added: flags that the target adds.
    """
    return (
      python,
      '-m',
      'rest_jax.main',
      f'--run_mode={self.run_mode}',
      f'--model_dir={self.model_dir}',
      *(f'--gin_file={file}' for file in self.gin_files),
      *(f'--gin.{override}' for override in self.overrides),
      *added,
      *self.arguments,
    )

  def check_remote(self) -> None:
    """Raises LaunchError if the job cannot run on other machines."""
    if not self.model_dir.startswith(('/', 'gs://')):
      raise commands.LaunchError(
        f'--model_dir={self.model_dir} must be an address gs://bucket/folder, '
        'or an absolute path of a file system that all workers share and that '
        'outlives them; see launch/README.md.'
      )
    self.own_gin_files()

  def own_gin_files(self) -> tuple[str, ...]:
    """Returns the gin files that are copied beside those of the package.

    Raises:
      LaunchError: if one is not below the folder that files are copied from.
    """
    own = []
    root = files_root()
    for name in self.gin_files:
      found = [
        folder / name
        for folder in (pathlib.Path(), root)
        if (folder / name).is_file()
      ]
      if not found and (PACKAGE / name).is_file():
        continue  # Of the installed package.
      if not found or not found[0].resolve().is_relative_to(root):
        raise commands.LaunchError(
          f'--gin_file={name} must be a file in {root}, which is copied to the '
          'workers. Put it there.'
        )
      path = found[0].resolve().relative_to(root).as_posix()
      if path != name:
        raise commands.LaunchError(
          f'--gin_file={name} must be given from {root}, as {path}: that is '
          'where the workers look.'
        )
      if not (is_checkout() and path.startswith('gin_configs/')):
        own.append(path)
    return tuple(own)


def is_checkout() -> bool:
  """Whether the package is that of a checkout, not an installed one."""
  return (PACKAGE.parent / 'setup.py').is_file()


def files_root() -> pathlib.Path:
  """Returns where gin files of users lie: in the checkout, or in this folder."""
  return PACKAGE.parent if is_checkout() else pathlib.Path.cwd()


def environment(settings: Sequence[str]) -> dict[str, str]:
  """Returns the variables that `NAME=VALUE` settings give.

  Raises:
    LaunchError: if one has no name, or no `=`.
  """
  variables = {}
  for setting in settings:
    name, equals, value = setting.partition('=')
    if not equals or not _VARIABLE.fullmatch(name):
      raise commands.LaunchError(
        f'--env={setting} must be NAME=VALUE, where NAME is of letters, digits '
        'and _.'
      )
    variables[name] = value
  return variables
