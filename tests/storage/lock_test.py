"""Tests of the lock on a run's folder."""

import contextlib
import errno
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from rest_jax.storage import files, lock

_HOLD = """
import sys, time
from rest_jax.storage import lock
worker = int(sys.argv[2]) if sys.argv[2:] else None
with lock.held(sys.argv[1], worker):
  print('held', flush=True)
  time.sleep(60)
"""


@contextlib.contextmanager
def _holding(*arguments):
  with subprocess.Popen(
    [sys.executable, '-c', _HOLD, *map(str, arguments)],
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()


@pytest.fixture
def other(tmp_path):
  """Another process that holds the lock of `tmp_path`."""
  with _holding(tmp_path) as process:
    yield process


def test_workers_share_a_folder_and_no_number(tmp_path):
  with _holding(tmp_path, 3) as process:
    with lock.held(tmp_path, 4):
      pass
    with (
      pytest.raises(lock.LockedError, match=f'process {process.pid} on'),
      lock.held(tmp_path, 3),
    ):
      pass
    with (
      pytest.raises(lock.LockedError, match='by workers of a Grow'),
      lock.held(tmp_path),
    ):
      pass
  with lock.held(tmp_path), lock.held(tmp_path / 'other', 3):
    pass


def test_workers_wait_for_one_that_has_it_alone(tmp_path, other):
  with (
    pytest.raises(lock.LockedError, match=f'process {other.pid} on'),
    lock.held(tmp_path, 0),
  ):
    pass


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path, other):
  message = rf'{re.escape(str(tmp_path))} .* process {other.pid} on .* since 20'
  with pytest.raises(lock.LockedError, match=message), lock.held(tmp_path):
    pass


def test_one_that_was_killed_leaves_no_lock(tmp_path, other):
  os.kill(other.pid, signal.SIGKILL)
  other.wait()
  assert f'"process": {other.pid}' in (tmp_path / lock.LOCK_FILE).read_text()
  with lock.held(tmp_path):
    assert (
      f'"process": {os.getpid()}' in (tmp_path / lock.LOCK_FILE).read_text()
    )


def test_it_is_given_back(tmp_path):
  for _ in range(2):
    with lock.held(tmp_path / 'made' / 'too'):
      pass
  with pytest.raises(RuntimeError, match='ours'), lock.held(tmp_path):
    raise RuntimeError('ours')
  with lock.held(tmp_path), lock.held(tmp_path / 'below'):
    pass


def test_an_owner_that_has_not_written_its_name_yet(tmp_path, other):
  (tmp_path / lock.LOCK_FILE).write_text('{"proc')
  with (
    pytest.raises(lock.LockedError, match='by another process'),
    lock.held(tmp_path),
  ):
    pass


@pytest.mark.parametrize('name', ['file', 'file/run'])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, name):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(ValueError, match=r'file is a file\. Choose another --model'),
    lock.held(tmp_path / name),
  ):
    pass


def test_a_folder_without_rights_is_named(tmp_path, monkeypatch):
  def fail(path, *_, **__):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  monkeypatch.setattr('builtins.open', fail)
  tmp_path.chmod(0o555)
  with pytest.raises(ValueError) as caught, lock.held(tmp_path):
    pass
  message = str(caught.value)
  assert message.startswith('the folder of the run cannot be written to: ')
  assert f'folder {tmp_path} belongs to user' in message
  assert 'has mode 555; this program runs as user' in message


def test_a_read_only_disk_is_named(tmp_path, monkeypatch):
  def fail(path, **_):
    raise OSError(errno.EROFS, 'Read-only file system', str(path))

  monkeypatch.setattr(pathlib.Path, 'mkdir', fail)
  with (
    pytest.raises(files.DiskError, match=r'run cannot be .* disk is read-only'),
    lock.held(tmp_path / 'run'),
  ):
    pass
