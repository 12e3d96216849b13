"""Tests of local copies of a bucket's objects."""

from concurrent import futures
import pathlib

import numpy as np
import pyarrow as pa
import pytest

from rest_jax.storage import arrow_files, cache, files, paths


def _written(path, num_bytes: int = 1000, seed: int = 0):
  content = np.random.default_rng(seed).bytes(num_bytes)
  path.write_bytes(content)
  return content


def test_a_local_file_is_no_copy(tmp_path):
  path = tmp_path / 'x'
  assert cache.local(path) == path


def test_an_object_is_downloaded_once(gcs_server, bucket_dir):
  path = bucket_dir / 'x.bin'
  content = _written(path)
  with futures.ThreadPoolExecutor(4) as pool:
    copies = set(pool.map(cache.local, [path] * 8))
  [copy] = copies
  assert copy.read_bytes() == content
  assert list(gcs_server.downloaded.values()) == [len(content)]


def test_an_object_that_is_written_again_has_another_copy(bucket_dir):
  path = bucket_dir / 'x.bin'
  before = cache.local(path) if _written(path) else None
  content = _written(path, seed=1)
  copy = cache.local(path)
  assert copy != before
  assert copy.read_bytes() == content


def test_a_missing_object_is_no_copy(bucket_dir):
  with pytest.raises(FileNotFoundError):
    cache.local(bucket_dir / 'x.bin')
  with pytest.raises(FileNotFoundError, match='run the stage that writes it'):
    arrow_files.read(bucket_dir / 'x.arrow')


def test_what_differs_from_its_manifest_is_no_copy(bucket_dir):
  path = bucket_dir / 'x.bin'
  _written(path)
  with pytest.raises(ValueError, match=r'x\.bin must have the checksum of its'):
    cache.local(path, '0' * 64)
  cache.local(path, files.sha256(path))


def test_what_arrives_incomplete_is_no_copy(bucket_dir, monkeypatch):
  path = bucket_dir / 'x.bin'
  content = _written(path)
  filesystem, _ = paths.filesystem(path)

  def cut_off(name: str, target: str) -> None:
    pathlib.Path(target).write_bytes(content[:-1])

  monkeypatch.setattr(filesystem, 'get_file', cut_off)
  with pytest.raises(ValueError, match='999 of 1,000 bytes'):
    cache.local(path)
  assert not list(cache._folder.glob('*.bin'))


def test_what_was_unused_longest_is_removed(gcs_server, bucket_dir):
  cache.configure(None, 2500 / 1e9)
  try:
    copies = []
    for name in 'abc':
      _written(bucket_dir / name)
      copies.append(cache.local(bucket_dir / name))
      if name == 'b':
        cache.local(bucket_dir / 'a')  # Used again.
    assert [copy.exists() for copy in copies] == [True, False, True]
  finally:
    cache.configure(None, 50)


def test_a_mapped_copy_stays_readable(gcs_server, bucket_dir):
  batch = pa.record_batch({'x': np.arange(1000)})
  path = bucket_dir / 'x.arrow'
  assert arrow_files.write(path, batch.schema, [batch]) == 1000
  _, [found] = arrow_files.read(path)
  # It was kept when it was written.
  assert not gcs_server.downloaded
  for copy in cache._folder.glob('*.arrow'):
    copy.unlink()
  np.testing.assert_array_equal(found.column('x').to_numpy(), np.arange(1000))
  _, [found] = arrow_files.read(path)
  assert found.column('x').to_pylist() == list(range(1000))
  assert len(gcs_server.downloaded) == 1
