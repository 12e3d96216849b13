"""Tests of runs in a bucket, against a server on loopback."""

import collections
import os
import pathlib
import random
import shutil
import signal
import threading
import time

import pytest

from launch import chaos_differences
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import lease, paths
from tests import forks, gcs
from tests.parallel import rest_test as runs

# What makes a checkpoint whole.
_CHECKPOINT = '_CHECKPOINT_METADATA'
_KILLS = 8
# Most requests from the first write of a stage to its disturbance.
_REQUESTS = 40
# In their order, as names of objects have them.
_STAGES = (
  '/data/', '/bc/', '/grow_1/', '/improve_1_1/', '/bc-validation/',
  '/improve_1_1-validation/', '/report/',
)  # fmt: skip
_OUTAGE_SECONDS = 1.0


@pytest.fixture(scope='module')
def local(tmp_path_factory):
  """A run in a local folder."""
  return runs.small(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'user'))


def _finish(folder, log: pathlib.Path, *arguments: str) -> None:
  given = [*runs.SMALL, f'--model_dir={folder}', *arguments]
  forks.check([forks.start_run(given, log)], log)


def _downloaded(bucket_dir: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  filesystem, name = paths.filesystem(bucket_dir)
  shutil.rmtree(folder, ignore_errors=True)
  filesystem.get(name, str(folder), recursive=True)
  return folder


def _manifests(bucket_dir: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.parent.relative_to(bucket_dir)): path.read_bytes()
    for pattern in ('*', 'variants/*/*', 'evaluate/*', 'variants/*/evaluate/*')
    for path in bucket_dir.glob(f'{pattern}/{folder_lib.MANIFEST}')
  }


def _check_same(local: pathlib.Path, copy: pathlib.Path) -> None:
  """A run has what another has, and nothing besides."""
  assert not list(chaos_differences.find(local, copy))
  names = [
    {
      path.relative_to(folder).as_posix()
      for path in folder.rglob('*')
      if path.is_file() and 'checkpoints' not in path.parts
    }
    for folder in (local, copy)
  ]
  assert {
    name
    for name in names[0] ^ names[1]
    # A program may be killed between a manifest and the end of its settings.
    if 'events.out.tfevents' not in name
    and not name.endswith(('.lock', 'settings.json'))
  } == set()


def test_a_run_in_a_bucket_is_that_in_a_local_folder(
  local, bucket_dir, tmp_path
):
  log = tmp_path / 'log'
  _finish(bucket_dir, log)
  copy = _downloaded(bucket_dir, tmp_path / 'copy')
  _check_same(local, copy)
  assert list(copy.glob('*/events.out.tfevents*'))
  _damage(bucket_dir / 'grow_1' / 'samples-00001-of-00004.arrow')
  before = _manifests(bucket_dir)
  _finish(bucket_dir, log, '--verify=full')
  _check_same(local, _downloaded(bucket_dir, copy))
  # Only that stage was made again.
  after = _manifests(bucket_dir)
  assert [name for name in after if after[name] != before[name]] == ['grow_1']


def _damage(path: pathlib.Path) -> None:
  """Flips a bit in the middle of an object."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))


def test_two_workers_make_the_store_of_one(local, bucket_dir, tmp_path):
  given = [
    *runs.SMALL,
    f'--gin.DATA_DIR={local}/data',
    f'--gin.BC_DIR={local}/bc',
    f'--model_dir={bucket_dir}',
    '--run_mode=grow',
    '--gin.GROW_WORKERS=2',
  ]
  started = [
    forks.start_run(
      [
        *given,
        f'--gin.GROW_WORKER={worker}',
        f'--cache_dir={tmp_path / str(worker)}',
      ],
      tmp_path / 'log',
      f'host {worker}',
    )
    for worker in range(2)
  ]
  forks.check(started, tmp_path / 'log')
  copy = _downloaded(bucket_dir / 'grow_1', tmp_path / 'copy')
  assert runs.arrow_files(copy) == runs.arrow_files(local / 'grow_1')
  stages = [folder_lib.read_manifest(f) for f in (copy, local / 'grow_1')]
  assert len(set(map(folder_lib.content_digest, stages))) == 1
  assert not [path for path in copy.rglob('.*') if path.is_file()]


@pytest.mark.full
def test_two_processes_share_a_bucket(local, bucket_dir, tmp_path):
  given = [f'--gin.DATA_DIR={local}/data', f'--gin.BC_DIR={local}/bc']
  runs.finish([*runs.SMALL, *given], bucket_dir, 2, 2)
  copy = _downloaded(bucket_dir, tmp_path / 'copy')
  found = copy / 'grow_1'
  assert runs.arrow_files(found) == runs.arrow_files(local / 'grow_1')
  improved = 'variants/bc/improve_1_1'
  runs.same_training(copy / improved, local / improved)


@pytest.fixture
def s3_dir(monkeypatch):
  """A new folder of a server of the S3 API on loopback."""
  pytest.importorskip('s3fs', reason='needs pip install s3fs')
  moto = pytest.importorskip(
    'moto.server', reason='needs pip install "moto[server]"'
  )
  server = moto.ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  for name, value in {
    'AWS_ENDPOINT_URL': f'http://{host}:{port}',
    'AWS_ACCESS_KEY_ID': 'none',
    'AWS_SECRET_ACCESS_KEY': 'none',
    'AWS_REGION': 'us-east-1',
    'AWS_EC2_METADATA_DISABLED': 'true',
  }.items():
    monkeypatch.setenv(name, value)
  folder = paths.of('s3://bucket/run')
  paths.filesystem(folder)[0].mkdir('bucket')
  yield folder
  server.stop()


def test_a_run_in_s3_goes_on_on_another_machine(local, s3_dir, tmp_path):
  log = tmp_path / 'log'
  arguments = [*runs.SMALL, f'--model_dir={s3_dir}']
  first = forks.start_run(
    [*arguments, f'--cache_dir={tmp_path / "first"}'], log, 'first'
  )
  while not (s3_dir / 'bc' / 'checkpoints' / '3' / _CHECKPOINT).exists():
    assert first.is_alive(), log.read_text()[-3000:]
    time.sleep(0.05)
  first.kill()
  first.join()
  before = _manifests(s3_dir)
  _finish(s3_dir, log)
  copy = _downloaded(s3_dir, tmp_path / 'copy')
  _check_same(local, copy)
  after = _manifests(s3_dir)
  assert {name: after[name] for name in before} == before
  assert 'bc: resumes at step 3' in log.read_text()


class _Disturbance:
  """What happens to a program at some of its requests.

  The server is away for a while, up to twice; then the program is killed, and
  its host may be lost. Renewals of the lease do not count, so that a seed means
  the same requests on a slow machine.
  """

  def __init__(self, draws: random.Random, stage: int):
    """Draws the requests.

    Args:
      draws: the draws of a seed.
      stage: index of the stage that is disturbed, or the next after it.
    """
    self._draws = draws
    self._stages = _STAGES[stage:]
    self._lock = threading.Lock()
    kinds = ['connection'] * draws.randint(0, 2)
    self._kinds = [*kinds, draws.choice(('program', 'host'))]
    self._left = self._next()
    self._away_until = 0.0
    self.happened: list[str] = []
    self.process = None

  def _next(self) -> int:
    return self._draws.randint(1, self._draws.choice((3, 12, _REQUESTS)))

  def __call__(self, request: gcs.Request) -> None:
    with self._lock:
      if time.monotonic() < self._away_until:
        raise ConnectionError
      if request.name.endswith(lease.OWNER_FILE) or self.process is None:
        return
      if self._stages:
        if request.is_write and any(s in request.name for s in self._stages):
          self._stages = ()
        return
      self._left -= 1
      if self._left or not self._kinds:
        return
      kind = self._kinds.pop(0)
      self.happened.append(kind)
      self._left = self._next()
      if kind != 'connection':
        os.kill(self.process.pid, signal.SIGKILL)
        return
      self._away_until = time.monotonic() + _OUTAGE_SECONDS
      raise ConnectionError


def _under_way(folder: pathlib.Path) -> str:
  """Returns the stage that was begun and is not finished."""
  begun = {
    name.rpartition('/')[0]
    for name in paths.sizes(folder)
    if name.endswith('/settings.json')
  }
  begun -= set(_manifests(folder))
  return ', '.join(sorted(begun)) or 'between stages'


@pytest.mark.full
@pytest.mark.parametrize('seed', range(8))
def test_a_run_survives_kills_and_faults(
  local, gcs_server, bucket_dir, tmp_path, seed
):
  draws = random.Random(seed)
  gcs_server.faults = gcs.Faults(0.01, seed)
  log = tmp_path / 'log'
  counts, stages = collections.Counter(), collections.Counter()
  host, before = 0, {}
  for stage in sorted(draws.choices(range(len(_STAGES)), k=_KILLS)):
    cache_dir = tmp_path / f'cache {host}'
    disturbance = _Disturbance(draws, stage)
    gcs_server.on_request = disturbance
    disturbance.process = process = forks.start_run(
      [*runs.SMALL, f'--model_dir={bucket_dir}', f'--cache_dir={cache_dir}'],
      log,
      f'host {host}',
    )
    process.join()
    gcs_server.on_request = lambda request: None
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()[-3000:]
    after = _manifests(bucket_dir)
    assert {name: after.get(name) for name in before} == before
    before = after
    counts.update(disturbance.happened)
    if 'host' in disturbance.happened:
      shutil.rmtree(cache_dir, ignore_errors=True)
      host += 1
    if not process.exitcode:
      break
    stages[_under_way(bucket_dir)] += 1
  _finish(bucket_dir, log)
  after = _manifests(bucket_dir)
  assert {name: after.get(name) for name in before} == before
  _check_same(local, _downloaded(bucket_dir, tmp_path / 'copy'))
  print(dict(counts), dict(stages), gcs_server.faults.counts)
  assert counts.total() >= _KILLS // 2


@pytest.mark.full
@pytest.mark.parametrize('stage', ['/bc/', '/grow_1/'])
def test_who_was_taken_over_while_it_was_suspended_stops(
  local, gcs_server, bucket_dir, tmp_path, stage
):
  """The first is suspended, and goes on when the other has done the run."""
  log, suspended = tmp_path / 'log', threading.Event()

  def suspend(request):
    if stage in request.name and request.is_write:
      gcs_server.on_request = lambda _: None
      os.kill(first.pid, signal.SIGSTOP)
      suspended.set()

  gcs_server.on_request = suspend
  first = forks.start_run(
    [
      *runs.SMALL,
      f'--model_dir={bucket_dir}',
      f'--cache_dir={tmp_path / "first"}',
    ],
    log,
    'first',
  )
  assert suspended.wait(600)
  _finish(bucket_dir, tmp_path / 'log of second')
  _check_same(local, _downloaded(bucket_dir, tmp_path / 'copy'))
  before = paths.sizes(bucket_dir)
  gcs_server.written.clear()
  os.kill(first.pid, signal.SIGCONT)
  first.join()
  assert first.exitcode == 1
  assert 'was taken over by' in log.read_text()
  assert not gcs_server.written
  assert paths.sizes(bucket_dir) == before
