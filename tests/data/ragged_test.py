"""Tests of rows of varied length."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from rest_jax.data import ragged


def _random_rows(draw, number, longest=9):
  return [
    draw.integers(1, 60_000, draw.integers(0, longest + 1)).astype(np.uint16)
    for _ in range(number)
  ]


def _padded(rows, chosen, length):
  """What `pad` must give, the plain way."""
  lines = [list(rows[row]) + [0] * (length - len(rows[row])) for row in chosen]
  return np.array(lines, np.int32).reshape(len(chosen), length)


def _in_chunks(draw, rows):
  """Spreads rows over Arrow arrays of random sizes, empty ones too."""
  cuts = np.sort(draw.integers(0, len(rows) + 1, draw.integers(0, 5)))
  bounds = [0, *cuts.tolist(), len(rows)]
  arrays = []
  for begin, end in itertools.pairwise(bounds):
    values, offsets = ragged.flatten(rows[begin:end])
    arrays.append(ragged.to_arrow(values, offsets, np.dtype(np.uint16)))
  return arrays


def test_hand_made_rows():
  rows = ragged.Ragged.from_lists([[5, 6], [], [7]])
  assert len(rows) == 3
  np.testing.assert_array_equal(rows.lengths, [2, 0, 1])
  assert rows.lengths.dtype == np.int32
  assert rows.num_tokens == 3
  padded = rows.pad(np.array([2, 0, 0, 1]), 3)
  assert padded.dtype == np.int32
  np.testing.assert_array_equal(
    padded, [[7, 0, 0], [5, 6, 0], [5, 6, 0], [0, 0, 0]]
  )
  np.testing.assert_array_equal(rows[-1], [7])
  np.testing.assert_array_equal(rows[0], [5, 6])


@pytest.mark.parametrize('gather_from', [1, 64])
@pytest.mark.parametrize('seed', range(20))
def test_chunks_do_not_matter(monkeypatch, seed, gather_from):
  # Many rows of a chunk are gathered, few are sliced one by one.
  monkeypatch.setattr(ragged, '_GATHER_FROM', gather_from)
  draw = np.random.default_rng(seed)
  rows = _random_rows(draw, int(draw.integers(1, 80)))
  whole = ragged.Ragged.from_lists(rows)
  parts = ragged.Ragged.from_arrays(_in_chunks(draw, rows))
  joined = ragged.Ragged.concatenate(
    [ragged.Ragged.from_lists(rows[:3]), ragged.Ragged.from_lists(rows[3:])]
  )
  number = int(draw.integers(0, 100))
  chosen = draw.integers(0, len(rows), number).astype(draw.choice(['i4', 'u8']))
  for made in (whole, parts, joined):
    assert len(made) == len(rows)
    assert made.num_tokens == sum(map(len, rows))
    np.testing.assert_array_equal(made.lengths, [len(row) for row in rows])
    np.testing.assert_array_equal(made.pad(chosen, 9), _padded(rows, chosen, 9))
    for row, expected in enumerate(rows):
      np.testing.assert_array_equal(made[row], expected)
      np.testing.assert_array_equal(made[row - len(rows)], expected)
    for given, expected in zip(made, rows, strict=True):
      np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize('seed', range(5))
def test_hashes_are_equal_for_equal_rows_alone(seed):
  # Few tokens and short rows: many rows are equal, or permuted, or prefixes.
  draw = np.random.default_rng(seed)
  rows = [
    draw.integers(1, 4, draw.integers(0, 6)).astype(np.uint16)
    for _ in range(5000)
  ]
  hashes = ragged.Ragged.from_arrays(_in_chunks(draw, rows)).hashes
  assert hashes.dtype == np.uint64
  texts = [row.tobytes() for row in rows]
  assert len(set(texts)) == len(set(hashes.tolist())) > 100
  by_text = dict(zip(texts, hashes.tolist(), strict=True))
  assert [by_text[text] for text in texts] == hashes.tolist()
  # Neither chunks nor the type of the token ids matter.
  wide = ragged.Ragged.from_lists([row.astype(np.int32) for row in rows])
  np.testing.assert_array_equal(wide.hashes, hashes)


def test_hashes_are_kept():
  rows = ragged.Ragged.from_lists([[5, 6], []])
  assert rows.hashes is rows.hashes
  assert rows.hashes[1] == 0 != rows.hashes[0]


def test_no_rows_at_all():
  for rows in (
    ragged.Ragged.from_lists([]),
    ragged.Ragged.from_arrays([]),
  ):
    assert len(rows) == 0
    assert list(rows) == []
    assert rows.lengths.shape == (0,)
    assert rows.hashes.shape == (0,)
    assert rows.pad(np.zeros(0, np.int64), 4).shape == (0, 4)
    with pytest.raises(IndexError, match='row must be in'):
      rows[0]
    with pytest.raises(IndexError, match='rows must be in'):
      rows.pad(np.array([0]), 4)


def test_only_empty_rows():
  rows = ragged.Ragged.from_lists([[]] * 20)
  np.testing.assert_array_equal(
    rows.pad(np.arange(20), 2), np.zeros((20, 2), np.int32)
  )


def test_arrow_is_viewed_not_copied():
  values = pa.array(np.arange(1, 11, dtype=np.uint16))
  array = pa.ListArray.from_arrays(pa.array([0, 3, 10], pa.int32()), values)
  rows = ragged.Ragged.from_arrays([array])
  assert np.shares_memory(rows[1], values.to_numpy())
  assert not rows[1].flags.writeable


def test_slices_of_arrow_arrays():
  array = pa.array([[1, 2], [3], [], [4, 5, 6]], pa.list_(pa.uint16()))
  rows = ragged.Ragged.from_arrays([array[1:]])
  np.testing.assert_array_equal(rows.lengths, [1, 0, 3])
  np.testing.assert_array_equal(
    rows.pad(np.arange(3), 3), [[3, 0, 0], [0, 0, 0], [4, 5, 6]]
  )
  assert rows.num_tokens == 4


@pytest.mark.parametrize('number', [1, 50])
def test_a_row_is_never_cut(number):
  rows = ragged.Ragged.from_lists([[1]] * number + [[1, 2, 3]])
  with pytest.raises(ValueError, match=f'got 2, but row {number} has 3 tokens'):
    rows.pad(np.arange(number + 1), 2)
  assert rows.pad(np.arange(number + 1), 3).shape == (number + 1, 3)


@pytest.mark.parametrize('row', [-1, 2])
def test_rows_out_of_range(row):
  rows = ragged.Ragged.from_lists([[1], [2]])
  with pytest.raises(IndexError, match=rf'rows must be in \[0, 2\); .*{row}'):
    rows.pad(np.array([0, row]), 2)
  with pytest.raises(IndexError, match='row must be in'):
    rows[row * 2 - 1]


def test_wrong_kinds_are_refused():
  rows = ragged.Ragged.from_lists([[1], [2]])
  with pytest.raises(TypeError, match='vector of integers'):
    rows.pad(np.array([True, False]), 2)
  with pytest.raises(TypeError, match='vector of integers'):
    rows.pad(np.array([[0]]), 2)
  with pytest.raises(TypeError, match='one row number'):
    rows[0:1]
  with pytest.raises(TypeError, match='integer token ids'):
    ragged.flatten([[1.5]])
  with pytest.raises(TypeError, match='list<uint16> or list<uint32>'):
    ragged.Ragged.from_arrays([pa.array([1, 2])])
  with pytest.raises(TypeError, match='list<uint16> or list<uint32>'):
    ragged.Ragged.from_arrays([pa.array([[1.0]])])
  for nulls in ([[1], None], [[None]]):
    with pytest.raises(ValueError, match='no nulls'):
      ragged.Ragged.from_arrays([pa.array(nulls, pa.list_(pa.uint16()))])


def test_to_arrow_of_a_part():
  values, offsets = ragged.flatten([[1], [2, 3], [], [70_000]])
  array = ragged.to_arrow(values, offsets[1:4], np.dtype(np.uint16))
  assert array.to_pylist() == [[2, 3], []]
  array = ragged.to_arrow(values, offsets, ragged.token_dtype(70_001))
  assert array.to_pylist() == [[1], [2, 3], [], [70_000]]
  assert array.type == pa.list_(pa.uint32())
  assert ragged.token_dtype(65_536) == np.uint16
  assert ragged.token_dtype(65_537) == np.uint32


def test_more_tokens_than_offsets_can_count_are_refused():
  offsets = np.array([0, 2**31], np.int64)
  with pytest.raises(ValueError, match=r'fewer than 2\*\*31 tokens'):
    ragged.to_arrow(np.zeros(0, np.uint16), offsets, np.dtype(np.uint16))
