"""Tests of runs that have a mirror at an address."""

import logging
import os
import pathlib
import signal

import pytest

from rest_jax.runtime import interruption
from rest_jax.storage import bucket, commits, lock, mirror, remote
from tests.storage import object_store


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
  """The files that a mirror holds in their places."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and commits.FOLDER not in path.parts
  }


@pytest.fixture
def opened(tmp_path):
  """A mirror in tmp_path/there, by its address, of tmp_path/here."""
  return remote.open_mirror(f'file://{tmp_path}/there', tmp_path / 'here')


@pytest.mark.parametrize(
  'address, shown, folder',
  [
    ('gs://bucket/runs/a', 'gs://bucket/runs/a', 'runs/a'),
    ('gs://bucket/a/?project_id=x', 'gs://bucket/a', 'runs/a'),
    ('s3://key:secret@bucket/b?region=x', 's3://bucket/b', 'runs/b'),
    (
      'abfs://c@account.dfs.core.windows.net/b',
      'abfs://c@account.dfs.core.windows.net/b',
      'runs/b',
    ),
    ('file:///tmp/a', 'file:///tmp/a', 'runs/a'),
  ],
)
def test_an_address_is_shown_without_keys(address, shown, folder):
  assert remote.shown(address) == shown
  assert remote.default_folder(address) == pathlib.Path(folder)


@pytest.mark.parametrize('address', ['gs://', 'gs://bucket', 'gs://bucket/'])
def test_an_address_names_a_folder(address):
  with pytest.raises(ValueError, match='must name a folder'):
    remote.default_folder(address)


def test_an_address_of_no_filesystem_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'--model_dir must be .*got foo://b/a:'):
    remote.open_mirror('foo://b/a', tmp_path)


def test_google_s_own_retries_end(monkeypatch, tmp_path):
  """They would go on for a quarter of an hour in each attempt of ours."""
  taken = []

  class FileSystem:
    type_name = 'gcs'

    @classmethod
    def from_uri(cls, address):
      taken.append(address)
      return cls(), 'b/a'

  monkeypatch.setattr(remote.fs, 'FileSystem', FileSystem)
  for address in ('gs://b/a', 'gs://b/a?project_id=x'):
    remote.open_mirror(address, tmp_path)
  remote.open_mirror('gs://b/a?retry_limit_seconds=5', tmp_path)
  assert taken == [
    'gs://b/a?retry_limit_seconds=30',
    'gs://b/a?project_id=x&retry_limit_seconds=30',
    'gs://b/a?retry_limit_seconds=5',
  ]


def test_google_s_filesystem_takes_that_option(tmp_path):
  remote.open_mirror('gs://bucket/run', tmp_path)


def test_a_run_is_sent_when_stages_say_so_and_at_its_end(tmp_path, opened):
  here, there = tmp_path / 'here', tmp_path / 'there'
  with remote.kept(opened):
    (here / 'a.gz').write_bytes(b'no gzip')
    assert not _contents(there)
    remote.push()
    assert _contents(there) == {'a.gz': b'no gzip'}
    (here / 'b').write_bytes(b'2')
  assert _contents(there) == {'a.gz': b'no gzip', 'b': b'2'}
  # Not any more.
  (here / 'c').write_bytes(b'3')
  remote.push()
  assert 'c' not in _contents(there)
  # Elsewhere it is there.
  other = remote.open_mirror(f'file://{there}', tmp_path / 'other')
  with remote.kept(other):
    assert (tmp_path / 'other/a.gz').read_bytes() == b'no gzip'
    (tmp_path / 'other/a.gz').unlink()
  assert _contents(there) == {'b': b'2'}


def test_without_an_address_nothing_is_sent():
  remote.push()


@pytest.mark.parametrize(
  'error', [KeyError('x'), interruption.Interrupted(signal.SIGTERM)]
)
def test_a_run_that_fails_is_sent_as_it_is(tmp_path, opened, error):
  with pytest.raises(type(error)) as raised, remote.kept(opened):
    (tmp_path / 'here/a').write_bytes(b'1')
    raise error
  assert raised.value is error
  assert _contents(tmp_path / 'there') == {'a': b'1'}


def _failing(tmp_path) -> tuple[mirror.Mirror, list]:
  """A mirror that works until the list has something."""
  store, failures = object_store.ObjectStore(), []

  def fault(operation, path):
    if failures:
      failures.append(path)
      raise OSError('no network')

  store.fault = fault
  return mirror.Mirror(object_store.open_bucket(store), tmp_path), failures


def test_what_ended_a_run_is_worth_more_than_the_mirror(tmp_path, caplog):
  opened, failures = _failing(tmp_path)
  with pytest.raises(KeyError, match='cause'), remote.kept(opened):
    (tmp_path / 'a').write_bytes(b'1')
    failures.append('now')
    raise KeyError('cause')
  assert 'no network' in caplog.text
  assert (tmp_path / 'a').read_bytes() == b'1'


def test_a_failed_push_ends_the_run_and_is_not_repeated(tmp_path):
  opened, failures = _failing(tmp_path)
  with (
    pytest.raises(bucket.RemoteError, match='no network'),
    remote.kept(opened),
  ):
    (tmp_path / 'a').write_bytes(b'1')
    failures.append('now')
    remote.push()
  assert len(failures) == 2


def test_a_signal_ends_a_wait_of_the_mirror(tmp_path):
  """A wait between attempts, in whichever thread, is no reason to go on."""
  store = object_store.ObjectStore()
  opened = bucket.Bucket(
    object_store.open_bucket(store)._filesystem, 'bucket/run', 'fake://run'
  )
  (tmp_path / 'a').write_bytes(b'1')
  sent = []

  def fault(operation, path):
    if operation == 'write' and not path.endswith('.json'):
      if not sent:
        sent.append(os.kill(os.getpid(), signal.SIGTERM))
      raise OSError('no network')

  run = mirror.Mirror(opened, tmp_path, adopts=True)
  run.pull()
  store.fault = fault
  with interruption.handled(), pytest.raises(interruption.Interrupted):
    run.push()
  # As it did not wait, there was but one attempt.
  assert [operation for operation, _ in store.log].count('write') == 1


def test_a_reader_leaves_a_folder_that_a_run_writes(tmp_path, opened, caplog):
  here = tmp_path / 'here'
  with remote.kept(opened):
    (here / 'a').write_bytes(b'1')
  reader = remote.open_mirror(f'file://{tmp_path}/there', tmp_path / 'reader')
  # Programs make absl's logger quiet, and stay so.
  caplog.set_level(logging.INFO, logger='absl')
  with lock.held(tmp_path / 'reader'):
    remote.fetch(reader, tmp_path / 'reader')
  assert 'not fetched' in caplog.text
  assert not (tmp_path / 'reader/a').exists()
  remote.fetch(reader, tmp_path / 'reader')
  assert (tmp_path / 'reader/a').read_bytes() == b'1'
