"""Locks of a folder: for one writer, or for several workers that share it."""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
from typing import TextIO

from rest_jax.storage import files, lease, paths

LOCK_FILE = '.lock'

LockedError = lease.LockedError


@contextlib.contextmanager
def held(
  directory: str | os.PathLike[str], worker: int | None = None
) -> Iterator[None]:
  """Locks a folder for this process until the block ends.

  The operating system releases the lock of a local folder whenever its owner
  dies, so there are no stale locks. For a folder in a bucket see `lease`.

  Args:
    directory: the folder; created if missing.
    worker: number of a worker that shares the folder with workers of other
      numbers; None for exclusive use.

  Raises:
    LockedError: another process has the lock; the message says which and since
      when.
    DiskError: the disk is full or read-only.
    ValueError: the folder cannot be created or written.
  """
  if paths.is_remote(directory):
    with lease.held(directory, worker):
      yield
    return
  path = pathlib.Path(directory) / LOCK_FILE
  with contextlib.ExitStack() as stack:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      if worker is not None:
        opened = stack.enter_context(open(path, 'a+', encoding='utf-8'))
        _lock(opened, path, fcntl.LOCK_SH)
        path = path.with_name(f'{LOCK_FILE}_worker_{worker}')
      stack.enter_context(_alone(path))
    except OSError as error:
      raise _explained(path.parent, error) from error
    yield


def _explained(directory: pathlib.Path, error: OSError) -> Exception:
  """Returns the error for a folder that cannot be created or written."""
  if files.is_of_disk(error):
    return files.disk_error(directory, error.errno or 0)
  for path in (directory, *directory.parents):
    if path.exists() and not path.is_dir():
      return ValueError(
        f'{directory} must be a folder, or a path where one can be made; {path} '
        'is a file. Choose another --model_dir.'
      )
  return ValueError(
    f'the folder of the run cannot be written to: '
    f'{files.refusal(error.filename or directory, error)}'
  )


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
  """Locks a file for this process and writes the process's name to it."""
  with open(path, 'a+', encoding='utf-8') as opened:
    _lock(opened, path, fcntl.LOCK_EX)
    opened.truncate(0)
    json.dump(lease.this_process(), opened)
    opened.flush()
    try:
      yield
    finally:
      opened.truncate(0)


def _lock(opened: TextIO, path: pathlib.Path, kind: int) -> None:
  try:
    fcntl.flock(opened, kind | fcntl.LOCK_NB)
  except BlockingIOError as error:
    # Its owner may not have written its name yet.
    owner = lease.in_words(
      path.read_bytes(), 'another process, or by workers of a Grow step'
    )
    raise LockedError(
      f'{path.parent} is being written to by {owner}. Wait for it, stop it, or '
      'choose another --model_dir.'
    ) from error
