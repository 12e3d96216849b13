"""Tests of online training by several processes."""

import json

import pytest

from rest_jax.online import ppo
from rest_jax.training import journal
from tests.parallel import spawn


def _train(folder, count):
  """Trains on two devices of one process, or on one of each of two."""
  module = ['-m', 'tests.parallel.online_training', str(spawn.free_port())]
  started = [
    spawn.start([*module, str(count), str(number), str(folder)], 2 // count)
    for number in range(count)
  ]
  texts = spawn.outputs(started, 600)
  assert [process.returncode for process in started] == [0] * count, texts
  return [json.loads(text.splitlines()[-1]) for text in texts]


@pytest.mark.full
def test_two_processes_train_as_one_does(tmp_path):
  folders = [tmp_path / 'one', tmp_path / 'two']
  one, first, second = [*_train(folders[0], 1), *_train(folders[1], 2)]
  assert first == second == one
  assert one['training']['steps'] == 2 * 2 * 2
  hashes, metrics = (
    [read(folder) for folder in folders]
    for read in (
      lambda folder: (folder / ppo.HASHES_FILE).read_bytes(),
      journal.read_metrics,
    )
  )
  assert hashes[0] == hashes[1]
  assert metrics[0] == metrics[1]
