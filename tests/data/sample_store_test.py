"""Tests of a whole sample store."""

import os
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from rest_jax.data import sample_store
from rest_jax.storage import files

_VOCAB = 500


def _write_store(directory, seed=0, num_sources=10, samples=4, per_shard=3):
  """Writes a store of random rows; returns what it holds, row by row."""
  draw = np.random.default_rng(seed)
  ranges = sample_store.shard_ranges(num_sources, per_shard)
  infos, rows = [], []
  for shard, (start, stop) in enumerate(ranges):
    number = (stop - start) * samples
    lengths = draw.integers(0, 9, number)
    tokens = [
      np.append(draw.integers(2, _VOCAB, length), 1) for length in lengths
    ]
    here = sample_store.SampleRows(
      source_id=np.repeat(np.arange(start, stop), samples),
      sample_id=np.tile(np.arange(samples) - 1, stop - start),
      tokens=tokens,
      log_prob=draw.normal(size=number).astype(np.float32),
      finished=np.ones(number, bool),
    )
    infos.append(
      sample_store.write_shard(directory, shard, len(ranges), here, _VOCAB)
    )
    rows.append(here)
  _write_manifest(directory, infos, num_sources, num_sources * samples)
  return rows


def _write_manifest(directory, shards, num_sources, num_rows, **more):
  sample_store.write_manifest(
    directory,
    {
      'num_sources': num_sources,
      'num_rows': num_rows,
      'shards': shards,
      'seed': 7,
      **more,
    },
  )


def _score(directory, name, num_shards):
  """Scores each row by its log-probability."""
  for shard in range(num_shards):
    path = sample_store.shard_path(directory, shard, num_shards)
    raw = sample_store.Shard(path).log_prob
    sample_store.write_rewards(directory, name, shard, num_shards, raw, raw / 2)


@pytest.mark.parametrize(
  ('num_sources', 'per_shard', 'expected'),
  [
    (1, 1, ((0, 1),)),
    (5, 2, ((0, 2), (2, 4), (4, 5))),
    (4, 2, ((0, 2), (2, 4))),
    (3, 100, ((0, 3),)),
  ],
)
def test_shard_ranges(num_sources, per_shard, expected):
  assert sample_store.shard_ranges(num_sources, per_shard) == expected


def test_shard_ranges_of_nothing():
  with pytest.raises(ValueError, match='num_sources must be at least 1; got 0'):
    sample_store.shard_ranges(0, 1)
  with pytest.raises(ValueError, match=r'sources_per_shard must .* got 0'):
    sample_store.shard_ranges(1, 0)


@pytest.mark.parametrize('verify', ['fast', 'full'])
@pytest.mark.parametrize('seed', range(4))
def test_all_rows_come_back(tmp_path, seed, verify):
  rows = _write_store(tmp_path, seed)
  _score(tmp_path, 'learned', len(rows))
  _score(tmp_path, 'learned-2', len(rows))
  store = sample_store.SampleStore.open(tmp_path, verify)
  assert len(store) == 40
  assert store.manifest['schema_version'] == 1
  assert store.manifest['seed'] == 7
  assert store.shard_bounds.tolist() == [0, 12, 24, 36, 40]
  for name in ('source_id', 'sample_id', 'log_prob', 'finished'):
    expected = np.concatenate([getattr(part, name) for part in rows])
    np.testing.assert_array_equal(getattr(store, name), expected)
  tokens = [row for part in rows for row in part.tokens]
  for made, expected in zip(store.tokens, tokens, strict=True):
    np.testing.assert_array_equal(made, expected)
  assert store.reward_names() == ['learned', 'learned-2']
  raw, reward = store.rewards('learned')
  np.testing.assert_array_equal(raw, store.log_prob)
  np.testing.assert_array_equal(reward, store.log_prob / 2)


def test_a_store_without_manifest_is_not_finished(tmp_path):
  _write_store(tmp_path)
  os.remove(tmp_path / 'manifest.json')
  with pytest.raises(FileNotFoundError, match='finished sample store'):
    sample_store.SampleStore.open(tmp_path)


def test_verify_is_fast_or_full(tmp_path):
  with pytest.raises(ValueError, match="'fast' or 'full'; got 'slow'"):
    sample_store.SampleStore.open(tmp_path, 'slow')


@pytest.mark.parametrize('verify', ['fast', 'full'])
@pytest.mark.parametrize('shard', [0, 3])
def test_a_torn_shard_is_named(tmp_path, verify, shard):
  _write_store(tmp_path)
  path = sample_store.shard_path(tmp_path, shard, 4)
  whole = path.read_bytes()
  for length in (0, 7, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match=path.name):
      sample_store.SampleStore.open(tmp_path, verify)
  os.remove(path)
  with pytest.raises(FileNotFoundError, match=path.name):
    sample_store.SampleStore.open(tmp_path, verify)


@pytest.mark.parametrize('seed', range(10))
def test_a_flipped_bit_is_found_by_full_verification(tmp_path, seed):
  _write_store(tmp_path)
  draw = np.random.default_rng(seed)
  path = sample_store.shard_path(tmp_path, int(draw.integers(4)), 4)
  content = bytearray(path.read_bytes())
  content[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
  path.write_bytes(bytes(content))
  with pytest.raises(ValueError, match=f'{path.name} must have the checksum'):
    sample_store.SampleStore.open(tmp_path, 'full')


@pytest.mark.parametrize('verify', ['fast', 'full'])
def test_a_shard_of_another_run_is_named(tmp_path, verify):
  _write_store(tmp_path / 'a')
  _write_store(tmp_path / 'b', samples=3)
  path = sample_store.shard_path(tmp_path / 'a', 1, 4)
  os.replace(sample_store.shard_path(tmp_path / 'b', 1, 4), path)
  words = 'rows of manifest' if verify == 'fast' else 'checksum of manifest'
  with pytest.raises(ValueError, match=f'{path.name} must have the {words}'):
    sample_store.SampleStore.open(tmp_path / 'a', verify)


def test_rewards_must_be_complete_and_of_these_rows(tmp_path):
  _write_store(tmp_path)
  _score(tmp_path, 'learned', 4)
  store = sample_store.SampleStore.open(tmp_path)
  with pytest.raises(FileNotFoundError, match=r"'other'\. Scored: learned\."):
    store.rewards('other')
  path = sample_store.rewards_path(tmp_path, 'learned', 2, 4)
  whole = path.read_bytes()
  path.write_bytes(whole[:-3])
  with pytest.raises(ValueError, match=f'{path.name} must be a whole Arrow'):
    store.rewards('learned')
  other = sample_store.rewards_path(tmp_path, 'learned', 1, 4)
  path.write_bytes(other.read_bytes())
  with pytest.raises(ValueError, match=f'{path.name} must score the 12 rows'):
    store.rewards('learned')
  os.remove(path)
  with pytest.raises(FileNotFoundError, match=path.name):
    store.rewards('learned')
  path.write_bytes(whole)
  assert len(store.rewards('learned')[0]) == 40


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'num_rows': 41}, 'must have num_rows 40.* got 41'),
    ({'schema_version': 2}, 'schema_version 1; got 2'),
    ({'shards': []}, r'at least one shard; got \[\]'),
    ({'num_sources': 9}, 'sources below num_sources 9; got 9'),
  ],
)
def test_a_manifest_that_does_not_agree_is_refused(tmp_path, change, message):
  _write_store(tmp_path)
  path = tmp_path / 'manifest.json'
  manifest = {**files.read_json(path), **change}
  files.write_json(path, manifest, sealed=True)
  with pytest.raises(ValueError, match=message):
    sample_store.SampleStore.open(tmp_path, 'full')
  path.unlink()
  with pytest.raises(ValueError, match=message):
    sample_store.write_manifest(tmp_path, manifest)
  assert not path.exists()


def test_a_manifest_is_whole(tmp_path):
  _write_store(tmp_path)
  path = tmp_path / 'manifest.json'
  manifest = files.read_json(path)
  for name in ('num_sources', 'num_rows', 'shards'):
    less = {key: value for key, value in manifest.items() if key != name}
    with pytest.raises(ValueError, match=f'{name}.* is missing'):
      sample_store.write_manifest(tmp_path, less)
  for wrong in (manifest['shards'][::-1], [{'file': 'x'}]):
    bad = {**manifest, 'shards': wrong}
    with pytest.raises(ValueError, match='of shard 0, samples-00000'):
      sample_store.write_manifest(tmp_path, bad)
  path.write_text(path.read_text()[:-30])
  with pytest.raises(ValueError, match=r'manifest\.json is not valid JSON'):
    sample_store.SampleStore.open(tmp_path)


def test_entries_of_shards_on_disk_make_the_same_manifest(tmp_path):
  _write_store(tmp_path)
  path = tmp_path / 'manifest.json'
  first = path.read_text()
  entries = sample_store.shard_entries(tmp_path, 4)
  _write_manifest(tmp_path, entries, 10, 40)
  assert path.read_text() == first
  os.remove(sample_store.shard_path(tmp_path, 2, 4))
  with pytest.raises(FileNotFoundError, match='samples-00002-of-00004'):
    sample_store.shard_entries(tmp_path, 4)


def _one_row(directory, shard, num_shards, source_id, sample_id=0):
  rows = sample_store.SampleRows(
    source_id=np.array([source_id]),
    sample_id=np.array([sample_id]),
    tokens=[np.array([1])],
    log_prob=np.zeros(1, np.float32),
    finished=np.ones(1, bool),
  )
  return sample_store.write_shard(directory, shard, num_shards, rows, _VOCAB)


@pytest.mark.parametrize('source_ids', [(1, 0), (1, 1)])
def test_shards_out_of_order_are_refused(tmp_path, source_ids):
  infos = [
    _one_row(tmp_path, shard, 2, source_id, shard)
    for shard, source_id in enumerate(source_ids)
  ]
  message = 'samples-00001-of-00002.* must be of sources after 1'
  with pytest.raises(ValueError, match=message):
    _write_manifest(tmp_path, infos, 2, 2)


@pytest.mark.parametrize(
  ('keys', 'fault'),
  [
    ([(0, 0), (0, 0)], 'twice'),
    ([(0, 1), (0, 0)], 'out of order'),
    ([(1, 0), (0, 5)], 'out of order'),
  ],
)
def test_rows_out_of_order_on_disk_are_refused(tmp_path, keys, fault):
  info = _one_row(tmp_path, 0, 1, 0)
  path = tmp_path / info.file
  schema = pa.ipc.open_file(str(path)).schema
  source_id, sample_id = zip(*keys, strict=True)
  batch = pa.RecordBatch.from_arrays(
    [
      pa.array(source_id, pa.int64()),
      pa.array(sample_id, pa.int32()),
      pa.array([[1]] * 2, schema.field('tokens').type),
      pa.array([0.0] * 2, pa.float32()),
      pa.array([True] * 2),
    ],
    schema=schema,
  )
  with pa.ipc.new_file(str(path), schema) as writer:
    writer.write_batch(batch)
  entries = sample_store.shard_entries(tmp_path, 1)
  with pytest.raises(ValueError, match=f'{path.name} .*row 1 is {fault}'):
    _write_manifest(tmp_path, entries, 2, 2)


def test_empty_shards_are_skipped_over(tmp_path):
  empty = sample_store.SampleRows(
    source_id=np.zeros(0, np.int64),
    sample_id=np.zeros(0, np.int32),
    tokens=[],
    log_prob=np.zeros(0, np.float32),
    finished=np.zeros(0, bool),
  )
  infos = [
    _one_row(tmp_path, 0, 3, 0),
    sample_store.write_shard(tmp_path, 1, 3, empty, _VOCAB),
    _one_row(tmp_path, 2, 3, 5),
  ]
  _write_manifest(tmp_path, infos, 6, 2)
  store = sample_store.SampleStore.open(tmp_path, 'full')
  assert store.source_id.tolist() == [0, 5]
  assert store.tokens.pad(np.array([1, 0]), 2).tolist() == [[1, 0], [1, 0]]


def _write_block(folder, block):
  number = len(block)
  rows = sample_store.SampleRows(
    source_id=np.arange(number),
    sample_id=np.zeros(number, np.int32),
    tokens=list(block),
    log_prob=np.zeros(number, np.float32),
    finished=np.zeros(number, bool),
  )
  info = sample_store.write_shard(folder, 0, 1, rows, _VOCAB)
  _write_manifest(folder, [info], number, number)


def test_tokens_stay_on_disk(tmp_path):
  number, length = 20_000, 40
  _write_block(tmp_path, np.full((number, length), 9))
  arrow_bytes = pa.total_allocated_bytes()
  tracemalloc.start()
  store = sample_store.SampleStore.open(tmp_path)
  padded = store.tokens.pad(np.arange(0, number, 100), length)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (padded == 9).all()
  assert pa.total_allocated_bytes() - arrow_bytes < 100_000
  # Four bytes a row for the lengths, and the batch itself.
  assert peak < 4 * number + 8 * padded.nbytes + 300_000 < number * length


def test_hashing_copies_no_column_of_tokens(tmp_path):
  number, length = 150_000, 60
  block = np.random.default_rng(0).integers(2, _VOCAB, (number, length))
  _write_block(tmp_path, block.astype(np.uint16))
  arrow_bytes = pa.total_allocated_bytes()
  tracemalloc.start()
  store = sample_store.SampleStore.open(tmp_path)
  hashes = store.tokens.hashes
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(set(hashes.tolist())) == number
  assert pa.total_allocated_bytes() - arrow_bytes < 100_000
  # Eight bytes a row for the hash, four for the length, and one piece's sums.
  assert peak < (8 + 4) * number + 6_000_000 < 2 * number * length
