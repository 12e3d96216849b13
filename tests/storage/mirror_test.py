"""Tests of mirrors on a store that fails, and of programs killed at any point."""

from concurrent import futures
import hashlib
import os
import pathlib
import random
import shutil
import threading

import pytest

from rest_jax.storage import bucket, commits, mirror, mirrored_folder
from tests.storage import object_store

_FIRST = {
  'a.json': b'one',
  'bc/metrics.jsonl': b'1\n2\n',
  'bc/checkpoints/5/params/d/x1': b'old weights',
  'grow_1/.raw-r/00000.npz': b'raw',
  'text.gz': b'no gzip',
}
_SECOND = {
  'a.json': b'two',
  'bc/metrics.jsonl': b'1\n2\n3\n',
  'bc/checkpoints/9/params/d/y1': b'new weights',
  'bc/empty': b'',
  'copy.json': b'two',
  'text.gz': b'no gzip',
}


@pytest.fixture(autouse=True)
def _without_waiting_for_disks(monkeypatch):
  monkeypatch.setattr(os, 'fsync', lambda descriptor: None)


def _fill(folder: pathlib.Path, contents: dict[str, bytes]) -> None:
  """Makes a folder hold just these files."""
  for name, content in contents.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
      path.write_bytes(content)
  for name in _contents(folder).keys() - contents.keys():
    (folder / name).unlink()


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and path.name != mirrored_folder.MARKER_FILE
  }


def _open(store, folder, *, adopts=True, **settings) -> mirror.Mirror:
  opened = object_store.open_bucket(store, **settings)
  return mirror.Mirror(opened, folder, adopts=adopts)


def _sent(store, folder, contents, **settings) -> mirror.Mirror:
  """A mirror to which a folder with these files was sent."""
  _fill(folder, contents)
  opened = _open(store, folder, **settings)
  opened.pull()
  opened.push()
  return opened


def _fetched(objects, folder) -> dict[str, bytes]:
  """What a machine that has nothing gets."""
  assert not folder.exists()
  _open(object_store.ObjectStore(objects), folder).pull()
  found = _contents(folder)
  shutil.rmtree(folder, ignore_errors=True)
  return found


def _in_place(store: object_store.ObjectStore) -> dict[str, bytes]:
  """The objects that have names of files."""
  prefix = 'bucket/run/'
  return {
    path.removeprefix(prefix): content
    for path, content in store.objects.items()
    if not path.startswith(prefix + commits.FOLDER)
  }


def test_an_address_holds_files_by_their_names_and_one_commit(tmp_path):
  store = object_store.ObjectStore()
  opened = _sent(store, tmp_path / 'a', _FIRST)
  _fill(tmp_path / 'a', _SECOND)
  opened.push()
  assert _in_place(store) == _SECOND
  own = [path for path in store.objects if commits.FOLDER in path]
  assert len(own) == 1 and '/commit-00000002-' in own[0]
  assert _fetched(store.objects, tmp_path / 'b') == _SECOND


def test_what_has_not_changed_is_not_sent_again(tmp_path):
  store = object_store.ObjectStore()
  opened = _sent(store, tmp_path / 'a', _FIRST)
  store.log.clear()
  opened.push()
  assert not store.log
  # Written anew with the same bytes.
  (tmp_path / 'a/a.json').write_bytes(b'x')
  (tmp_path / 'a/a.json').write_bytes(_FIRST['a.json'])
  opened.push()
  assert not store.log
  _fill(tmp_path / 'a', {**_FIRST, 'a.json': b'1ne'})
  opened.push()
  moved = {path for operation, path in store.log if operation == 'move'}
  assert moved == {'bucket/run/a.json'}


def test_halves_locks_and_compiled_programs_stay_here(tmp_path):
  store = object_store.ObjectStore()
  _sent(
    store,
    tmp_path / 'a',
    {
      'kept': b'x',
      '.lock': b'',
      '.lock_worker_1': b'',
      '.x.host.1.tmp': b'half',
      '.grow_1.removed/samples': b'x',
      '.jax_cache/jit_step-cache': b'x',
      'bc/checkpoints/5.orbax-checkpoint-tmp-12/params': b'half',
      'wandb/run/files': b'x',
    },
  )
  assert _in_place(store) == {'kept': b'x'}


@pytest.mark.parametrize('before', [None, _FIRST])
def test_a_push_killed_anywhere_leaves_one_commit_or_the_other(
  tmp_path, before
):
  """Of each program that is killed, another goes on in its folder."""
  folder, work = tmp_path / 'start', tmp_path / 'work'
  folder.mkdir()
  store = object_store.ObjectStore()
  if before:
    _sent(store, folder, before)
  objects, seen = store.objects, []
  _fill(folder, _SECOND)
  for kill_at in range(10_000):
    shutil.copytree(folder, work)
    killed = object_store.ObjectStore(objects)
    opened = _open(killed, work)
    opened.pull()
    killed.log.clear()
    killed.kill_at = kill_at
    try:
      opened.push()
      is_over = len(killed.log) == kill_at
    except object_store.Killed:
      is_over = False
    found = _fetched(killed.objects, tmp_path / 'other')
    seen.append(found)
    assert found in ((before or {}), _SECOND), kill_at
    again = _sent(object_store.ObjectStore(killed.objects), work, _SECOND)
    store = again._bucket._filesystem.handler
    assert _in_place(store) == _SECOND
    # One commit, and nothing that waits.
    assert len(store.objects) == len(_SECOND) + 1
    assert not list(tmp_path.glob('*.kept_*'))
    shutil.rmtree(work)
    if is_over:
      break
  # Neither lost nor found again.
  switch = seen.index(_SECOND)
  assert seen == [before or {}] * switch + [_SECOND] * (len(seen) - switch)
  assert 10 < switch < len(seen) - 10


def test_a_machine_that_has_nothing_goes_on_after_any_kill(tmp_path):
  """As above, with the folder lost as well."""
  folder, work = tmp_path / 'start', tmp_path / 'work'
  store = object_store.ObjectStore()
  _sent(store, folder, _FIRST)
  objects = store.objects
  _fill(folder, _SECOND)
  third = {**_FIRST, 'third': b'3', 'a.json': b'three'}
  for kill_at in range(0, 10_000, 3):
    shutil.copytree(folder, work)
    killed = object_store.ObjectStore(objects)
    opened = _open(killed, work)
    opened.pull()
    killed.log.clear()
    killed.kill_at = kill_at
    try:
      opened.push()
      is_over = len(killed.log) <= kill_at
    except object_store.Killed:
      is_over = False
    shutil.rmtree(work)
    store = object_store.ObjectStore(killed.objects)
    opened = _open(store, work)
    opened.pull()
    _fill(work, third)
    opened.push()
    assert _in_place(store) == third
    assert len(store.objects) == len(third) + 1
    shutil.rmtree(work)
    if is_over:
      return
  raise AssertionError('it never ended')


def test_a_pull_killed_anywhere_is_made_again(tmp_path):
  store = object_store.ObjectStore()
  folder = tmp_path / 'start'
  _sent(store, folder, _FIRST)
  other = _open(store, tmp_path / 'writer')
  other.pull()
  _fill(tmp_path / 'writer', _SECOND)
  other.push()
  # Work that the address does not have.
  (folder / 'mine').write_bytes(b'mine')
  (folder / 'a.json').write_bytes(b'mine too')
  for kill_at in range(10_000):
    work = tmp_path / f'{kill_at}' / 'work'
    shutil.copytree(folder, work)
    again = object_store.ObjectStore(store.objects)
    again.kill_at = kill_at
    try:
      _open(again, work).pull()
      is_over = True
    except object_store.Killed:
      is_over = False
    _open(object_store.ObjectStore(store.objects), work).pull()
    assert _contents(work) == _SECOND
    # No empty folder, which might be taken for a checkpoint.
    assert not (work / 'bc/checkpoints/5').exists()
    kept = work.with_name('work.kept_1')
    assert _contents(kept) == {'mine': b'mine', 'a.json': b'mine too'}
    shutil.rmtree(work.parent)
    if is_over:
      return
  raise AssertionError('it never ended')


@pytest.mark.parametrize('seed', range(8))
def test_faults_now_and_then_lose_and_double_nothing(tmp_path, seed):
  """Failures before, within and after what is done, in several threads."""
  draw = random.Random(seed)
  store = object_store.ObjectStore()
  num_faults = 0

  def fault(operation, path):
    nonlocal num_faults
    if draw.random() < 0.15:
      num_faults += 1
      kind = draw.choice([OSError, TimeoutError, ConnectionResetError])
      raise kind(f'{operation} of {path}')

  def edited(contents):
    contents = dict(contents)
    for name in draw.sample(sorted(contents), len(contents) // 3):
      del contents[name]
    for _ in range(4):
      name = f'{draw.randrange(3)}/{draw.randrange(6)}'
      contents[name] = draw.randbytes(draw.randrange(2000))
    return contents

  store.fault = fault
  settings = {'attempts': 200, 'num_threads': 3}
  contents = edited({})
  opened = _sent(store, tmp_path / 'a', contents, **settings)
  for _ in range(6):
    contents = edited(contents)
    _fill(tmp_path / 'a', contents)
    opened.push()
    assert _in_place(store) == contents
    assert len(store.objects) == len(contents) + 1
  _open(store, tmp_path / 'b', **settings).pull()
  assert _contents(tmp_path / 'b') == contents
  assert num_faults > 50


def test_a_push_that_fails_for_good_loses_no_work(tmp_path):
  store = object_store.ObjectStore()
  opened = _sent(store, tmp_path / 'a', _FIRST, attempts=3)
  _fill(tmp_path / 'a', _SECOND)

  def fault(operation, path):
    if operation == 'part written' and path.endswith('.json'):
      raise OSError('out of order')

  store.fault = fault
  with pytest.raises(bucket.RemoteError) as raised:
    opened.push()
  told = str(raised.value)
  assert 'fake://bucket/run/.mirror/' in told and '3 attempts' in told
  assert 'out of order' in told and 'same command again' in told
  assert _contents(tmp_path / 'a') == _SECOND
  assert _fetched(store.objects, tmp_path / 'b') == _FIRST
  # In the same program, and in a new one.
  store.fault = lambda operation, path: None
  opened.push()
  assert _fetched(store.objects, tmp_path / 'b') == _SECOND


def test_a_commit_that_was_written_though_it_seemed_to_fail(tmp_path):
  store = object_store.ObjectStore()
  opened = _sent(store, tmp_path / 'a', _FIRST)
  _fill(tmp_path / 'a', _SECOND)

  def fault(operation, path):
    if operation == 'written' and '/commit-' in path:
      raise OSError('who knows')

  store.fault = fault
  with pytest.raises(bucket.RemoteError, match='who knows'):
    opened.push()
  store.fault = lambda operation, path: None
  assert _fetched(store.objects, tmp_path / 'b') == _SECOND
  copied = object_store.ObjectStore(store.objects)
  shutil.copytree(tmp_path / 'a', tmp_path / 'copied')
  opened.push()
  assert _in_place(store) == _SECOND
  # A new program, too, knows that this commit is its own.
  _sent(copied, tmp_path / 'copied', _FIRST)
  assert _in_place(copied) == _FIRST
  assert not (tmp_path / 'copied.kept_1').exists()


@pytest.mark.parametrize(
  'damage',
  [lambda x: x[:-1], lambda x: bytes([x[0] ^ 1]) + x[1:], lambda x: None],
)
def test_a_damaged_object_is_named(tmp_path, damage):
  store = object_store.ObjectStore()
  _sent(store, tmp_path / 'a', _FIRST)
  whole = dict(store.objects)
  for path in sorted(whole):
    store.objects = dict(whole)
    damaged = damage(store.objects.pop(path))
    if damaged is not None:
      store.objects[path] = damaged
    with pytest.raises(bucket.RemoteError) as raised:
      _open(store, tmp_path / 'b').pull()
    name = 'fake://' + path
    is_lost_commit = damaged is None and '/commit-' in path
    assert is_lost_commit or name in str(raised.value)
    # It can be restored, and the pull goes on.
    store.objects = dict(whole)
    _open(store, tmp_path / 'b').pull()
    assert _contents(tmp_path / 'b') == _FIRST
    shutil.rmtree(tmp_path / 'b')


def test_a_run_that_starts_later_takes_over(tmp_path):
  store = object_store.ObjectStore()
  one = _sent(store, tmp_path / 'a', _FIRST)
  other = _open(store, tmp_path / 'b')
  other.pull()
  other.push()
  _fill(tmp_path / 'b', _SECOND)
  other.push()
  before = dict(store.objects)
  (tmp_path / 'a/mine').write_bytes(b'mine')
  with pytest.raises(mirror.OtherWriterError, match='another run writes to'):
    one.push()
  assert store.objects == before
  assert (tmp_path / 'a/mine').read_bytes() == b'mine'
  # Started again, it goes on from there, and keeps what nobody else has.
  again = _open(store, tmp_path / 'a')
  again.pull()
  assert _contents(tmp_path / 'a') == _SECOND
  assert _contents(tmp_path / 'a.kept_1') == {'mine': b'mine'}
  again.push()
  (tmp_path / 'b/mine').write_bytes(b'mine')
  with pytest.raises(mirror.OtherWriterError):
    other.push()


@pytest.mark.parametrize('moment', ['write', 'written'])
def test_of_two_pushes_one_stops(tmp_path, moment):
  store = object_store.ObjectStore()
  one = _sent(store, tmp_path / 'a', _FIRST)
  other = _open(store, tmp_path / 'b')
  other.pull()
  _fill(tmp_path / 'a', {**_FIRST, 'a.json': b'of one'})
  _fill(tmp_path / 'b', {**_FIRST, 'a.json': b'of the other'})
  stopped = []

  def push(who):
    try:
      who.push()
    except mirror.OtherWriterError:
      stopped.append(who)

  def fault(operation, path):
    if (operation, '/commit-' in path) == (moment, True):
      store.fault = lambda operation, path: None
      push(other)

  store.fault = fault
  push(one)
  # Before the commit of one is there, the other may write its own.
  assert stopped == [one if moment == 'write' else other]
  winner = b'of the other' if moment == 'write' else b'of one'
  found = _fetched(store.objects, tmp_path / 'c')
  assert found == {**_FIRST, 'a.json': winner}


def test_of_two_commits_at_one_moment_none_counts(tmp_path):
  store = object_store.ObjectStore()
  both = [_sent(store, tmp_path / 'a', _FIRST), _open(store, tmp_path / 'b')]
  both[1].pull()
  _fill(tmp_path / 'a', {**_FIRST, 'a.json': b'of one'})
  _fill(tmp_path / 'b', {**_FIRST, 'a.json': b'of the other'})
  meetings = {
    moment: threading.Barrier(2, timeout=30)
    for moment in ('write', 'written', 'remove')
  }

  def fault(operation, path):
    if operation in meetings and '/commit-' in path:
      meetings[operation].wait()

  store.fault = fault
  with futures.ThreadPoolExecutor(2) as pool:
    pushed = [pool.submit(one.push) for one in both]
    errors = [one.exception() for one in pushed]
  assert [type(error) for error in errors] == [mirror.OtherWriterError] * 2
  store.fault = lambda operation, path: None
  assert _fetched(store.objects, tmp_path / 'c') == _FIRST


def test_a_half_of_what_is_in_its_place_is_removed(tmp_path):
  """Sent by a run that was taken over, whose files are the same ones."""
  store = object_store.ObjectStore()
  opened = _sent(store, tmp_path / 'a', _FIRST)
  content = _FIRST['a.json']
  digest = hashlib.sha256(content).hexdigest()
  half = f'bucket/run/{commits.pending_name("a.json", digest)}'
  store.objects[half] = content[:1]
  changed = {**_FIRST, 'new': b'x'}
  _fill(tmp_path / 'a', changed)
  opened.push()
  assert _in_place(store) == changed
  assert half not in store.objects


def test_a_program_that_was_paused_removes_nothing_of_another(tmp_path):
  store = object_store.ObjectStore()
  one = _sent(store, tmp_path / 'a', {**_FIRST, 'twice': b'x'})
  other = _open(store, tmp_path / 'b')
  third = {**_SECOND, 'twice': b'y'}
  (tmp_path / 'a/twice').unlink()

  def fault(operation, path):
    # Its commit is there, and it reads the one before, to see what is to go.
    is_second = any('/commit-00000002' in other for other in store.objects)
    if (operation, is_second) == ('part read', True):
      store.fault = lambda operation, path: None
      other.pull()
      _fill(tmp_path / 'b', third)
      other.push()

  store.fault = fault
  with pytest.raises(mirror.OtherWriterError):
    one.push()
  assert _fetched(store.objects, tmp_path / 'c') == third


def test_a_reader_waits_for_the_commit_after(tmp_path):
  """What it reads is replaced under its hands."""
  store = object_store.ObjectStore()
  writer = _sent(store, tmp_path / 'a', _FIRST)

  def fault(operation, path):
    if operation == 'read' and path.endswith('run/a.json'):
      store.fault = lambda operation, path: None
      _fill(tmp_path / 'a', _SECOND)
      writer.push()

  store.fault = fault
  _open(store, tmp_path / 'b').pull()
  assert _contents(tmp_path / 'b') == _SECOND


def test_a_folder_of_something_else_is_left_alone(tmp_path):
  store = object_store.ObjectStore()
  _sent(store, tmp_path / 'a', _FIRST)
  _fill(tmp_path / 'b', {'thesis.txt': b'x'})
  with pytest.raises(
    bucket.RemoteError, match=r'such as thesis\.txt'
  ) as raised:
    _open(store, tmp_path / 'b').pull()
  assert str(tmp_path / 'b') in str(raised.value)
  assert 'fake://bucket/run' in str(raised.value)
  assert _contents(tmp_path / 'b') == {'thesis.txt': b'x'}
  with pytest.raises(bucket.RemoteError, match='mirrors fake://bucket/run;'):
    _open(store, tmp_path / 'a', root='bucket/other').pull()


def test_an_address_of_something_else_is_left_alone(tmp_path):
  store = object_store.ObjectStore({'bucket/run/thesis.txt': b'x'})
  with pytest.raises(bucket.RemoteError, match='objects but no commit'):
    _open(store, tmp_path / 'a').pull()
  assert store.objects == {'bucket/run/thesis.txt': b'x'}


def test_a_folder_is_sent_for_the_first_time_only_if_that_is_said(tmp_path):
  store = object_store.ObjectStore()
  _fill(tmp_path / 'a', _FIRST)
  with pytest.raises(bucket.RemoteError, match='--work_dir='):
    _open(store, tmp_path / 'a', adopts=False).pull()
  _sent(store, tmp_path / 'a', _FIRST, adopts=True)
  assert _in_place(store) == _FIRST


def test_a_copy_of_the_run_is_no_stranger(tmp_path):
  """A folder with the same files needs no marker."""
  store = object_store.ObjectStore()
  _sent(store, tmp_path / 'a', _FIRST)
  _fill(tmp_path / 'b', _FIRST)
  store.log.clear()
  _open(store, tmp_path / 'b').pull()
  assert not [path for _, path in store.log if 'metrics' in path]
  assert _contents(tmp_path / 'b') == _FIRST


def test_an_emptied_address_is_not_filled_again_in_silence(tmp_path):
  store = object_store.ObjectStore()
  opened = _sent(store, tmp_path / 'a', _FIRST)
  store.objects.clear()
  _fill(tmp_path / 'a', _SECOND)
  with pytest.raises(mirror.OtherWriterError, match='gone'):
    opened.push()
  with pytest.raises(bucket.RemoteError, match='holds nothing now'):
    _open(store, tmp_path / 'a').pull()
  (tmp_path / 'a' / mirrored_folder.MARKER_FILE).unlink()
  _sent(store, tmp_path / 'a', _SECOND)
  assert _in_place(store) == _SECOND


def test_an_emptied_folder_is_fetched_again(tmp_path):
  """As after rm -rf folder/*, which leaves what is hidden."""
  store = object_store.ObjectStore()
  _sent(store, tmp_path / 'a', {**_FIRST, '.hidden': b'x'})
  for path in (tmp_path / 'a').glob('[!.]*'):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  _open(store, tmp_path / 'a').pull()
  assert _contents(tmp_path / 'a') == {**_FIRST, '.hidden': b'x'}


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
  for name in ('../x', '/x', 'a/../../x', 'a//x', './x'):
    with pytest.raises(ValueError, match='no path of a file inside'):
      mirrored_folder.as_inventory({name: (1, 'a')})
  assert mirrored_folder.as_inventory({'a/..b': [1, 'a']}) == {
    'a/..b': (1, 'a')
  }


def test_a_description_changes_nothing(tmp_path):
  store = object_store.ObjectStore()
  opened = _open(store, tmp_path / 'b')
  assert 'holds no run yet' in opened.describe()
  _sent(store, tmp_path / 'a', _FIRST)
  before = dict(store.objects)
  assert 'made equal to it' in opened.describe()
  assert f'{len(_FIRST)} files' in opened.describe()
  assert 'a leads' in _open(store, tmp_path / 'a').describe()
  assert store.objects == before
  assert not (tmp_path / 'b').exists()
