"""One writer to a folder."""

from collections.abc import Iterator
import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket

LOCK_FILE = '.lock'


class LockedError(ValueError):
  """Another process writes to the folder."""


@contextlib.contextmanager
def held(directory: str | os.PathLike[str]) -> Iterator[None]:
  """Keeps a folder for this process until the block ends.

  The operating system gives the lock back when its owner dies, however that
  happens, so that there are no stale locks.

  Args:
    directory: the folder; made where missing.

  Raises:
    LockedError: another process has it; the message says which and since when.
  """
  path = pathlib.Path(directory) / LOCK_FILE
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'a+', encoding='utf-8') as opened:
    try:
      fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise LockedError(
        f'{directory} is being written to by {_owner(path)}. Wait for it, stop '
        'it, or choose another --model_dir.'
      ) from error
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


def _owner(path: pathlib.Path) -> str:
  """Who says to have the lock; it may be about to write that."""
  try:
    owner = json.loads(path.read_text(encoding='utf-8'))
    return (
      f'process {owner["process"]} on {owner["host"]}, since {owner["since"]}'
    )
  except (ValueError, KeyError, TypeError):
    return 'another process'
