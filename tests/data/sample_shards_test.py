"""Tests of single shards of a sample store."""

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pytest

from rest_jax.data import sample_shards, special_ids
from rest_jax.storage import arrow_files, files

_VOCAB = 50


def _rows(*rows, log_prob=None):
  """Rows given as (source_id, sample_id, tokens)."""
  return sample_shards.SampleRows(
    source_id=np.array([row[0] for row in rows], np.int64),
    sample_id=np.array([row[1] for row in rows], np.int32),
    tokens=[np.array(row[2], np.int32) for row in rows],
    log_prob=np.array(
      log_prob or [-0.5 * row for row in range(len(rows))], np.float32
    ),
    finished=np.array([row[2][-1:] == [1] for row in rows], bool),
  )


def _random_rows(draw, number):
  keys = draw.choice(number * 4, number, replace=False)
  rows = []
  for key in keys:
    tokens = draw.integers(2, _VOCAB, draw.integers(0, 8)).tolist()
    ending = [1] if draw.random() < 0.5 else []
    rows.append((int(key) // 4, int(key) % 4 - 1, tokens + ending))
  return _rows(*rows, log_prob=draw.normal(size=number).tolist())


def test_rows_come_back_sorted(tmp_path):
  info = sample_shards.write_shard(
    tmp_path,
    2,
    16,
    _rows((7, 0, [5, 1]), (3, 1, [6, 7]), (3, -1, [1]), (3, 0, [])),
    _VOCAB,
  )
  path = tmp_path / 'samples-00002-of-00016.arrow'
  assert sample_shards.shard_path(tmp_path, 2, 16) == path
  assert info == sample_shards.ShardInfo(
    file=path.name, rows=4, sha256=files.sha256(path)
  )
  assert sample_shards.shard_info(path) == info
  shard = sample_shards.Shard(path)
  assert len(shard) == 4
  for name, values, dtype in (
    ('source_id', [3, 3, 3, 7], np.int64),
    ('sample_id', [-1, 0, 1, 0], np.int32),
    ('log_prob', [-1.0, -1.5, -0.5, 0.0], np.float32),
    ('finished', [True, False, False, True], np.bool_),
  ):
    column = getattr(shard, name)
    assert column.dtype == dtype
    np.testing.assert_array_equal(column, values)
  assert [row.tolist() for row in shard.tokens] == [[1], [], [6, 7], [5, 1]]
  assert shard.tokens[0].dtype == np.uint16


def test_the_columns_are_those_of_the_design(tmp_path):
  sample_shards.write_shard(tmp_path, 0, 1, _rows((0, 0, [1])), 2**16 + 1)
  schema, _ = arrow_files.read(sample_shards.shard_path(tmp_path, 0, 1))
  assert [(field.name, field.type) for field in schema] == [
    ('source_id', pa.int64()),
    ('sample_id', pa.int32()),
    ('tokens', pa.list_(pa.uint32())),
    ('log_prob', pa.float32()),
    ('finished', pa.bool_()),
  ]


@pytest.mark.parametrize('seed', range(15))
def test_order_and_batch_size_do_not_matter(tmp_path, monkeypatch, seed):
  draw = np.random.default_rng(seed)
  rows = _random_rows(draw, int(draw.integers(1, 60)))
  number = len(rows.source_id)
  info = sample_shards.write_shard(tmp_path / 'a', 0, 1, rows, _VOCAB)
  order = draw.permutation(number)
  mixed = sample_shards.SampleRows(
    source_id=rows.source_id[order],
    sample_id=rows.sample_id[order],
    tokens=[rows.tokens[row] for row in order],
    log_prob=rows.log_prob[order],
    finished=rows.finished[order],
  )
  again = sample_shards.write_shard(tmp_path / 'b', 0, 1, mixed, _VOCAB)
  assert again == info
  monkeypatch.setattr(arrow_files, 'BATCH_ROWS', 7)
  sample_shards.write_shard(tmp_path / 'c', 0, 1, rows, _VOCAB)
  order = np.lexsort((rows.sample_id, rows.source_id))
  for folder in 'abc':
    shard = sample_shards.Shard(
      sample_shards.shard_path(tmp_path / folder, 0, 1)
    )
    assert len(shard) == number
    for name in ('source_id', 'sample_id', 'log_prob', 'finished'):
      np.testing.assert_array_equal(
        getattr(shard, name), getattr(rows, name)[order]
      )
    for made, row in zip(shard.tokens, order, strict=True):
      np.testing.assert_array_equal(made, rows.tokens[row])


def test_a_shard_may_be_empty(tmp_path):
  info = sample_shards.write_shard(tmp_path, 0, 1, _rows(), _VOCAB)
  assert info.rows == 0
  shard = sample_shards.Shard(tmp_path / info.file)
  assert len(shard) == len(shard.tokens) == len(shard.source_id) == 0
  assert sample_shards.finished_shards(tmp_path, 1) == {0}


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    (_rows((1, 0, [1]), (2, 0, [1]), (1, 0, [5, 1])), r'twice: \(1, 0\)'),
    (_rows((0, 0, [1]), log_prob=[np.nan]), 'log_prob must be finite; got nan'),
    (_rows((0, 0, [1]), log_prob=[-np.inf]), 'log_prob .* got -inf'),
    (_rows((0, 0, [5]), (0, 1, [_VOCAB, 1])), 'got 50 in source 0, sample 1'),
    (_rows((0, 0, [5, 0, 1])), 'without PAD; got 0 in source 0, sample 0'),
    (_rows((0, 0, [-1, 1])), 'got -1 in source 0, sample 0'),
    (_rows((4, 0, []), (4, 2, [5, 1, 6, 1])), 'source 4, sample 2 has an EOS'),
    (_rows((4, 0, [3]), (4, 2, [1, 5])), 'source 4, sample 2 has an EOS'),
    (_rows((-1, 0, [1])), 'source_id must be at least 0; got -1'),
    (_rows((0, -2, [1])), 'sample_id must be at least -1; got -2'),
  ],
)
def test_unfit_rows_are_refused(tmp_path, rows, message):
  with pytest.raises(ValueError, match=message):
    sample_shards.write_shard(tmp_path, 0, 1, rows, _VOCAB)
  assert list(tmp_path.iterdir()) == []


def test_finished_must_agree_with_eos(tmp_path):
  rows = _rows((3, 0, [5]), (3, 1, [6, 1]))
  wrong = dataclasses.replace(rows, finished=np.array([True, True]))
  with pytest.raises(ValueError, match='source 3, sample 0 has no EOS'):
    sample_shards.write_shard(tmp_path, 0, 1, wrong, _VOCAB)
  wrong = dataclasses.replace(rows, finished=np.array([False, False]))
  with pytest.raises(ValueError, match='source 3, sample 1 has an EOS'):
    sample_shards.write_shard(tmp_path, 0, 1, wrong, _VOCAB)
  wrong = dataclasses.replace(
    _rows((3, 0, []), (3, 1, [6, 1])), finished=np.array([True, True])
  )
  with pytest.raises(ValueError, match=r'without tokens; .*source 3, sample 0'):
    sample_shards.write_shard(tmp_path, 0, 1, wrong, _VOCAB)


@pytest.mark.parametrize(
  ('name', 'column'),
  [
    ('source_id', np.array([1, 2])),
    ('source_id', np.array([1.0])),
    ('sample_id', np.array([[1]])),
    ('log_prob', np.array([1])),
    ('finished', np.array([1])),
  ],
)
def test_columns_of_another_kind_are_refused(tmp_path, name, column):
  rows = dataclasses.replace(_rows((0, 0, [1])), **{name: column})
  with pytest.raises(ValueError, match=f'{name} must be a vector of'):
    sample_shards.write_shard(tmp_path, 0, 1, rows, _VOCAB)


def test_finished_shards_are_whole(tmp_path):
  for shard in (0, 1, 3, 4):
    sample_shards.write_shard(
      tmp_path, shard, 5, _rows((shard, 0, [1])), _VOCAB
    )
  assert sample_shards.finished_shards(tmp_path, 5) == {0, 1, 3, 4}
  assert sample_shards.finished_shards(tmp_path, 4) == set()
  torn = sample_shards.shard_path(tmp_path, 1, 5)
  torn.write_bytes(torn.read_bytes()[:-1])
  sample_shards.shard_path(tmp_path, 3, 5).write_bytes(b'')
  os.remove(sample_shards.shard_path(tmp_path, 4, 5))
  assert sample_shards.finished_shards(tmp_path, 5) == {0}


def test_a_killed_writer_leaves_no_shard(tmp_path, monkeypatch):
  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'replace', killed)
  with pytest.raises(KeyboardInterrupt):
    sample_shards.write_shard(tmp_path, 0, 1, _rows((0, 0, [1])), _VOCAB)
  assert sample_shards.finished_shards(tmp_path, 1) == set()
  assert list(tmp_path.iterdir()) == []


def test_another_files_columns_are_refused(tmp_path):
  schema = pa.schema([pa.field('source_id', pa.int64())])
  path = sample_shards.shard_path(tmp_path, 0, 1)
  arrow_files.write(path, schema, [])
  with pytest.raises(ValueError, match='must have the columns'):
    sample_shards.Shard(path)


@pytest.mark.parametrize('shard', [-1, 4])
def test_shards_out_of_range_are_refused(tmp_path, shard):
  with pytest.raises(
    ValueError, match=rf'shard must be in \[0, 4\); .*{shard}'
  ):
    sample_shards.shard_path(tmp_path, shard, 4)


def test_rows_of_other_special_ids(tmp_path):
  ids = special_ids.SpecialIds(pad=9, eos=0, unk=1, decoder_start=9)
  rows = dataclasses.replace(
    _rows((0, 0, [1, 5, 0]), (0, 1, [1])), finished=np.array([True, False])
  )
  sample_shards.write_shard(tmp_path, 0, 1, rows, _VOCAB, ids)
  for tokens, message in (([9, 0], 'PAD; got 9'), ([0, 0], 'EOS too many')):
    wrong = dataclasses.replace(
      _rows((0, 0, tokens)), finished=np.array([True])
    )
    with pytest.raises(ValueError, match=message):
      sample_shards.write_shard(tmp_path, 0, 1, wrong, _VOCAB, ids)
