"""Misaligned stretches are found, and aligned text is left alone."""

import gzip

import numpy as np
import pytest

from rest_jax.data import alignment


def _lengths(count, seed=0, noise=0.15):
  """Lengths of translations: correlated at about 0.95."""
  draw = np.random.default_rng(seed)
  source = np.exp(draw.normal(4.5, 0.5, count))
  reference = source * np.exp(draw.normal(0, noise, count))
  return np.stack([source, reference]).astype(np.uint16)


def _shift(lengths, first, last, shift):
  """The references of pairs first to last come `shift` lines later."""
  moved = lengths.copy()
  moved[1, first - 1 + shift : last + shift] = lengths[1, first - 1 : last]
  return moved


@pytest.mark.parametrize('count', [10, 48, 71, 72, 73, 500, 5_000])
@pytest.mark.parametrize('noise', [0.0, 0.15, 0.3])
def test_aligned_pairs_are_left_alone(count, noise):
  assert alignment.misaligned(_lengths(count, noise=noise)) == []


@pytest.mark.parametrize('shift', [1, -1, 3, -8])
def test_a_stretch_is_found_where_it_stands(shift):
  # As in a test set of 1,165 pairs, 72 of which are shifted.
  lengths = _shift(_lengths(1165), 951, 1022, shift)
  [found] = alignment.misaligned(lengths)
  assert found.shift == shift
  assert abs(found.first - 951) <= 60 and abs(found.last - 1022) <= 60
  assert found.correlation < 0.3 < 0.7 < found.shifted


@pytest.mark.parametrize('count', [60, 300, 3_000])
def test_a_whole_file_is_found(count):
  lengths = _lengths(count)
  late = np.stack([lengths[0], np.roll(lengths[1], 1)])
  [found] = alignment.misaligned(late)
  assert (found.first, found.last, found.shift) == (1, count, 1)


@pytest.mark.parametrize('order', ['reversed', 'shuffled', 'far'])
@pytest.mark.parametrize('count', [300, 3_000])
def test_sides_of_no_relation_are_found(count, order):
  source, reference = _lengths(count)
  other = {
    'reversed': reference[::-1],
    'shuffled': np.random.default_rng(1).permutation(reference),
    'far': np.roll(reference, 100),
  }[order]
  [found] = alignment.misaligned(np.stack([source, other]))
  assert (found.first, found.last, found.shift) == (1, count, None)
  assert found.correlation < 0.3


def test_all_that_follows_a_missing_line_is_found():
  source, reference = _lengths(1_000)
  # Line 401 was lost; an empty line makes up for it at the end.
  reference = np.append(np.delete(reference, 400), 0)
  [found] = alignment.misaligned(np.stack([source, reference]))
  assert found.shift == -1
  assert abs(found.first - 401) <= 60 and found.last == 1_000


def test_equal_lengths_say_nothing():
  lengths = np.full((2, 500), 40, np.uint16)
  assert alignment.misaligned(lengths) == []
  lengths[0] = _lengths(500)[0]
  assert alignment.misaligned(lengths) == []


def test_summaries_may_have_any_length():
  source, reference = _lengths(1_000)
  shuffled = np.random.default_rng(1).permutation(reference)
  assert alignment.misaligned(np.stack([source, shuffled]))
  assert alignment.misaligned(np.stack([10 * source, shuffled])) == []


def test_chunks_do_not_matter(monkeypatch):
  lengths = _shift(_lengths(9_000), 4_000, 4_200, 1)
  whole = alignment.misaligned(lengths)
  monkeypatch.setattr(alignment, '_CHUNK', 2 * 1008)
  parts = alignment.misaligned(lengths)
  assert len(whole) == len(parts) == 1
  assert abs(whole[0].first - parts[0].first) <= 72


def test_lengths_are_collected_in_blocks():
  lengths = _shift(_lengths(400), 101, 250, 1)
  texts = [['x' * int(length) for length in side] for side in lengths]
  collected = alignment.Lengths()
  assert collected.stretches() == []
  for start in range(0, 400, 150):
    collected.add(*(side[start : start + 150] for side in texts))
  assert collected.stretches() == alignment.misaligned(lengths)


@pytest.mark.parametrize(
  ('folder', 'sides'),
  [
    ('newstest_de_en', ('newstest2014.de', 'newstest2014.en')),
    ('multi30k_de_en', ('test_2016_flickr.de', 'test_2016_flickr.en')),
    ('tatoeba_zh_en', ('dev.zh', 'dev.en')),
  ],
)
def test_real_text(shared_dir, folder, sides):
  lengths = []
  for side in sides:
    path = shared_dir / 'data' / folder / f'{side}.gz'
    with gzip.open(path, 'rt', encoding='utf-8', newline='\n') as opened:
      lengths.append([len(line.strip()) for line in opened])
  lengths = np.asarray(lengths, np.uint16)
  assert alignment.misaligned(lengths) == []
  lengths[1] = np.roll(lengths[1], 1)
  [found] = alignment.misaligned(lengths)
  assert (found.first, found.last) == (1, lengths.shape[1])
  assert found.shift == 1
