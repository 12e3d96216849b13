"""One writer to a folder, or several workers that share it."""

from collections.abc import Iterator
import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
from typing import TextIO

LOCK_FILE = '.lock'


class LockedError(ValueError):
  """Another process writes to the folder."""


@contextlib.contextmanager
def held(
  directory: str | os.PathLike[str], worker: int | None = None
) -> Iterator[None]:
  """Keeps a folder for this process until the block ends.

  The operating system gives the lock back when its owner dies, however that
  happens, so that there are no stale locks.

  Args:
    directory: the folder; made where missing.
    worker: number of a worker that shares the folder with others, but with no
      other of this number; None for one that has it alone.

  Raises:
    LockedError: another process has it; the message says which and since when.
  """
  path = pathlib.Path(directory) / LOCK_FILE
  path.parent.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    if worker is not None:
      opened = stack.enter_context(open(path, 'a+', encoding='utf-8'))
      _lock(opened, path, fcntl.LOCK_SH)
      path = path.with_name(f'{LOCK_FILE}_worker_{worker}')
    stack.enter_context(_alone(path))
    yield


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
  """Keeps a file for this process, whose name is in it meanwhile."""
  with open(path, 'a+', encoding='utf-8') as opened:
    _lock(opened, path, fcntl.LOCK_EX)
    opened.truncate(0)
    json.dump(
      {
        'process': os.getpid(),
        'host': socket.gethostname(),
        'since': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
      },
      opened,
    )
    opened.flush()
    try:
      yield
    finally:
      opened.truncate(0)


def _lock(opened: TextIO, path: pathlib.Path, kind: int) -> None:
  try:
    fcntl.flock(opened, kind | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise LockedError(
      f'{path.parent} is being written to by {_owner(path)}. Wait for it, stop '
      'it, or choose another --model_dir.'
    ) from error


def _owner(path: pathlib.Path) -> str:
  """Who says to have the lock; it may be about to write that."""
  try:
    owner = json.loads(path.read_text(encoding='utf-8'))
    return (
      f'process {owner["process"]} on {owner["host"]}, since {owner["since"]}'
    )
  except (ValueError, KeyError, TypeError):
    return 'another process, or by workers of a Grow step'
