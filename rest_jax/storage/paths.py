"""Paths of a run: in a local folder, or natively in a bucket.

`of` returns a `pathlib.Path`, or for an address such as gs://bucket/run an
`etils.epath.Path` with the same methods. An object appears whole when its
upload ends, as a local file does when it is renamed.
"""

from collections.abc import Iterator
import os
import pathlib
import shutil
from typing import IO, Any, NamedTuple, cast

from etils.epath import gpath

# Those that Orbax writes checkpoints to.
_SCHEMES = ('gs',)
# Seconds of one request; gcsfs repeats one that fails.
_REQUEST_SECONDS = 300

# Of the errors of gcsfs, TensorStore and what they use.
_DENIED = (
  'Forbidden', 'PERMISSION_DENIED', 'UNAUTHENTICATED', 'CredentialsError',
  ', 401',
)  # fmt: skip
_MISSING = ('NOT_FOUND', 'bucket does not exist')
_STATUS = ('UNAVAILABLE', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED')
_LIBRARIES = ('gcsfs', 'aiohttp', 'requests', 'google')
_SHOWN = 400

PathLike = str | os.PathLike[str]


class BucketError(ValueError):
  """A bucket cannot be used; the message says what to do."""


class _Stat(NamedTuple):
  st_size: int
  st_mtime_ns: int


class BucketPath(gpath.PosixGPath):
  """A path in a bucket, with what `pathlib.Path` has beyond `epath.Path`."""

  def resolve(self, strict: bool = False) -> 'BucketPath':
    del strict
    return type(self)(f'gs://{os.path.normpath("/".join(self.parts[2:]))}')

  def absolute(self) -> 'BucketPath':
    return self

  def exists(self) -> bool:
    found, name = filesystem(self)
    return found.exists(name)

  def is_file(self) -> bool:
    found, name = filesystem(self)
    return found.isfile(name)

  def mkdir(self, *_: Any, **__: Any) -> None:
    """Does nothing: the folders of a bucket are only parts of names."""

  def stat(self) -> Any:
    found, name = filesystem(self)
    info = found.info(name)
    changed = info.get('mtime')
    nanoseconds = int(changed.timestamp() * 1e9) if changed else 0
    return _Stat(info['size'], nanoseconds)

  def open(self, mode: str = 'r', **kwargs: Any) -> IO[Any]:
    found, name = filesystem(self)
    if 'b' not in mode:
      kwargs['encoding'] = kwargs.get('encoding') or 'utf-8'
    return found.open(name, mode, **kwargs)

  def read_bytes(self) -> bytes:
    found, name = filesystem(self)
    return found.cat_file(name)

  def read_text(
    self, encoding: str | None = None, errors: str | None = None
  ) -> str:
    return self.read_bytes().decode(encoding or 'utf-8', errors or 'strict')

  def write_bytes(self, data: bytes) -> int:
    found, name = filesystem(self)
    found.pipe_file(name, data)
    return len(data)

  def write_text(
    self, data: str, encoding: str | None = None, errors: str | None = None
  ) -> int:
    return self.write_bytes(
      data.encode(encoding or 'utf-8', errors or 'strict')
    )


def is_address(path: PathLike) -> bool:
  """Returns whether a path is an address such as gs://bucket/folder."""
  return '://' in os.fspath(path)


def of(path: PathLike) -> pathlib.Path:
  """Returns a path as an object with the methods of `pathlib.Path`.

  Args:
    path: a local path, or an address such as gs://bucket/folder.

  Raises:
    ValueError: the address is of an unknown kind, or names no folder.
    ImportError: gcsfs is not installed.
  """
  if isinstance(path, pathlib.Path | BucketPath):
    return cast(pathlib.Path, path)
  if not is_address(path):
    return pathlib.Path(path)
  scheme, name = os.fspath(path).split('://', 1)
  if scheme not in _SCHEMES:
    raise ValueError(
      f'a folder must be local or an address gs://bucket/folder; got {path}. '
      'Orbax writes checkpoints to these alone: mount other stores as a folder.'
    )
  if not all(name.rstrip('/').partition('/')[::2]):
    raise ValueError(
      f'an address must name a bucket and a folder, such as gs://bucket/run; '
      f'got {path}.'
    )
  _prepare()
  return cast(pathlib.Path, BucketPath(os.fspath(path).rstrip('/')))


def is_remote(path: PathLike) -> bool:
  """Returns whether a path is in a bucket."""
  return isinstance(path, BucketPath) or is_address(path)


def filesystem(path: PathLike) -> tuple[Any, str]:
  """Returns the fsspec filesystem of a path in a bucket, and its name there."""
  import fsspec

  return fsspec.core.url_to_fs(os.fspath(path))


def explain(error: BaseException) -> str | None:
  """Says what to do about an error of a bucket; None for another error."""
  words = f'{type(error).__name__}: {error}'
  if any(word in words for word in _DENIED):
    remedy = (
      'This account may not do that. Give it the role Storage Object User of '
      'the bucket, or log in: gcloud auth application-default login'
    )
  elif any(word in words for word in _MISSING):
    remedy = 'The bucket does not exist: gcloud storage buckets create makes it'
  elif type(error).__module__.partition('.')[0] in _LIBRARIES or any(
    word in words for word in _STATUS
  ):
    remedy = (
      'Several attempts failed. What is complete stays; run the same command '
      'again'
    )
  else:
    return None
  return f'{words[:_SHOWN]}. {remedy}.'


def _prepare() -> None:
  """Sets epath and gcsfs up, for Orbax too."""
  # epath would use TensorFlow where it is installed, and remembers whether.
  os.environ['EPATH_USE_TF'] = '0'
  gpath._is_tf_installed.cache_clear()
  try:
    from fsspec import config
    import gcsfs  # noqa: F401
  except ImportError as error:
    raise ImportError(
      f'a --model_dir in Google Cloud Storage needs gcsfs: pip install gcsfs '
      f'({error})'
    ) from error
  for protocol in ('gs', 'gcs'):
    settings = config.conf.setdefault(protocol, {})
    # Other hosts write to the bucket too.
    settings['use_listings_cache'] = False
    settings.setdefault('requests_timeout', _REQUEST_SECONDS)
    # Without one, gcsfs warns that it cannot list buckets.
    settings.setdefault('project', os.environ.get('GCSFS_DEFAULT_PROJECT', ''))


def upload(source: pathlib.Path, target: PathLike) -> None:
  """Writes a local file to an object, which appears when it is whole."""
  found, name = filesystem(target)
  found.put_file(str(source), name)


def remove_tree(path: PathLike, *, missing_ok: bool = False) -> None:
  """Removes a folder and all that is in it."""
  path = of(path)
  if missing_ok and not path.exists():
    return
  if not is_remote(path):
    shutil.rmtree(path)
    return
  found, name = filesystem(path)
  found.rm(name, recursive=True)


def sizes(directory: PathLike) -> dict[str, int]:
  """Returns the sizes in bytes of a folder's files, by relative name.

  Hidden files and folders, and those inside of them, are left out.
  """
  directory = of(directory)
  if not is_remote(directory):
    return {
      path.relative_to(directory).as_posix(): path.stat().st_size
      for path in _files(directory)
    }
  found, root = filesystem(directory)
  names = {
    info['name'].removeprefix(f'{root}/'): info['size']
    for info in found.find(root, detail=True).values()
  }
  return {
    name: size
    for name, size in names.items()
    if not any(part.startswith('.') for part in name.split('/'))
  }


def _files(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  for entry in directory.iterdir():
    if entry.name.startswith('.'):
      continue
    if entry.is_dir():
      yield from _files(entry)
    else:
      yield entry


def relative(path: PathLike, start: PathLike) -> str:
  """Returns a path as seen from a folder; an absolute one if they share none."""
  if is_remote(path) == is_remote(start):
    return os.path.relpath(path, start)
  return os.fspath(of(path).absolute())


def joined(start: PathLike, path: str) -> pathlib.Path:
  """Returns the path that `relative` described."""
  if is_address(path) or os.path.isabs(path):
    return of(path)
  return (
    of(os.path.normpath(of(start) / path))
    if not is_remote(start)
    else ((of(start) / path).resolve())
  )
