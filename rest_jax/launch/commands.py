"""A command as a list of arguments: written down, or carried out."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys

# What to say about an executable that is not on the PATH.
_INSTALL = {
  'gcloud': 'install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install, then `gcloud init`',
  'xpk': 'install it with `pip install xpk`; it also needs gcloud and kubectl',
}


class LaunchError(ValueError):
  """What stops the launcher: a wrong flag, or a command that failed."""


class CommandFailed(LaunchError):
  """A command did not end with status 0, or not in time."""


@dataclasses.dataclass(frozen=True)
class Command:
  """A program with its arguments.

  Attributes:
    argv: the program and its arguments, each as the program is to see it.
    environment: variables that it has beside those of the launcher.
  """

  argv: tuple[str, ...]
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def text(self) -> str:
    """Returns the line that does the same in a POSIX shell."""
    return with_environment(self.argv, self.environment)

  def full_environment(self) -> dict[str, str]:
    """Returns all variables of the program."""
    return {**os.environ, **self.environment}


def with_environment(
  argv: Sequence[str], environment: Mapping[str, str]
) -> str:
  """Returns a shell's line that runs `argv` with variables set."""
  if not environment:
    return shlex.join(argv)
  settings = [f'{name}={value}' for name, value in environment.items()]
  return shlex.join(['env', *settings, *argv])


def say(text: str) -> None:
  """Tells the user what the launcher does, apart from what programs print."""
  print(f'launch: {text}', file=sys.stderr, flush=True)


def require(program: str) -> None:
  """Raises LaunchError if a program cannot be found."""
  if shutil.which(program) is None:
    how = _INSTALL.get(program, 'install it')
    raise LaunchError(f'{program} is not on the PATH: {how}.')


def run(command: Command, timeout: float | None = None) -> None:
  """Carries a command out; what it prints is seen.

  Args:
    command: the command.
    timeout: seconds after which it is stopped; None for no limit.

  Raises:
    CommandFailed: if it fails or takes too long.
  """
  done = _complete(command, timeout)
  if done.returncode:
    raise CommandFailed(
      f'ended with status {done.returncode}: {command.text()}'
    )


def output(command: Command, timeout: float) -> tuple[int, str, str]:
  """Returns a command's status, output and errors.

  Raises:
    CommandFailed: if it takes longer than `timeout` seconds.
  """
  done = _complete(command, timeout, captured=True)
  return done.returncode, done.stdout, done.stderr


def _complete(
  command: Command, timeout: float | None, *, captured: bool = False
) -> subprocess.CompletedProcess[str]:
  """Waits for a command, which has nothing to read; its status is not judged."""
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
