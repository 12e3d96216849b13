"""Runs whose --model_dir is an address such as gs://bucket/run.

Such a run works in a local folder, which is mirrored at the address: downloaded
when the run starts, and uploaded at every point from which it can resume.
Stages mark these points with `push`, whether there is a mirror or not.
"""

from collections.abc import Iterator
import contextlib
import pathlib
import urllib.parse

from absl import logging
import pyarrow as pa
from pyarrow import fs

from rest_jax.storage import bucket as bucket_lib
from rest_jax.storage import lock, mirror

# GCS itself retries for a quarter of an hour; `retries` are added to that.
_GCS_SECONDS = 30

# The mirror of this process's run.
_mirror: mirror.Mirror | None = None


def open_mirror(
  address: str, folder: pathlib.Path, *, adopts: bool = False
) -> mirror.Mirror:
  """Returns the mirror of a folder at an address; see `mirror.Mirror`.

  Args:
    address: an address for `pyarrow.fs.FileSystem.from_uri`.
    folder: the local folder.
    adopts: whether a folder that was never mirrored may be uploaded.

  Raises:
    ValueError: the filesystem is unknown or cannot be reached.
  """
  try:
    filesystem, root = fs.FileSystem.from_uri(_with_limits(address))
  except (OSError, pa.ArrowException, ValueError) as error:
    raise ValueError(
      f'--model_dir must be a folder, or an address that pyarrow can open, such as '
      f'gs://bucket/run; got {shown(address)}: {error}'
    ) from error
  bucket = bucket_lib.Bucket(filesystem, root.rstrip('/'), shown(address))
  return mirror.Mirror(bucket, folder, adopts=adopts)


def default_folder(address: str) -> pathlib.Path:
  """Returns runs/<last part of an address>.

  Raises:
    ValueError: the address names no folder.
  """
  name = pathlib.PurePosixPath(urllib.parse.urlsplit(address).path).name
  if not name:
    raise ValueError(
      '--model_dir must name a folder, such as gs://bucket/run; got '
      f'{shown(address)}.'
    )
  return pathlib.Path('runs') / name


def shown(address: str) -> str:
  """Returns an address without keys, options and final slash."""
  parts = urllib.parse.urlsplit(address)
  user, at, host = parts.netloc.rpartition('@')
  if ':' in user:
    user = at = ''
  return f'{parts.scheme}://{user}{at}{host}{parts.path}'.rstrip('/')


@contextlib.contextmanager
def kept(opened: mirror.Mirror) -> Iterator[None]:
  """Downloads a run, and uploads it at every `push` and when the block ends.

  Args:
    opened: mirror of the run. This process must hold the folder's lock.

  Yields:
    Nothing.
  """
  global _mirror
  opened.pull()
  opened.push()
  _mirror = opened
  try:
    yield
  except bucket_lib.RemoteError:
    # The upload would fail again.
    raise
  except BaseException:
    try:
      opened.push()
    except Exception as error:
      # The error that ended the run matters more.
      logging.warning('mirror: %s', error)
    raise
  else:
    opened.push()
  finally:
    _mirror = None


def fetch(opened: mirror.Mirror, folder: pathlib.Path) -> None:
  """Downloads a run for reading, unless another program writes the folder."""
  try:
    with lock.held(folder):
      opened.pull()
  except lock.LockedError as error:
    logging.info('mirror: not fetched: %s', error)


def push() -> None:
  """Uploads the run's folder, if it has a mirror."""
  if _mirror is not None:
    _mirror.push()


def _with_limits(address: str) -> str:
  parts = urllib.parse.urlsplit(address)
  if parts.scheme not in ('gs', 'gcs') or 'retry_limit_seconds' in parts.query:
    return address
  query = f'{parts.query}&' if parts.query else ''
  query += f'retry_limit_seconds={_GCS_SECONDS}'
  return urllib.parse.urlunsplit(parts._replace(query=query))
