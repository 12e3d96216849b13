"""Local copies of a bucket's objects that are read at random.

A host downloads an object once, whatever process or run needs it, and maps the
copy into memory. A copy is named by the object's address, size and generation,
so an object that is written again has another copy. The copies that were unused
longest are removed beyond a number of bytes; what is mapped stays readable.
"""

import base64
from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import hashlib
import os
import pathlib
import tempfile
from typing import Any

from absl import logging

from rest_jax.storage import paths

_GIGABYTE = 10**9
_VERSIONS = ('generation', 'ETag', 'etag', 'mtime')
_LOCKS = 64

_folder = pathlib.Path(
  os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'),
  'rest_jax',
  'objects',
)
_max_bytes = 50 * _GIGABYTE


def configure(folder: paths.PathLike | None, gigabytes: float) -> None:
  """Sets where copies lie and how many gigabytes of them are kept.

  Args:
    folder: a local folder; None for the user's cache.
    gigabytes: number of 10^9 bytes; copies in use may exceed it.
  """
  global _folder, _max_bytes
  if folder is not None:
    if paths.is_remote(folder):
      raise ValueError(f'--cache_dir must be a local folder; got {folder}.')
    _folder = pathlib.Path(folder)
  _max_bytes = int(gigabytes * _GIGABYTE)


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
  """Yields a temporary folder beside the copies."""
  _folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=_folder, ignore_cleanup_errors=True
  ) as folder:
    yield pathlib.Path(folder)


def local(path: paths.PathLike, sha256: str | None = None) -> pathlib.Path:
  """Returns a local file with the bytes of a file.

  Args:
    path: a file; a local one is returned as it is.
    sha256: checksum that a manifest lists; compared with what is downloaded.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: it does not have the checksum, or arrived incomplete.
  """
  path = paths.of(path)
  if not paths.is_remote(path):
    return path
  filesystem, name = paths.filesystem(path)
  info = filesystem.info(name)
  if info['type'] != 'file':
    raise FileNotFoundError(f'there is no file {path}')
  copy = _copy(path, info)
  if _is_there(copy):
    return copy
  with _alone(copy), scratch() as folder:
    if _is_there(copy):
      return copy
    temporary = folder / copy.name
    filesystem.get_file(name, str(temporary))
    _check(path, temporary, info, sha256)
    _make_room(info['size'])
    os.replace(temporary, copy)
  logging.info('downloaded %s, %s bytes', path, f'{info["size"]:,}')
  return copy


def keep(path: paths.PathLike, written: pathlib.Path) -> None:
  """Takes a local file, from which an object was just written, as its copy."""
  filesystem, name = paths.filesystem(path)
  info = filesystem.info(name)
  copy = _copy(path, info)
  if info['size'] == written.stat().st_size:
    _make_room(info['size'])
    os.replace(written, copy)


def _copy(path: paths.PathLike, info: Mapping[str, Any]) -> pathlib.Path:
  version = next((info[key] for key in _VERSIONS if info.get(key)), '')
  text = f'{os.fspath(path)}\n{info["size"]}\n{version}'
  digest = hashlib.sha256(text.encode()).hexdigest()
  return _folder / f'{digest}{pathlib.PurePath(path).suffix}'


def _is_there(copy: pathlib.Path) -> bool:
  with contextlib.suppress(FileNotFoundError):
    os.utime(copy)
    return True
  return False


@contextlib.contextmanager
def _alone(copy: pathlib.Path) -> Iterator[None]:
  """Lets one process of the host download a copy; there are a few locks."""
  _folder.mkdir(parents=True, exist_ok=True)
  number = int(copy.stem, 16) % _LOCKS
  with open(_folder / f'.lock_{number}', 'a', encoding='utf-8') as opened:
    fcntl.flock(opened, fcntl.LOCK_EX)
    yield


def _check(
  path: pathlib.Path,
  file: pathlib.Path,
  info: Mapping[str, Any],
  sha256: str | None,
) -> None:
  """Raises ValueError unless a download has the object's bytes."""
  size = file.stat().st_size
  with open(file, 'rb') as opened:
    md5 = hashlib.file_digest(opened, 'md5').digest()
    opened.seek(0)
    found = hashlib.file_digest(opened, 'sha256').hexdigest()
  stored = info.get('md5Hash')
  if size != info['size'] or stored not in (
    None,
    base64.b64encode(md5).decode(),
  ):
    raise ValueError(
      f'{path} arrived with {size:,} of {info["size"]:,} bytes, or with another '
      'checksum: it is being written, or the connection is bad. Run the same '
      'command again.'
    )
  if sha256 is not None and found != sha256:
    raise ValueError(
      f'{path} must have the checksum of its manifest, {sha256}; got {found}. '
      'It is damaged: remove it to have it made again.'
    )


def _make_room(num_bytes: int) -> None:
  """Removes the copies that were unused longest, beyond the allowed bytes."""
  found = []
  for copy in _folder.iterdir():
    with contextlib.suppress(FileNotFoundError):
      if copy.is_file() and not copy.name.startswith('.'):
        status = copy.stat()
        found.append((status.st_mtime_ns, status.st_size, copy))
  excess = num_bytes + sum(size for _, size, _ in found) - _max_bytes
  for _, size, copy in sorted(found):
    if excess <= 0:
      return
    copy.unlink(missing_ok=True)
    excess -= size
