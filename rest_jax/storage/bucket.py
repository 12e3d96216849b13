"""Objects below an address such as gs://bucket/run, accessed with pyarrow.

Transient failures are retried; every error names its object. An interrupted
upload may leave a partial object, so names must show that it is not complete
(see `mirror`).
"""

from collections.abc import Callable, Iterable
from concurrent import futures
import contextlib
import hashlib
import os
import pathlib
import threading
import time
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from rest_jax.runtime import progress as progress_lib
from rest_jax.storage import files
from rest_jax.storage import retries as retries_lib

_CHUNK_BYTES = 4 << 20
_THREADS = 8
# Stores whose folders are only parts of names.
_FLAT = ('gcs', 's3', 'abfs')
# Errors that a retry does not solve.
_PERMANENT = (
  FileNotFoundError,
  PermissionError,
  IsADirectoryError,
  NotADirectoryError,
  FileExistsError,
)
# The same; S3 reports these only in words.
_PERMANENT_WORDS = (
  'ACCESS_DENIED',
  'INVALID_ACCESS_KEY_ID',
  'INVALID_CLIENT_TOKEN_ID',
  'NO_SUCH_BUCKET',
  'SIGNATURE_DOES_NOT_MATCH',
  'UNRECOGNIZED_CLIENT',
)

_Result = TypeVar('_Result')


class RemoteError(ValueError):
  """An address or its content is wrong."""


class DamagedObjectError(RemoteError):
  """An object does not have the bytes that were written."""


class _StoppedError(Exception):
  """Another thread has failed, or the program must stop."""


class Bucket:
  """Objects by name below one address; thread-safe."""

  def __init__(
    self,
    filesystem: fs.FileSystem,
    root: str,
    address: str,
    *,
    retries: retries_lib.Retries | None = None,
    num_threads: int = _THREADS,
  ):
    """Stores the arguments; reads nothing.

    Args:
      filesystem: a pyarrow filesystem.
      root: a path in it.
      address: the user's name of that path, such as gs://bucket/run.
      retries: how failures are retried.
      num_threads: number of concurrent uploads or downloads.
    """
    self.address = address
    self._filesystem = filesystem
    self._root = root
    # The stop event of each thread of `each`.
    self._own = threading.local()
    self._retries = retries or retries_lib.Retries(sleep=self._wait)
    self._num_threads = num_threads
    self._has_folders = filesystem.type_name not in _FLAT
    self._made: set[str] = set()

  def name_of(self, name: str) -> str:
    """Returns the address of an object."""
    return f'{self.address}/{name}' if name else self.address

  def sizes(
    self, folder: str = '', *, recursive: bool = False
  ) -> dict[str, int]:
    """Returns the sizes in bytes of a folder's objects, by relative name."""
    path = self._path(folder)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=recursive)
    found = self._try(
      folder, 'listing', lambda: self._filesystem.get_file_info(selector)
    )
    return {
      info.path.removeprefix(path).lstrip('/'): info.size
      for info in found
      if info.type == fs.FileType.File
    }

  def has_others(self, folder: str) -> bool:
    """Returns whether there is anything except one folder."""
    selector = fs.FileSelector(self._root, allow_not_found=True)
    found = self._try(
      '', 'listing', lambda: self._filesystem.get_file_info(selector)
    )
    own = (
      self._path(folder),
      self._root,
    )  # Some stores list a folder as its own member.
    return any(info.path.rstrip('/') not in own for info in found)

  def read(self, name: str) -> bytes:
    """Returns the bytes of an object."""

    def once() -> bytes:
      with self._opened(name) as source:
        return source.read()

    return self._try(name, 'reading', once, may_lack=True)

  def write(self, name: str, content: bytes) -> None:
    """Writes bytes to an object."""

    def once() -> None:
      with self._created(name) as target:
        target.write(content)

    self._try(name, 'writing', once)

  def upload(
    self, path: pathlib.Path, name: str, size: int, sha256: str
  ) -> None:
    """Writes the first `size` bytes of a file to an object.

    Raises:
      RemoteError: the bytes no longer have the checksum `sha256`.
    """

    def once() -> None:
      hashed, left = hashlib.sha256(), size
      with open(path, 'rb') as source, self._created(name) as target:
        while chunk := source.read(min(left, _CHUNK_BYTES)):
          self._go_on()
          hashed.update(chunk)
          target.write(chunk)
          left -= len(chunk)
      if hashed.hexdigest() != sha256:
        self._filesystem.delete_file(self._path(name))
        raise RemoteError(
          f'{path} changed while it was sent to {self.address}: nothing but the '
          'run may write to its folder. Run the same command again.'
        )
      arrived = self._size(name)
      if arrived != size:
        raise OSError(f'{arrived} of {size} bytes arrived')

    self._try(name, 'sending', once)

  def download(
    self, name: str, path: pathlib.Path, size: int, sha256: str
  ) -> None:
    """Downloads an object to a file, atomically.

    Raises:
      FileNotFoundError: the object does not exist.
      DamagedObjectError: it has another size or checksum.
    """

    def once() -> None:
      hashed, num_bytes = hashlib.sha256(), 0
      with files.atomic_write(path, size) as temporary:
        with self._opened(name) as source, open(temporary, 'wb') as target:
          while chunk := source.read(_CHUNK_BYTES):
            self._go_on()
            hashed.update(chunk)
            num_bytes += len(chunk)
            target.write(chunk)
        if (num_bytes, hashed.hexdigest()) != (size, sha256):
          raise DamagedObjectError(
            f'{self.name_of(name)} is damaged: {num_bytes:,} of {size:,} bytes, '
            'or another checksum.'
          )

    self._try(name, 'fetching', once, may_lack=True)

  def move(self, name: str, to: str, size: int) -> None:
    """Renames an object of `size` bytes, replacing another if necessary."""
    is_again = False

    def once() -> None:
      nonlocal is_again
      was_again, is_again = is_again, True
      self._make_parent(to)
      if was_again and self._size(name) is None and self._size(to) == size:
        return  # The previous attempt succeeded although it reported a failure.
      self._filesystem.move(self._path(name), self._path(to))

    self._try(name, f'moving to {to}', once)

  def remove(self, name: str) -> None:
    """Removes an object if it exists."""

    def once() -> None:
      with contextlib.suppress(FileNotFoundError):
        self._filesystem.delete_file(self._path(name))

    self._try(name, 'removing', once)

  def prune(self, folder: str) -> None:
    """Removes an empty folder."""
    selector = fs.FileSelector(self._path(folder), allow_not_found=True)

    def once() -> None:
      if self._filesystem.get_file_info(selector):
        return
      with contextlib.suppress(FileNotFoundError):
        self._filesystem.delete_dir(self._path(folder))
      self._made.discard(self._path(folder))

    self._try(folder, 'removing', once)

  def each(
    self, description: str, do: Callable[..., None], items: Iterable[tuple]
  ) -> None:
    """Calls `do` on each item, several at a time.

    If one call fails, or the program is told to stop, the others stop as soon
    as possible, and the error is raised.
    """
    items = list(items)
    if not items:
      return

    stopped = threading.Event()

    def one(item: tuple) -> None:
      self._own.stopped = stopped
      self._go_on()
      try:
        do(*item)
      except BaseException:
        stopped.set()
        raise

    pool = futures.ThreadPoolExecutor(self._num_threads)
    try:
      running = [pool.submit(one, item) for item in items]
      with progress_lib.Progress(description, len(running), 'file') as progress:
        for done in futures.as_completed(running):
          # What stopped it comes, too.
          with contextlib.suppress(_StoppedError):
            done.result()
            progress.advance(1)
    finally:
      stopped.set()
      pool.shutdown(wait=True, cancel_futures=True)

  def _try(
    self,
    name: str,
    doing: str,
    once: Callable[[], _Result],
    *,
    may_lack: bool = False,
  ) -> _Result:
    """Calls a function on an object; `may_lack` if it need not exist."""

    def unless_stopped() -> _Result:
      self._go_on()
      return once()

    what = f'{self.name_of(name)}: {doing}'
    try:
      return self._retries.call(what, unless_stopped, is_transient)
    except retries_lib.ExhaustedError as error:
      raise RemoteError(
        f'{error}. What is complete stays; run the same command again to go on.'
      ) from error
    except (OSError, pa.ArrowException) as error:
      is_lacking = may_lack and isinstance(error, FileNotFoundError)
      if is_lacking or isinstance(error, files.DiskError):
        raise
      raise RemoteError(
        f'{what} failed ({type(error).__name__}: {error}). Another attempt would '
        'fail as well: see to the address, and to what this account may do '
        'there, and run the same command again.'
      ) from error

  def _size(self, name: str) -> int | None:
    """Returns the size of an object in bytes; None if it does not exist."""
    [info] = self._filesystem.get_file_info([self._path(name)])
    return info.size if info.type == fs.FileType.File else None

  def _go_on(self) -> None:
    stopped = getattr(self._own, 'stopped', None)
    if stopped is not None and stopped.is_set():
      raise _StoppedError

  def _wait(self, seconds: float) -> None:
    """Sleeps; in a thread, at most until the others are stopped."""
    stopped = getattr(self._own, 'stopped', None)
    if stopped is None:
      time.sleep(seconds)
    else:
      stopped.wait(seconds)

  # pyarrow would compress a stream with a name such as x.gz.
  def _opened(self, name: str) -> Any:
    return self._filesystem.open_input_stream(
      self._path(name), compression=None
    )

  def _created(self, name: str) -> Any:
    self._make_parent(name)
    return self._filesystem.open_output_stream(
      self._path(name), compression=None
    )

  def _make_parent(self, name: str) -> None:
    parent = os.path.dirname(self._path(name))
    if self._has_folders and parent not in self._made:
      self._filesystem.create_dir(parent, recursive=True)
      self._made.add(parent)

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}' if name else self._root


def is_transient(error: Exception) -> bool:
  """Returns whether an error of a filesystem may be transient."""
  if isinstance(error, _PERMANENT):
    return False
  if isinstance(error, OSError):
    return not files.is_of_disk(error) and not any(
      word in str(error) for word in _PERMANENT_WORDS
    )
  # GCS: too many requests, cancelled, and unexplained errors.
  return (
    isinstance(error, pa.ArrowCapacityError | pa.ArrowCancelled)
    or type(error) is pa.ArrowException
  )
