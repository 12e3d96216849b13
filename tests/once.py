"""What is made once in a session, for all of xdist's workers."""

from collections.abc import Callable
import fcntl
import os
import pathlib


def made(
  base: pathlib.Path, name: str, make: Callable[[pathlib.Path], None]
) -> pathlib.Path:
  """A folder that is made once in a session.

  Args:
    base: the folder of this worker's temporary files.
    name: of the folder.
    make: makes the folder that it is given. The first worker calls it, and the
      others wait.

  Returns:
    The folder. Do not change it.
  """
  if 'PYTEST_XDIST_WORKER' in os.environ:
    base = base.parent
  mark = base / f'{name}.made'
  with open(base / f'{name}.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not mark.exists():
      make(base / name)
      mark.touch()
  return base / name
