"""Tests of whole Arrow files."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest

from rest_jax.storage import arrow_files

_SCHEMA = pa.schema([pa.field('x', pa.int64())])


def _batches(*sizes: int):
  for size in sizes:
    yield pa.RecordBatch.from_arrays(
      [pa.array(np.arange(size))], schema=_SCHEMA
    )


def test_batches_come_back_as_views_of_a_closed_file(tmp_path):
  path = tmp_path / 'a.arrow'
  assert arrow_files.write(path, _SCHEMA, _batches(3, 0, 1000)) == 1003
  descriptors = pathlib.Path('/proc/self/fd')
  before = len(os.listdir(descriptors)) if descriptors.exists() else 0
  schema, batches = arrow_files.read(path)
  after = len(os.listdir(descriptors)) if descriptors.exists() else 0
  assert after == before
  assert schema == _SCHEMA
  assert [batch.num_rows for batch in batches] == [3, 0, 1000]
  array = batches[2].column('x').to_numpy(zero_copy_only=True)
  np.testing.assert_array_equal(array, np.arange(1000))
  arrow_files.check_columns(path, schema, ['x'])
  with pytest.raises(ValueError, match=r"columns \['y'\]; it has \['x'\]"):
    arrow_files.check_columns(path, schema, ['y'])


def test_writing_twice_gives_the_same_bytes(tmp_path):
  for name in ('a', 'b'):
    arrow_files.write(tmp_path / name, _SCHEMA, _batches(3, 5))
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_failing_writer_leaves_nothing(tmp_path):
  def failing():
    yield from _batches(3)
    raise KeyError('stop')

  with pytest.raises(KeyError, match='stop'):
    arrow_files.write(tmp_path / 'a', _SCHEMA, failing())
  assert list(tmp_path.iterdir()) == []


def test_torn_files_are_never_read(tmp_path):
  path = tmp_path / 'a.arrow'
  with pytest.raises(FileNotFoundError, match=r'no file .*a\.arrow'):
    arrow_files.read(path)
  arrow_files.write(path, _SCHEMA, _batches(3, 100))
  whole = path.read_bytes()
  for length in range(0, len(whole), 13):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match=r'a\.arrow must be a whole Arrow'):
      arrow_files.read(path)
