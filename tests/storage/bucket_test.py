"""Tests of objects below an address."""

import errno
import hashlib
import os

import pyarrow as pa
import pytest

from rest_jax.storage import bucket, files
from tests.storage import object_store


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
  'error, is_transient',
  [
    (OSError('Unable to connect'), True),
    (TimeoutError(), True),
    (OSError(errno.EIO, 'input/output'), True),
    (OSError('AWS Error SLOW_DOWN during PutObject operation'), True),
    (pa.ArrowCapacityError('RESOURCE_EXHAUSTED'), True),
    (pa.ArrowException('Unknown error: UNKNOWN'), True),
    (FileNotFoundError(), False),
    (PermissionError(), False),
    (OSError('AWS Error ACCESS_DENIED during PutObject operation'), False),
    (OSError('AWS Error NO_SUCH_BUCKET during PutObject operation'), False),
    (OSError(errno.ENOSPC, 'full'), False),
    (files.disk_error('/a', errno.ENOSPC), False),
    (pa.ArrowInvalid('no such option'), False),
    (pa.ArrowNotImplementedError('HDFS'), False),
    (ValueError(), False),
  ],
)
def test_some_errors_may_pass(error, is_transient):
  assert bucket.is_transient(error) is is_transient


@pytest.mark.parametrize(
  'error', [PermissionError('not yours'), pa.ArrowInvalid('not so')]
)
def test_what_will_not_pass_is_named_at_once(error):
  store = object_store.ObjectStore()

  def fault(operation, path):
    raise error

  store.fault = fault
  opened = object_store.open_bucket(store, attempts=5)
  with pytest.raises(bucket.RemoteError) as raised:
    opened.write('a/b', b'x')
  told = str(raised.value)
  assert told.startswith('fake://bucket/run/a/b: writing failed (')
  assert str(error) in told and 'what this account may do' in told
  assert len(store.log) == 1


def test_an_object_that_is_not_there_is_no_file(tmp_path):
  opened = object_store.open_bucket(object_store.ObjectStore(), attempts=5)
  with pytest.raises(FileNotFoundError):
    opened.download('a', tmp_path / 'a', 1, _digest(b'x'))
  assert not list(tmp_path.iterdir())


def test_a_download_is_a_file_when_it_is_whole(tmp_path):
  store = object_store.ObjectStore({'bucket/run/a': b'12345'})

  failed = []

  def fault(operation, path):
    assert not (tmp_path / 'a').exists()
    if operation == 'part read' and len(failed) < 3:
      failed.append(path)
      raise OSError('again')

  store.fault = fault
  opened = object_store.open_bucket(store, attempts=4)
  opened.download('a', tmp_path / 'a', 5, _digest(b'12345'))
  assert len(failed) == 3 and os.listdir(tmp_path) == ['a']
  store.fault = lambda operation, path: None
  assert (tmp_path / 'a').read_bytes() == b'12345'
  with pytest.raises(bucket.DamagedObjectError, match='fake://bucket/run/a is'):
    opened.download('a', tmp_path / 'b', 5, _digest(b'1234x'))
  assert os.listdir(tmp_path) == ['a']


def test_a_full_disk_is_told_and_not_tried_again(tmp_path, monkeypatch):
  store = object_store.ObjectStore({'bucket/run/a': b'12345'})

  def fail(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  opened = object_store.open_bucket(store, attempts=5)
  with pytest.raises(files.DiskError, match='needs 5 bytes'):
    opened.download('a', tmp_path / 'a', 5, _digest(b'12345'))
  assert [operation for operation, _ in store.log].count('read') == 1


def test_a_growing_file_is_sent_as_it_was(tmp_path):
  store = object_store.ObjectStore()
  opened = object_store.open_bucket(store)
  (tmp_path / 'a').write_bytes(b'12345 and more')
  opened.upload(tmp_path / 'a', 'x', 5, _digest(b'12345'))
  assert store.objects == {'bucket/run/x': b'12345'}


def test_a_file_that_changed_is_not_sent(tmp_path):
  store = object_store.ObjectStore()
  opened = object_store.open_bucket(store, attempts=5)
  (tmp_path / 'a').write_bytes(b'1234x')
  with pytest.raises(bucket.RemoteError, match=r'/a changed while it was sent'):
    opened.upload(tmp_path / 'a', 'x', 5, _digest(b'12345'))
  assert not store.objects


def test_an_upload_that_arrives_in_part_is_made_again(tmp_path):
  """Although nothing has said so."""
  store = object_store.ObjectStore()
  (tmp_path / 'a').write_bytes(b'12345')

  def fault(operation, path):
    if operation == 'written' and len(store.log) < 8:
      store.objects[path] = b'12'

  store.fault = fault
  opened = object_store.open_bucket(store, attempts=2)
  opened.upload(tmp_path / 'a', 'x', 5, _digest(b'12345'))
  assert store.objects == {'bucket/run/x': b'12345'}


@pytest.mark.parametrize('moment', ['move', 'part written', 'copied', 'moved'])
def test_a_move_that_fails_anywhere_is_made_once(moment):
  store = object_store.ObjectStore(
    {'bucket/run/a': b'new', 'bucket/run/b': b''}
  )
  failed = []

  def fault(operation, path):
    if operation == moment and not failed:
      failed.append(path)
      raise OSError('again')

  store.fault = fault
  opened = object_store.open_bucket(store, attempts=2)
  opened.move('a', 'b', 3)
  assert failed and store.objects == {'bucket/run/b': b'new'}
  with pytest.raises(bucket.RemoteError, match='fake://bucket/run/a: moving'):
    opened.move('a', 'c', 3)


def test_the_error_of_one_stops_the_others():
  opened = object_store.open_bucket(object_store.ObjectStore())
  done = []

  def do(number):
    done.append(number)
    if number == 2:
      raise KeyError('third')

  with pytest.raises(KeyError, match='third'):
    opened.each('x', do, [(number,) for number in range(50)])
  assert done[:3] == [0, 1, 2] and len(done) < 50
  # It can be used again.
  opened.each('x', done.append, [(99,)])
  assert done[-1] == 99
