"""Tests of runs in a bucket, against a server on loopback."""

import os
import pathlib
import random
import signal

import pytest

from launch import chaos_differences
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import lease, paths
from tests.parallel import rest_test as runs
from tests.parallel import spawn


@pytest.fixture(scope='module')
def local(tmp_path_factory):
  """A run in a local folder."""
  return runs.small(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'user'))


def _differences(
  local: pathlib.Path, bucket_dir: pathlib.Path, folder: pathlib.Path
) -> list[str]:
  """Compares a run with one in a bucket, which is downloaded."""
  filesystem, name = paths.filesystem(bucket_dir)
  filesystem.get(name, str(folder), recursive=True)
  return list(chaos_differences.find(local, folder))


def test_a_run_in_a_bucket_is_that_in_a_local_folder(
  local, bucket_dir, tmp_path
):
  runs.finish(runs.SMALL, bucket_dir, 1, 1)
  assert not _differences(local, bucket_dir, tmp_path / 'copy')
  copied = {path.name for path in (tmp_path / 'copy').rglob('*')}
  assert {'index.html', 'operative_config.gin'} <= copied
  assert any(name.startswith('events.out.tfevents') for name in copied)
  assert lease.OWNER_FILE not in copied
  _damage(bucket_dir / 'grow_1' / 'samples-00001-of-00004.arrow')
  before = {
    path.parent.name: path.read_bytes()
    for path in bucket_dir.glob('*/manifest.json')
  }
  runs.finish([*runs.SMALL, '--verify=full'], bucket_dir, 1, 1)
  assert not _differences(local, bucket_dir, tmp_path / 'again')
  # Only that stage was made again.
  assert [
    name
    for name, content in before.items()
    if (bucket_dir / name / folder_lib.MANIFEST).read_bytes() != content
  ] == ['grow_1']


def _damage(path: pathlib.Path) -> None:
  """Flips a bit in the middle of an object."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))


def test_two_processes_share_a_bucket(local, bucket_dir, tmp_path):
  given = [f'--gin.DATA_DIR={local}/data', f'--gin.BC_DIR={local}/bc']
  runs.finish([*runs.SMALL, *given], bucket_dir, 2, 2)
  filesystem, name = paths.filesystem(bucket_dir)
  filesystem.get(name, str(tmp_path / 'copy'), recursive=True)
  found = tmp_path / 'copy' / 'grow_1'
  assert runs.arrow_files(found) == runs.arrow_files(local / 'grow_1')
  improved = 'variants/bc/improve_1_1'
  runs.same_training(tmp_path / 'copy' / improved, local / improved)


@pytest.mark.full
@pytest.mark.parametrize('seed', range(8))
def test_a_run_survives_kills_and_faults(
  local, gcs_server, bucket_dir, tmp_path, seed
):
  """The program is killed at its nth request, and its host's disk is lost."""
  draws = random.Random(seed)
  gcs_server.faults.rate, gcs_server.faults.seed = 0.01, seed
  gcs_server.faults.__post_init__()
  for kill in range(8):
    left = draws.randint(1, 400)
    [process] = spawn.start_run(
      [
        *runs.SMALL,
        f'--model_dir={bucket_dir}',
        f'--cache_dir={tmp_path / str(kill)}',
      ],
      1,
      1,
    )

    def count(request, process=process):
      nonlocal left
      left -= 1
      if left == 0:
        os.kill(process.pid, signal.SIGKILL)

    gcs_server.on_request = count
    spawn.outputs([process], 900)
    assert process.returncode in (0, -signal.SIGKILL)
  gcs_server.on_request = lambda request: None
  finished = {
    str(path): path.read_bytes()
    for pattern in ('*/manifest.json', 'variants/*/*/manifest.json')
    for path in bucket_dir.glob(pattern)
  }
  runs.finish(runs.SMALL, bucket_dir, 1, 1)
  assert not _differences(local, bucket_dir, tmp_path / 'copy')
  for path, content in finished.items():
    assert paths.of(path).read_bytes() == content, path
