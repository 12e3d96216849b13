"""Compiled programs, kept for all runs of a user.

They lie in `$JAX_COMPILATION_CACHE_DIR`, or in the user's cache. Those in a bucket
and in the user's cache have a folder for each kind of processor: a program that
was compiled for another one may crash.
"""

from collections.abc import Callable
import functools
import glob
import hashlib
import os
import pathlib
import platform
import re
from typing import Any
import warnings

from absl import logging
from etils import epath
import jax

# The oldest programs beyond it are removed when a run begins.
MAX_BYTES = 4 * 2**30
VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
_CPU = pathlib.Path('/proc/cpuinfo')
_DAMAGED = re.compile(
  "Error reading persistent compilation cache entry for '([^']+)'"
)


def user_folder() -> pathlib.Path:
  """Returns where the compiled programs of this user lie."""
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(cache) / 'rest_jax' / 'programs' / _processor()


def share(folder: epath.PathLike) -> None:
  """Has JAX read and keep compiled programs in a folder of a bucket."""
  jax.config.update('jax_compilation_cache_dir', f'{folder}/{_processor()}')


def keep(fallback: pathlib.Path) -> None:
  """Has JAX read and keep compiled programs.

  Args:
    fallback: a folder that can be written to, where the user's can not.
  """
  given = os.environ.get(VARIABLE)
  if not given:
    folder = user_folder()
    try:
      folder.mkdir(parents=True, exist_ok=True)
      prune(folder, MAX_BYTES)
      usable = os.access(folder, os.W_OK)
    except OSError as error:
      logging.info('compiled programs cannot lie in %s: %s', folder, error)
      usable = False
    folder = folder if usable else fallback.absolute()
    jax.config.update('jax_compilation_cache_dir', str(folder))
  if not (
    os.environ.get('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS')
    or '://' in (given or '')
  ):
    # A run has hundreds of small ones. To request one from a bucket may take as
    # long as to compile it (not measured).
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  warnings.showwarning = functools.partial(_show, warnings.showwarning)


def prune(folder: pathlib.Path, max_bytes: int) -> None:
  """Removes the programs that were written first beyond a number of bytes."""
  found = []
  for path in folder.glob('*-cache'):
    try:
      found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    except FileNotFoundError:  # Another run removed it.
      continue
  size = 0
  for _, own_size, path in sorted(found, reverse=True):
    size += own_size
    if size > max_bytes:
      path.unlink(missing_ok=True)


def forget_damaged(message: str) -> bool:
  """Removes a program that JAX could not read; returns whether there was one.

  JAX compiles it again, but leaves the file as it is.

  Args:
    message: JAX's warning.
  """
  match = _DAMAGED.match(message)
  folder = jax.config.values['jax_compilation_cache_dir']
  if match is None or folder is None:
    return False
  try:
    for path in epath.Path(folder).glob(f'{glob.escape(match[1])}-*-cache'):
      path.unlink(missing_ok=True)
  except Exception as error:  # The run can do without.
    logging.warning('%s cannot be removed: %s', match[1], error)
  logging.warning(
    '%s was damaged where it was cached: compiled again', match[1]
  )
  return True


def _show(show: Callable, message: Any, *rest, **more):
  if not forget_damaged(str(message)):
    show(message, *rest, **more)


def _processor() -> str:
  """Returns a name that processors with the same instructions share."""
  try:
    lines = _CPU.read_text(encoding='utf-8').splitlines()
    flags = next(
      line for line in lines if line.startswith(('flags', 'Features'))
    )
  except (OSError, StopIteration):
    flags = platform.processor()
  digest = hashlib.sha256(' '.join(sorted(flags.split())).encode())
  return f'{platform.machine() or "cpu"}-{digest.hexdigest()[:8]}'
