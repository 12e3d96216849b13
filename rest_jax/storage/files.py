"""Atomic files and folders, JSON with checksums, and disk errors.

Files may be in a bucket: they are written locally, and appear there at once.
"""

from collections.abc import Iterator
import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
from typing import Any

from rest_jax.storage import cache, paths

# Meaning of `errno` values when writing a file.
_REASONS = {
  errno.ENOSPC: 'its disk is full',
  errno.EDQUOT: 'the quota of its disk is used up',
  errno.EFBIG: 'it is larger than a file may be there',
  errno.EROFS: 'its disk is read-only',
}
# The last member of a sealed file: the SHA-256 of the file without these digits.
_SEAL = 'seal'
# The ending of files that are mapped into memory.
MAPPED = '.arrow'
_SEALED = re.compile(rb'"seal": "([0-9a-f]{64})"\n}\n\Z')


class DiskError(OSError):
  """A file cannot be written; the message says which, why and what to do."""

  def __str__(self) -> str:
    return self.strerror or ''


@contextlib.contextmanager
def explained(
  path: str | os.PathLike[str], num_bytes: int | None = None
) -> Iterator[None]:
  """Raises `DiskError`, which names `path`, for a full or read-only disk.

  Args:
    path: the file being written.
    num_bytes: its size, if known.

  Raises:
    DiskError: instead of the operating system's error.
  """
  try:
    yield
  except OSError as error:
    if not _is_to_be_explained(error):
      raise
    raise disk_error(path, error.errno or 0, num_bytes) from error


def _is_to_be_explained(error: OSError) -> bool:
  return is_of_disk(error) and not isinstance(error, DiskError)


def is_of_disk(error: OSError) -> bool:
  """Returns whether an error means a full, read-only or limited disk."""
  return error.errno in _REASONS


def disk_error(
  path: str | os.PathLike[str], number: int, num_bytes: int | None = None
) -> DiskError:
  """Returns the error for an `errno`; see `explained`."""
  need = '' if num_bytes is None else f' It needs {num_bytes:,} bytes or more.'
  with contextlib.suppress(OSError, StopIteration):
    folder = next(
      p for p in pathlib.Path(path).absolute().parents if p.exists()
    )
    need += f' {shutil.disk_usage(folder).free:,} bytes are free there.'
  return DiskError(
    number,
    f'{path} cannot be written: {_REASONS[number]}.{need} Make room, or choose '
    'another folder, and run the same command again: what is complete stays.',
  )


def refusal(path: str | os.PathLike[str], error: OSError) -> str:
  """Returns a message for a path that the operating system refuses.

  Args:
    path: the path to read or write.
    error: the error, such as a `PermissionError`.
  """
  path = pathlib.Path(path).absolute()
  place = path
  while not os.path.lexists(place) and place != place.parent:
    place = place.parent
  with contextlib.suppress(OSError):
    status = place.stat()
    kind = 'folder' if place.is_dir() else 'file'
    return (
      f'{path} cannot be opened: {error.strerror or error}. The {kind} {place} '
      f'belongs to user {status.st_uid} and has mode {status.st_mode & 0o7777:o}; '
      f'this program runs as user {os.geteuid()}. Change its owner or mode, or '
      'choose another path.'
    )
  return f'{path} cannot be opened: {error.strerror or error}.'


@contextlib.contextmanager
def atomic_write(
  path: str | os.PathLike[str], num_bytes: int | None = None
) -> Iterator[pathlib.Path]:
  """Yields a temporary path that becomes `path` when the block succeeds.

  The temporary file is in the same folder, so the final rename is atomic; it is
  flushed to disk before. It is removed if the block raises. A file of a bucket
  is uploaded instead, and appears when it is whole.

  Args:
    path: the final path; its folder is created if missing.
    num_bytes: size of the file, if known, for the error of a full disk.

  Yields:
    The path to write to.

  Raises:
    DiskError: the disk is full or read-only.
    TakenOverError: another program has taken over the bucket's folder.
  """
  path = paths.of(path)
  if paths.is_remote(path):
    with cache.scratch() as folder:
      temporary = folder / path.name
      with explained(temporary, num_bytes):
        yield temporary
      publish(temporary, path)
    return
  # Processes on two hosts may have the same number.
  owner = f'{socket.gethostname()}.{os.getpid()}'
  temporary = path.with_name(f'.{path.name}.{owner}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    with open(temporary, 'rb+') as written:
      os.fsync(written.fileno())
    os.replace(temporary, path)
  except BaseException as error:
    size = None
    with contextlib.suppress(OSError):
      size = temporary.stat().st_size
      temporary.unlink()
    if isinstance(error, OSError) and _is_to_be_explained(error):
      raise disk_error(path, error.errno or 0, num_bytes or size) from error
    raise


def publish(temporary: pathlib.Path, path: paths.PathLike) -> None:
  """Uploads a local file to a bucket, unless another program has taken over.

  Args:
    temporary: the local file, which is read again from `cache` if it will be
      mapped.
    path: the object.
  """
  paths.upload(temporary, path)
  if temporary.suffix == MAPPED:
    cache.keep(path, temporary)


@contextlib.contextmanager
def atomic_folder(
  path: str | os.PathLike[str], *, overwrite: bool = False
) -> Iterator[pathlib.Path]:
  """Yields a temporary folder that becomes `path` when the block succeeds.

  It is in the same parent folder, and is removed if the block raises.

  Args:
    path: the final path; see `check_new_folder`.
    overwrite: replace an existing folder.

  Yields:
    The folder to write to.

  Raises:
    ValueError: the target is in use.
    DiskError: the disk is full or read-only.
  """
  path = pathlib.Path(path).resolve()
  if not overwrite:
    check_new_folder('the target', path)
  owner = f'{socket.gethostname()}.{os.getpid()}'
  temporary = path.with_name(f'.{path.name}.{owner}.tmp')
  removed = path.with_name(f'.{path.name}.{owner}.removed')
  try:
    with explained(path):
      temporary.mkdir(parents=True)
      yield temporary
      if overwrite and path.exists():
        path.rename(removed)
      temporary.rename(path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  shutil.rmtree(removed, ignore_errors=True)


def check_new_folder(name: str, path: str | os.PathLike[str]) -> None:
  """Raises ValueError unless a path is free or an empty folder.

  Args:
    name: name of the argument, for the error.
    path: the folder to write.
  """
  path = paths.of(path)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise ValueError(
      f'{name} must be a new or an empty folder; {path} is in use. Name another, '
      'or remove it.'
    )


def write_json(
  path: str | os.PathLike[str], content: Any, *, sealed: bool = False
) -> None:
  """Writes JSON atomically; NaN and infinities are refused (ValueError).

  Args:
    path: the file to write.
    content: JSON values.
    sealed: append a checksum of the file to an object; `read_json` checks and
      removes it.
  """
  if sealed:
    content = {**content, _SEAL: ''}
  text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
  written = f'{text}\n'.encode()
  if sealed:
    place = len(written) - len(b'"\n}\n')
    digest = hashlib.sha256(written).hexdigest().encode()
    written = written[:place] + digest + written[place:]
  with atomic_write(path, len(written)) as temporary:
    temporary.write_bytes(written)


def read_json(
  path: str | os.PathLike[str], *, must_be_sealed: bool = False
) -> Any:
  """Reads a JSON file.

  Args:
    path: the file.
    must_be_sealed: refuse a file without a checksum.

  Raises:
    ValueError: the file is not JSON, or differs from its checksum; the message
      names the path.
  """
  stored = paths.of(path).read_bytes()
  remedy = (
    'it was damaged or edited. Restore it, or remove it and run again what '
    'writes it; of a manifest.json, remove the whole folder.'
  )
  try:
    content = json.loads(stored.decode())
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(f'{path} is not valid JSON ({error}); {remedy}') from error
  is_sealed = isinstance(content, dict) and _SEAL in content
  if not is_sealed:
    if must_be_sealed:
      raise ValueError(
        f'{path} must end with a checksum of itself, by which it can be '
        'verified; it has none. It was damaged, edited, or written by an '
        'earlier version.'
      )
    return content
  found = _SEALED.search(stored)
  if found is None or found[1] != _digest_without(stored, *found.span(1)):
    raise ValueError(f'{path} does not have its checksum; {remedy}')
  del content[_SEAL]
  return content


def _digest_without(stored: bytes, start: int, stop: int) -> bytes:
  rest = stored[:start] + stored[stop:]
  return hashlib.sha256(rest).hexdigest().encode()


def check_local(name: str, path: str | os.PathLike[str]) -> None:
  """Raises ValueError for a path such as gs://bucket/folder."""
  if paths.is_address(path):
    raise ValueError(
      f'{name} must be a file of this machine; got {path}. Copy it from the '
      'bucket. Only --model_dir and folders of finished stages may be addresses.'
    )


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns the SHA-256 of a file's bytes, in hexadecimal."""
  with paths.of(path).open('rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()  # pyright: ignore
