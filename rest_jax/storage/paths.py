"""Paths of a run: in a local folder, or natively in a bucket.

`of` returns a `pathlib.Path`, or for an address such as gs://bucket/run an
`etils.epath.Path` with the same methods. An object appears whole when its
upload ends, as a local file does when it is renamed.
"""

from collections.abc import Callable, Iterator
import importlib
import os
import pathlib
import shutil
from typing import IO, Any, cast

from etils.epath import gpath

# What fsspec needs for a scheme.
_SCHEMES = {'gs': 'gcsfs', 's3': 's3fs'}
# Seconds of one request; gcsfs repeats one that fails.
_REQUEST_SECONDS = 300

# Of the errors of gcsfs, TensorStore and what they use.
_DENIED = (
  'Forbidden', 'PERMISSION_DENIED', 'UNAUTHENTICATED', 'CredentialsError',
  ', 401',
)  # fmt: skip
_MISSING = ('NOT_FOUND', 'bucket does not exist')
_STATUS = ('UNAVAILABLE', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED')
_LIBRARIES = ('gcsfs', 'aiohttp', 'botocore', 'requests', 'google')
_SHOWN = 400

PathLike = str | os.PathLike[str]


# Called before an object is written or removed; `lease` adds its check.
before_change: list[Callable[[], None]] = []


class BucketError(ValueError):
  """A bucket cannot be used; the message says what to do."""


class BucketPath(gpath.PosixGPath):
  """A path in a bucket, with what `pathlib.Path` has beyond `epath.Path`."""

  def resolve(self, strict: bool = False) -> 'BucketPath':
    del strict
    name = os.path.normpath('/'.join(self.parts[2:]))
    return type(self)(f'{self.parts[1]}://{name}')

  def is_file(self) -> bool:
    found, name = filesystem(self)
    return found.isfile(name)

  def unlink(self, missing_ok: bool = False) -> None:
    _changed(self)
    super().unlink(missing_ok)

  def mkdir(self, *_: Any, **__: Any) -> None:
    """Does nothing: the folders of a bucket are only parts of names."""

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
    found, name = _changed(self)
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
    ImportError: the library of its kind is not installed.
  """
  if isinstance(path, pathlib.Path | BucketPath):
    return cast(pathlib.Path, path)
  if not is_address(path):
    return pathlib.Path(path)
  scheme, name = os.fspath(path).split('://', 1)
  if scheme not in _SCHEMES:
    raise ValueError(
      f'a folder must be local or an address gs:// or s3://bucket/folder; got '
      f'{path}. Mount other stores as a folder.'
    )
  if not all(name.rstrip('/').partition('/')[::2]):
    raise ValueError(
      f'an address must name a bucket and a folder, such as gs://bucket/run; '
      f'got {path}.'
    )
  _prepare(scheme)
  return cast(pathlib.Path, BucketPath(os.fspath(path).rstrip('/')))


def is_remote(path: PathLike) -> bool:
  """Returns whether a path is in a bucket."""
  return isinstance(path, BucketPath) or is_address(path)


def is_for_orbax(path: PathLike) -> bool:
  """Returns whether Orbax can write checkpoints to a folder."""
  return not os.fspath(path).startswith('s3://')


def filesystem(path: PathLike) -> tuple[Any, str]:
  """Returns the fsspec filesystem of a path in a bucket, and its name there."""
  import fsspec

  return fsspec.core.url_to_fs(os.fspath(path))


def _changed(path: PathLike) -> tuple[Any, str]:
  """The same for a path that is about to be changed."""
  for check in before_change:
    check()
  return filesystem(path)


def explain(error: BaseException) -> str | None:
  """Says what to do about an error of a bucket; None for another error."""
  words = f'{type(error).__name__}: {error}'
  if any(word in words for word in _DENIED):
    remedy = (
      'This account may not do that. Give it the role Storage Object User of '
      'the bucket, or log in: gcloud auth application-default login. For s3:// '
      'set the credentials of AWS'
    )
  elif any(word in words for word in _MISSING):
    remedy = (
      'The bucket does not exist: create it (gcloud storage buckets create, or '
      'aws s3 mb)'
    )
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


def _prepare(scheme: str) -> None:
  """Sets epath and fsspec up, for Orbax too."""
  # epath would use TensorFlow where it is installed, and remembers whether.
  os.environ['EPATH_USE_TF'] = '0'
  gpath._is_tf_installed.cache_clear()
  library = _SCHEMES[scheme]
  try:
    from fsspec import config

    importlib.import_module(library)
  except ImportError as error:
    raise ImportError(
      f'an address {scheme}:// needs {library}: pip install {library} ({error})'
    ) from error
  for protocol in ('gs', 'gcs', 's3'):
    # Other hosts write to the bucket too.
    settings = config.conf.setdefault(protocol, {})
    settings['use_listings_cache'] = False
  for protocol in ('gs', 'gcs'):
    settings = config.conf[protocol]
    settings.setdefault('requests_timeout', _REQUEST_SECONDS)
    # Without one, gcsfs warns that it cannot list buckets.
    settings.setdefault('project', os.environ.get('GCSFS_DEFAULT_PROJECT', ''))


def upload(source: pathlib.Path, target: PathLike) -> None:
  """Writes a local file to an object, which appears when it is whole."""
  found, name = _changed(target)
  found.put_file(str(source), name)


def remove_tree(path: PathLike, *, missing_ok: bool = False) -> None:
  """Removes a folder and all that is in it."""
  path = of(path)
  if missing_ok and not path.exists():
    return
  if not is_remote(path):
    shutil.rmtree(path)
    return
  found, name = _changed(path)
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
  found = of(start) / path
  return found.resolve() if is_remote(start) else of(os.path.normpath(found))
