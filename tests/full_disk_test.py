"""Tests of every stage on a disk that is full, then has room again."""

import errno
import os
import pathlib
import shutil
import subprocess

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files

_MEGABYTES = 48
_PAGE = 4096


@pytest.fixture
def disk(tmp_path):
  """A small file system of its own."""
  path = tmp_path / 'disk'
  path.mkdir()
  try:
    subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', f'size={_MEGABYTES}m', 'tmpfs', str(path)],
      check=True,
      capture_output=True,
    )
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'a small file system cannot be mounted here: {error}')
  yield path
  subprocess.run(['umount', '-l', str(path)], check=True)


def _fill(disk: pathlib.Path, room: int) -> pathlib.Path:
  """Leaves so many bytes; returns what fills the rest."""
  ballast = disk / 'ballast'
  free = shutil.disk_usage(disk).free
  with open(ballast, 'wb') as opened:
    os.posix_fallocate(opened.fileno(), 0, max(free - room, _PAGE))
  return ballast


_STAGES = {
  'prepare': ('data', 'data'),
  'bc': ('bc', 'bc'),
  'reward': ('reward', 'reward'),
  'grow': ('grow_1', 'grow_1'),
  'improve': ('variants/bc/improve_1_1', 'improve_1_1'),
  'evaluate': ('evaluate/bc-test', 'evaluate_bc_test'),
}
# The others take longer.
_QUICK = ('prepare',)


@pytest.mark.parametrize(
  'stage',
  [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.full)
    for name in _STAGES
  ],
)
def test_a_stage_ends_with_clear_words_and_goes_on(run, disk, stage):
  name, made = _STAGES[stage]
  small = run_lib.Run(run.experiment, disk / 'run')
  shutil.copytree(
    run.model_dir,
    small.model_dir,
    ignore=lambda parent, names: [
      entry
      for entry in names
      if (pathlib.Path(parent) / entry).relative_to(run.model_dir).as_posix()
      in (name, '.jax_cache')
    ],
  )
  room, refused = 0, 0
  while True:
    ballast = _fill(disk, room)
    try:
      small.make(made)
      break
    except OSError as error:
      refused += 1
      assert error.errno == errno.ENOSPC, error
      assert files.is_of_disk(error)
      if isinstance(error, files.DiskError):
        assert 'its disk is full' in str(error)
        assert 'bytes are free' in str(error)
        assert str(disk) in str(error)
      else:
        assert str(disk) in str(error.filename)
    finally:
      ballast.unlink()
    room = max(2 * room, 2 * _PAGE)
    assert room < _MEGABYTES << 20
  assert refused >= 2
  assert not folder_lib.damages(small.model_dir / name, 'full')
  made, whole = (
    folder_lib.read_manifest(one.model_dir / name) for one in (small, run)
  )
  for key in ('files', 'shards', 'kept', 'measured'):
    assert made.get(key) == whole.get(key)
  if 'training' in whole:
    digests = [one['training']['params_digest'] for one in (made, whole)]
    assert digests[0] == digests[1]


def test_a_read_only_disk_is_named(disk):
  subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
  with pytest.raises(files.DiskError, match='read-only') as raised:
    files.write_json(disk / 'a' / 'x.json', {})
  assert str(disk / 'a' / 'x.json') in str(raised.value)
