"""Commands as lists of arguments: as text for a shell, or executed."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys

# How to install an executable that is not on the PATH.
_INSTALL = {
  'gcloud': (
    'install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install, '
    'then `gcloud init`'
  ),
  'xpk': 'install it with `pip install xpk`; it also needs gcloud and kubectl',
}


class LaunchError(ValueError):
  """A wrong flag or a failed command, which stops the launcher."""


class CommandFailed(LaunchError):
  """A command exited with a status other than 0, or exceeded its time limit."""


@dataclasses.dataclass(frozen=True)
class Command:
  """A program with its arguments.

  Attributes:
    argv: the program and its arguments, without shell quoting.
    environment: environment variables, added to those of the launcher.
  """

  argv: tuple[str, ...]
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def text(self) -> str:
    """Returns the equivalent command line for a POSIX shell."""
    return with_environment(self.argv, self.environment)

  def full_environment(self) -> dict[str, str]:
    """Returns all environment variables of the program."""
    return {**os.environ, **self.environment}


def with_environment(
  argv: Sequence[str], environment: Mapping[str, str]
) -> str:
  """Returns a shell command line that sets variables and runs `argv`."""
  if not environment:
    return shlex.join(argv)
  settings = [f'{name}={value}' for name, value in environment.items()]
  return shlex.join(['env', *settings, *argv])


def say(text: str) -> None:
  """Prints a message of the launcher to stderr."""
  print(f'launch: {text}', file=sys.stderr, flush=True)


def require(program: str) -> None:
  """Raises LaunchError if a program is not on the PATH."""
  if shutil.which(program) is None:
    how = _INSTALL.get(program, 'install it')
    raise LaunchError(f'{program} is not on the PATH: {how}.')


def run(command: Command, timeout: float | None = None) -> None:
  """Runs a command; its output goes to the terminal.

  Args:
    timeout: time limit, in seconds; None for no limit.

  Raises:
    CommandFailed: if the exit status is not 0, or the time limit is exceeded.
  """
  done = _complete(command, timeout)
  if done.returncode:
    raise CommandFailed(
      f'ended with status {done.returncode}: {command.text()}'
    )


def output(command: Command, timeout: float) -> tuple[int, str, str]:
  """Runs a command; returns its exit status, stdout and stderr.

  Raises:
    CommandFailed: if it takes longer than `timeout` seconds.
  """
  done = _complete(command, timeout, captured=True)
  return done.returncode, done.stdout, done.stderr


def _complete(
  command: Command, timeout: float | None, *, captured: bool = False
) -> subprocess.CompletedProcess[str]:
  """Runs a command with empty stdin, whatever its exit status."""
  require(command.argv[0])
  try:
    return subprocess.run(
      command.argv,
      env=command.full_environment(),
      stdin=subprocess.DEVNULL,
      timeout=timeout,
      capture_output=captured,
      text=captured,
    )
  except subprocess.TimeoutExpired as error:
    raise CommandFailed(
      f'took longer than --command_timeout={timeout:g} s: {command.text()}'
    ) from error
