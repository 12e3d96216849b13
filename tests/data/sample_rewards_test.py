"""Tests of the reward files of a sample store."""

import numpy as np
import pytest

from rest_jax.data import sample_rewards, sample_shards
from rest_jax.storage import files


def _write_samples(directory, shard=0, num_shards=1, number=3, token=5):
  rows = sample_shards.SampleRows(
    source_id=np.full(number, shard),
    sample_id=np.arange(number),
    tokens=[np.array([token, 1])] * number,
    log_prob=np.zeros(number, np.float32),
    finished=np.ones(number, bool),
  )
  return sample_shards.write_shard(directory, shard, num_shards, rows, 50)


def test_rewards_come_back_row_by_row(tmp_path):
  samples = _write_samples(tmp_path)
  raw, reward = np.array([3.0, -1.0, 2.0]), np.array([1.0, -0.5, 0.75])
  info = sample_rewards.write_rewards(tmp_path, 'a-b.c', 0, 1, raw, reward)
  path = tmp_path / 'rewards' / 'a-b.c-00000-of-00001.arrow'
  assert sample_rewards.rewards_path(tmp_path, 'a-b.c', 0, 1) == path
  assert info.file == path.name
  assert (info.rows, info.sha256) == (3, files.sha256(path))
  made = sample_rewards.read_rewards(
    path, rows=3, samples_sha256=samples.sha256
  )
  for column, expected in zip(made, (raw, reward), strict=True):
    assert column.dtype == np.float32
    np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_no_number_is_refused(tmp_path, which, bad):
  _write_samples(tmp_path)
  columns = [np.zeros(3), np.zeros(3)]
  columns[which][1] = bad
  name = ('raw', 'reward')[which]
  with pytest.raises(ValueError, match=f'{name} must be finite; .* in row 1 '):
    sample_rewards.write_rewards(tmp_path, 'r', 0, 1, *columns)
  assert not (tmp_path / 'rewards').exists()


@pytest.mark.parametrize('shape', [(2,), (4,), (3, 1), ()])
def test_a_reward_for_each_row(tmp_path, shape):
  _write_samples(tmp_path)
  with pytest.raises(ValueError, match=r'raw must have one number .* 3 rows'):
    sample_rewards.write_rewards(
      tmp_path, 'r', 0, 1, np.zeros(shape), np.zeros(3)
    )
  with pytest.raises(ValueError, match='reward must have one number'):
    sample_rewards.write_rewards(
      tmp_path, 'r', 0, 1, np.zeros(3), np.zeros(shape)
    )


def test_the_samples_come_first(tmp_path):
  with pytest.raises(FileNotFoundError, match='samples-00000-of-00001'):
    sample_rewards.write_rewards(tmp_path, 'r', 0, 1, np.zeros(3), np.zeros(3))


@pytest.mark.parametrize('name', ['', '.a', '-a', 'a/b', '../a', 'a b'])
def test_wrong_names_are_refused(tmp_path, name):
  with pytest.raises(ValueError, match='name must be letters'):
    sample_rewards.rewards_path(tmp_path, name, 0, 1)


def test_rewards_of_other_samples_are_not_taken_for_these(tmp_path):
  _write_samples(tmp_path)
  sample_rewards.write_rewards(tmp_path, 'r', 0, 1, np.zeros(3), np.zeros(3))
  assert sample_rewards.finished_rewards(tmp_path, 'r', 1) == {0}
  samples = _write_samples(tmp_path, token=6)
  path = sample_rewards.rewards_path(tmp_path, 'r', 0, 1)
  with pytest.raises(ValueError, match='must score the 3 rows of its shard'):
    sample_rewards.read_rewards(path, rows=3, samples_sha256=samples.sha256)
  assert sample_rewards.finished_rewards(tmp_path, 'r', 1) == set()


def test_finished_rewards_are_whole(tmp_path):
  for shard in range(4):
    _write_samples(tmp_path, shard, 4)
    if shard != 2:
      sample_rewards.write_rewards(
        tmp_path, 'r', shard, 4, np.zeros(3), np.zeros(3)
      )
  torn = sample_rewards.rewards_path(tmp_path, 'r', 3, 4)
  torn.write_bytes(torn.read_bytes()[:-9])
  sample_shards.shard_path(tmp_path, 0, 4).unlink()
  assert sample_rewards.finished_rewards(tmp_path, 'r', 4) == {1}
  assert sample_rewards.finished_rewards(tmp_path, 'other', 4) == set()


def test_a_reward_changed_on_disk_is_refused(tmp_path):
  samples = _write_samples(tmp_path)
  raw = np.array([1.25, 1.5, 1.75], np.float32)
  sample_rewards.write_rewards(tmp_path, 'r', 0, 1, raw, raw)
  path = sample_rewards.rewards_path(tmp_path, 'r', 0, 1)
  nan = np.float32(np.nan).tobytes()
  content = path.read_bytes()
  assert raw[1].tobytes() in content
  path.write_bytes(content.replace(raw[1].tobytes(), nan, 1))
  with pytest.raises(ValueError, match=r'raw of .* must be finite'):
    sample_rewards.read_rewards(path, rows=3, samples_sha256=samples.sha256)
  half = np.float32(0.5).tobytes()
  path.write_bytes(content.replace(raw[1].tobytes(), half, 1))
  with pytest.raises(ValueError, match='must have the checksum that it was'):
    sample_rewards.read_rewards(path, rows=3, samples_sha256=samples.sha256)
