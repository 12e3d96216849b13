"""Tests of who owns a folder in a bucket."""

from concurrent import futures
import json
import subprocess
import sys
import threading
import time

import pytest

from rest_jax.storage import files, lease, lock, paths
from rest_jax.training import checkpoints


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(lease, 'RENEW_SECONDS', 0.1)
  monkeypatch.setattr(lease, 'LOST_SECONDS', 1.0)
  monkeypatch.setattr(lease, '_POLL_SECONDS', 0.05)


def _owner(folder):
  return json.loads((folder / lease.OWNER_FILE).read_text())


def _left_by_another_machine(folder):
  """Writes the object of an owner whose machine is gone."""
  owner = {'process': 7, 'host': 'gone', 'since': '2026-01-01', 'boot': 'x'}
  (folder / lease.OWNER_FILE).write_text(json.dumps(owner))


def test_one_of_two_owners_works_and_the_other_is_told(bucket_dir):
  with lock.held(bucket_dir):
    owner = _owner(bucket_dir)
    with (
      pytest.raises(lock.LockedError) as refused,
      lock.held(bucket_dir),
    ):
      pass
    assert _owner(bucket_dir)['id'] == owner['id']
  for words in (
    f'process {owner["process"]} on {owner["host"]}, since {owner["since"]}',
    f'To take over while it runs, remove {bucket_dir}/.owner.json',
  ):
    assert words in str(refused.value)
  assert not bucket_dir.exists()
  with lock.held(bucket_dir):
    pass


def test_one_of_many_that_start_at_once_owns(gcs_server, bucket_dir):
  start = threading.Barrier(4)
  owners, refused = [], []

  def acquire(_):
    start.wait()
    try:
      owners.append(lease.Lease(bucket_dir, lease.OWNER_FILE))
    except lease.LockedError as error:
      refused.append(error)

  with futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(acquire, range(4)))
  [owner] = owners
  assert len(refused) == 3
  assert _owner(bucket_dir)['id'] == owner._content['id']
  owner.release()
  assert not bucket_dir.exists()


def test_an_owner_renews(bucket_dir):
  with lock.held(bucket_dir):
    time.sleep(1.5)
    assert _owner(bucket_dir)['renewed'] > 3
    lease.check()


def test_a_lost_owner_is_taken_over(bucket_dir, caplog):
  _left_by_another_machine(bucket_dir)
  began = time.monotonic()
  with lock.held(bucket_dir):
    assert time.monotonic() - began >= 1.0
    files.write_json(bucket_dir / 'x.json', {})
  assert 'takes over from process 7 on gone, since 2026-01-01' in caplog.text


def test_an_owner_that_ended_here_is_taken_over_at_once(
  bucket_dir, monkeypatch
):
  monkeypatch.setattr(lease, 'LOST_SECONDS', 3600.0)
  ended = subprocess.run(
    [sys.executable, '-c', 'import os; print(os.getpid())'],
    capture_output=True, check=True, text=True,
  )  # fmt: skip
  with lock.held(bucket_dir):
    owner = {**_owner(bucket_dir), 'process': int(ended.stdout)}
  (bucket_dir / lease.OWNER_FILE).write_text(json.dumps(owner))
  with lock.held(bucket_dir):
    assert _owner(bucket_dir)['id'] != owner['id']


def test_who_was_taken_over_writes_nothing(gcs_server, bucket_dir, monkeypatch):
  monkeypatch.setattr(lease.Lease, '_beat', lambda _: None)  # Is suspended.
  with lock.held(bucket_dir):
    [paused] = lease._held
    files.write_json(bucket_dir / 'x.json', {'by': 1})
    lease._held.clear()
    with lock.held(bucket_dir):  # Of another machine.
      new = _owner(bucket_dir)
      files.write_json(bucket_dir / 'x.json', {'by': 2})
      lease._held.append(paused)
      gcs_server.written.clear()
      for write in (
        lambda: files.write_json(bucket_dir / 'x.json', {'by': 1}),
        lambda: (bucket_dir / 'x.json').write_text('1'),
        (bucket_dir / 'x.json').unlink,
        lambda: paths.remove_tree(bucket_dir),
        lambda: checkpoints.Checkpoints(bucket_dir)._write(1, args=None),
      ):
        with pytest.raises(lease.TakenOverError, match='was taken over by'):
          write()
      assert files.read_json(bucket_dir / 'x.json') == {'by': 2}
      # Its attempt to renew was refused.
      assert not gcs_server.written
      assert _owner(bucket_dir)['id'] == new['id']
      lease._held.remove(paused)
    lease._held.append(paused)


def test_an_owner_whose_object_is_removed_stops(bucket_dir):
  with lock.held(bucket_dir):
    (bucket_dir / lease.OWNER_FILE).unlink()
    time.sleep(0.5)
    with pytest.raises(lease.TakenOverError):
      files.write_json(bucket_dir / 'x.json', {})
  assert not bucket_dir.exists()


def test_workers_share_a_folder_and_nobody_else_does(bucket_dir):
  with lock.held(bucket_dir, 0), lock.held(bucket_dir, 1):
    for worker in (None, 1):
      with (
        pytest.raises(lock.LockedError),
        lock.held(bucket_dir, worker),
      ):
        pass
  with lock.held(bucket_dir):
    with pytest.raises(lock.LockedError), lock.held(bucket_dir, 0):
      pass
    assert [path.name for path in bucket_dir.iterdir()] == [lease.OWNER_FILE]


def test_cut_connections_leave_one_owner(gcs_server, bucket_dir):
  """A request may count although its answer was lost."""

  def lose_answers(request):
    if request.name.endswith(lease.OWNER_FILE) and request.is_write:
      gcs_server.on_request = lambda _: None
      gcs_server._pass_on(request)
      raise ConnectionError

  gcs_server.on_request = lose_answers
  with lock.held(bucket_dir):
    gcs_server.on_request = lose_answers
    time.sleep(0.5)
    lease.check()
    assert _owner(bucket_dir)['renewed'] >= 1


def test_a_missing_bucket_ends_at_once(gcs_server):
  began = time.monotonic()
  with (
    pytest.raises(paths.BucketError, match='The bucket does not exist'),
    lock.held('gs://nothing/run'),
  ):
    pass
  assert time.monotonic() - began < 5


@pytest.mark.parametrize('status', [401, 403])
def test_a_missing_permission_ends_at_once(
  gcs_server, bucket_dir, monkeypatch, status
):
  monkeypatch.setattr(
    gcs_server, '_pass_on', lambda request: (status, {}, b'{"error": {}}')
  )
  with (
    pytest.raises(paths.BucketError, match='role Storage Object User'),
    lock.held(bucket_dir),
  ):
    pass


def test_the_copy_of_an_earlier_version_is_refused(bucket_dir):
  (bucket_dir / '.mirror' / 'commit-00000001.json').write_text('{}')
  with (
    pytest.raises(paths.BucketError, match='gcloud storage cp -r gs://'),
    lock.held(bucket_dir),
  ):
    pass
