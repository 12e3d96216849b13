"""A store of objects in memory, for pyarrow, that fails or kills when told to.

As some real ones do, it writes and moves objects part by part, and may have done
what it says it has failed at.
"""

import contextlib
import io
import threading
from typing import Any

import pyarrow as pa
from pyarrow import fs

from rest_jax.storage import bucket, retries

_PARTS = 2


class Killed(BaseException):
  """The program is no more: whatever it does with the store does nothing."""


class ObjectStore(fs.FileSystemHandler):
  """Objects by their paths; folders are no more than parts of those.

  Attributes:
    objects: their bytes.
    log: of what was done: the operation and the path.
    kill_at: the number of the operation before which the program is killed.
    fault: called with an operation and a path; raises what it fails with.
  """

  def __init__(self, objects: dict[str, bytes] | None = None):
    self.objects = dict(objects or {})
    self.log: list[tuple[str, str]] = []
    self.kill_at: int | None = None
    self.fault = lambda operation, path: None
    self._lock = threading.RLock()
    self._is_dead = False

  def step(self, operation: str, path: str) -> None:
    """Comes before and after all that is done."""
    with self._lock:
      if self._is_dead or len(self.log) == self.kill_at:
        self._is_dead = True
        raise Killed
      self.log.append((operation, path))
    self.fault(operation, path)

  def get_type_name(self):
    return 'objects'

  def normalize_path(self, path):
    return path

  def get_file_info(self, paths):
    self.step('look', paths[0])
    return [self._info(path) for path in paths]

  def get_file_info_selector(self, selector):
    self.step('list', selector.base_dir)
    prefix = selector.base_dir + '/'
    found = set()
    with self._lock:
      for path in self.objects:
        if path.startswith(prefix):
          parts = path.removeprefix(prefix).split('/')
          last = len(parts) if selector.recursive else 1
          found |= {'/'.join(parts[:n]) for n in range(1, last + 1)}
      return [self._info(prefix + name) for name in sorted(found)]

  def _info(self, path):
    if path in self.objects:
      size = len(self.objects[path])
      return fs.FileInfo(path, fs.FileType.File, size=size)
    is_folder = any(other.startswith(path + '/') for other in self.objects)
    kind = fs.FileType.Directory if is_folder else fs.FileType.NotFound
    return fs.FileInfo(path, kind)

  def create_dir(self, path, recursive):
    pass

  def delete_dir(self, path):
    self.step('prune', path)
    assert not any(other.startswith(path + '/') for other in self.objects)

  def delete_dir_contents(self, path, missing_dir_ok=False):
    raise NotImplementedError

  def delete_root_dir_contents(self):
    raise NotImplementedError

  def delete_file(self, path):
    self.step('remove', path)
    if self.objects.pop(path, None) is None:
      raise FileNotFoundError(path)
    self.step('removed', path)

  def move(self, src, dest):
    self.step('move', dest)
    if src not in self.objects:
      raise OSError(f'{src} does not exist')  # So say those of GCS and S3.
    with self.open_output_stream(dest, None) as target:
      target.write(self.objects[src])
    self.step('copied', dest)
    del self.objects[src]
    self.step('moved', dest)

  def copy_file(self, src, dest):
    raise NotImplementedError

  def open_input_stream(self, path):
    self.step('read', path)
    if path not in self.objects:
      raise FileNotFoundError(path)
    return pa.PythonFile(_Read(self, path), mode='r')

  open_input_file = open_input_stream

  def open_output_stream(self, path, metadata):
    self.step('write', path)
    return pa.PythonFile(_Written(self, path), mode='w')

  def open_append_stream(self, path, metadata):
    raise NotImplementedError


class _Read(io.BytesIO):
  def __init__(self, store: ObjectStore, path: str):
    super().__init__(store.objects[path])
    self._of = store, path

  def read(self, size: int | None = -1) -> bytes:
    store, path = self._of
    store.step('part read', path)
    return super().read(size)


class _Written(io.RawIOBase):
  """What is written is there at once, and stays if no more comes."""

  def __init__(self, store: ObjectStore, path: str):
    self._store, self._path = store, path
    store.objects[path] = b''

  def writable(self) -> bool:
    return True

  def write(self, part: Any) -> int:
    part = bytes(part)
    middle = len(part) // _PARTS
    for some in (part[:middle], part[middle:]):
      self._store.step('part written', self._path)
      self._store.objects[self._path] += some
    return len(part)

  def close(self) -> None:
    if not self.closed:
      super().close()
      with contextlib.suppress(Killed):
        self._store.step('written', self._path)


def open_bucket(
  store: ObjectStore,
  root: str = 'bucket/run',
  *,
  attempts: int = 1,
  num_threads: int = 1,
) -> bucket.Bucket:
  """A bucket of a store that does not wait before it tries again."""
  return bucket.Bucket(
    fs.PyFileSystem(store),
    root,
    f'fake://{root}',
    retries=retries.Retries(attempts=attempts, sleep=lambda seconds: None),
    num_threads=num_threads,
  )
