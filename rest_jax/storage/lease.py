"""Who owns a folder in a bucket: an object that is written conditionally.

Its owner renews it every few seconds. A program that finds one waits until it
is renewed, which means that its owner lives, or has not been for some time;
then it takes over. An owner that could not renew in time does so before it
writes anything else, and stops if another has taken over.
"""

from collections.abc import Iterator
import contextlib
import datetime
import json
import os
import pathlib
import socket
import threading
import time
from typing import Any
import uuid

from absl import logging
import tensorstore

from rest_jax.storage import paths

OWNER_FILE = '.owner.json'
# How often an owner renews, and after how long without it is taken over.
RENEW_SECONDS = 10.0
LOST_SECONDS = 60.0

# The folder of commits in a copy by version 0.1.
_MIRROR = '.mirror'
_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')
_POLL_SECONDS = 1.0

# Those of this process, which every write checks.
_held: list['Lease'] = []


class LockedError(ValueError):
  """Another process writes to the folder."""


class TakenOverError(ValueError):
  """Another process has taken over; this one must not write any more."""


class Lease:
  """The ownership of one object of a folder, while it is renewed."""

  def __init__(self, directory: paths.PathLike, name: str):
    """Acquires the object.

    Raises:
      LockedError: its owner lives.
      BucketError: the bucket does not exist, or may not be written to.
    """
    self._directory = directory
    self._name = name
    self._store = _open(directory)
    self._content = {
      **this_process(),
      'boot': _boot(),
      'id': uuid.uuid4().hex,
      'renewed': 0,
    }
    self._lock = threading.Lock()
    self._ended = threading.Event()
    self._taken_over = ''
    with _explained(directory):
      free = await_free(directory, name, self._store)
      self._renewed = time.monotonic()
      if not self._write(free):
        filesystem, path = paths.filesystem(directory)
        filesystem.ls(path.partition('/')[0])  # Raises without a bucket.
        raise LockedError(_refusal(directory, name, _read(self._store, name)))
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises TakenOverError unless this process is still the owner."""
    with self._lock:
      # At half the time, so that a write begun now ends before it is over.
      if time.monotonic() - self._renewed > LOST_SECONDS / 2:
        self._renew()
      if self._taken_over:
        raise TakenOverError(self._taken_over)

  def release(self) -> None:
    """Removes the object, if it is still this process's."""
    self._ended.set()
    self._thread.join()
    if not self._taken_over:
      with contextlib.suppress(Exception):  # It is taken over otherwise.
        self._store.write(self._name, None, if_equal=self._generation).result()

  def _beat(self) -> None:
    while not self._ended.wait(RENEW_SECONDS):
      with self._lock:
        try:
          self._renew()
        except Exception as error:
          logging.warning('%s: not renewed: %s', self._directory, error)
        if self._taken_over:
          return

  def _renew(self) -> None:
    """Writes the object again; the caller holds the lock."""
    if self._taken_over:
      return
    sent = time.monotonic()
    self._content['renewed'] += 1
    if self._write(self._generation):
      self._renewed = sent
      return
    found = _read(self._store, self._name)
    self._taken_over = (
      f'{self._directory} was taken over by {in_words(found.value)}, so this '
      'program stops; what it has not uploaded is made again there.'
    )

  def _write(self, generation: bytes) -> bool:
    """Writes the object if it is still of a generation; whether it was."""
    content = json.dumps(self._content).encode()
    written = self._store.write(
      self._name, content, if_equal=generation
    ).result()
    if not written.generation:
      # A repeated request may find its own first attempt.
      found = _read(self._store, self._name)
      if found.value != content:
        return False
      written = found.stamp
    self._generation = written.generation
    return True


def this_process() -> dict[str, Any]:
  """Returns what an owner tells of itself."""
  return {
    'process': os.getpid(),
    'host': socket.gethostname(),
    'since': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
  }


def in_words(content: bytes, unknown: str = 'another process') -> str:
  """Returns what an owner told, as words; `unknown` if it cannot be read."""
  try:
    owner = json.loads(content)
    return (
      f'process {owner["process"]} on {owner["host"]}, since {owner["since"]}'
    )
  except (ValueError, KeyError, TypeError):
    return unknown


def await_free(
  directory: paths.PathLike, name: str, store: tensorstore.KvStore
) -> bytes:
  """Waits until an object is missing, or its owner lost.

  Returns:
    The generation of the object, which stands for a missing one too.

  Raises:
    LockedError: its owner lives.
  """
  first = found = _read(store, name)
  began = time.monotonic()
  while found.value and not _is_dead(found.value):
    if found.stamp.generation != first.stamp.generation:
      raise LockedError(_refusal(directory, name, found))
    left = began + LOST_SECONDS - time.monotonic()
    if left <= 0:
      break
    if found is first:
      logging.warning(
        '%s belongs to %s; it is taken over in %.0f s if there is no sign of '
        'life', directory, in_words(found.value), left,
      )  # fmt: skip
    time.sleep(min(left, _POLL_SECONDS))
    found = _read(store, name)
  if found.value:
    logging.warning('%s: takes over from %s', directory, in_words(found.value))
  return found.stamp.generation


@contextlib.contextmanager
def held(
  directory: paths.PathLike, worker: int | None = None
) -> Iterator[None]:
  """Owns a folder of a bucket until the block ends; see `lock.held`."""
  name = OWNER_FILE if worker is None else _of_worker(worker)
  with _explained(directory):
    _check_not_mirrored(directory)
  lease = Lease(directory, name)
  _held.append(lease)
  try:
    store = _open(directory)
    for other in _others(directory, worker):
      generation = await_free(directory, other, store)
      store.write(other, None, if_equal=generation).result()
    yield
  finally:
    _held.remove(lease)
    lease.release()


def check() -> None:
  """Raises TakenOverError if another process has taken over; for writers."""
  for lease in _held:
    lease.check()


paths.before_change.append(check)


def _check_not_mirrored(directory: paths.PathLike) -> None:
  """Raises BucketError for a copy that version 0.1 kept of a local folder."""
  if (paths.of(directory) / _MIRROR).is_dir():
    raise paths.BucketError(
      f'{directory} is the copy of a run that version 0.1 made on a local disk, '
      'and may be behind it. Continue that run in its local folder, or in a '
      f'copy: gcloud storage cp -r {directory} .'
    )


def _others(directory: paths.PathLike, worker: int | None) -> list[str]:
  """Returns the objects that must not be held beside one's own."""
  if worker is not None:
    return [OWNER_FILE]
  found = paths.of(directory).glob(_of_worker('*'))
  return [path.name for path in found]


def _of_worker(worker: int | str) -> str:
  return f'.owner_worker_{worker}.json'


def _open(directory: paths.PathLike) -> tensorstore.KvStore:
  where: Any = f'{os.fspath(directory)}/'
  endpoint = os.environ.get('AWS_ENDPOINT_URL')
  if endpoint and where.startswith('s3://'):  # TensorStore does not read it.
    _, _, bucket, path = where.split('/', 3)
    region = os.environ.get('AWS_REGION', 'us-east-1')
    where = {'driver': 's3', 'bucket': bucket, 'path': path}
    where |= {'endpoint': endpoint, 'aws_region': region}
  return tensorstore.KvStore.open(where).result()


def _read(store: tensorstore.KvStore, name: str) -> Any:
  return store.read(name).result()


def _boot() -> str:
  try:
    return _BOOT.read_text(encoding='utf-8').strip()
  except OSError:
    return ''


def _is_dead(content: bytes) -> bool:
  """Returns whether the owner was a process of this machine that has ended."""
  try:
    owner = json.loads(content)
    is_here = (owner['host'], owner['boot']) == (socket.gethostname(), _boot())
    if not is_here or not owner['boot']:
      return False
    os.kill(owner['process'], 0)
  except ProcessLookupError:
    return True
  except (ValueError, KeyError, TypeError, OSError):
    pass
  return False


def _refusal(directory: paths.PathLike, name: str, found: Any) -> str:
  return (
    f'{directory} is being written to by {in_words(found.value)}. Wait for it, '
    'stop it, or choose another --model_dir. To take over while it runs, remove '
    f'{os.fspath(directory)}/{name}: it stops before it writes again.'
  )


@contextlib.contextmanager
def _explained(directory: paths.PathLike) -> Iterator[None]:
  """Says what to do if a bucket cannot be used."""
  try:
    yield
  except (LockedError, paths.BucketError):
    raise
  except Exception as error:
    words = paths.explain(error) or str(error)
    raise paths.BucketError(f'{directory} cannot be used: {words}') from error
