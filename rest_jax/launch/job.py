"""The job: the command line of `rest-jax run`, for every launch target."""

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
  """The arguments of `rest-jax run`, and its environment variables.

  Attributes:
    gin_files: gin files, composed left to right.
    overrides: gin overrides, `NAME=VALUE` each; see gin_files.split_flags.
    arguments: other arguments, passed on unchanged.
    extras: extras of setup.py to install on the workers, separated by commas.
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
        f'--extras={self.extras} must be names separated by commas, such as '
        'tpu,iwslt.'
      )

  def program(self, python: str, *added: str) -> tuple[str, ...]:
    """Returns the command line of the run.

    Args:
      *added: flags that the launch target adds.
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
    """Returns the gin files to copy besides those of the package.

    Raises:
      LaunchError: if a file is outside `files_root()`, which is what is copied.
    """
    own = []
    root = files_root()
    for name in self.gin_files:
      existing = [
        folder / name
        for folder in (pathlib.Path(), root)
        if (folder / name).is_file()
      ]
      if not existing and (PACKAGE / name).is_file():
        continue  # It belongs to the installed package.
      if not existing or not existing[0].resolve().is_relative_to(root):
        raise commands.LaunchError(
          f'--gin_file={name} must be a file in {root}, which is copied to the '
          'workers. Put it there.'
        )
      path = existing[0].resolve().relative_to(root).as_posix()
      if path != name:
        raise commands.LaunchError(
          f'--gin_file={name} must be relative to {root}: {path}. The workers '
          'look for it there.'
        )
      if not (is_checkout() and path.startswith('gin_configs/')):
        own.append(path)
    return tuple(own)


def is_checkout() -> bool:
  """Returns whether the package is in a checkout, not installed."""
  return (PACKAGE.parent / 'setup.py').is_file()


def files_root() -> pathlib.Path:
  """Returns the folder of the user's gin files: checkout or current folder."""
  return PACKAGE.parent if is_checkout() else pathlib.Path.cwd()


def environment(settings: Sequence[str]) -> dict[str, str]:
  """Parses `NAME=VALUE` settings into environment variables.

  Raises:
    LaunchError: if a setting has no valid name, or no `=`.
  """
  variables = {}
  for setting in settings:
    name, equals, value = setting.partition('=')
    if not equals or not _VARIABLE.fullmatch(name):
      raise commands.LaunchError(
        f'--env={setting} must be NAME=VALUE, with a NAME of letters, digits '
        'and _.'
      )
    variables[name] = value
  return variables
