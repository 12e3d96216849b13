"""Tests of the store of tokenised pairs."""

import dataclasses
import random

import numpy as np
import pytest

from rest_jax.data import pair_store, sources, vocabularies
from rest_jax.storage import arrow_files


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """Pairs at hand."""

  pairs: tuple[tuple[str, str | None], ...]

  def read(self):
    for source, reference in self.pairs:
      yield sources.Pair(source, reference)


@pytest.fixture
def build(tmp_path, vocabulary):
  """Builds a split of given pairs; returns its counts and the store."""

  def build_pairs(*pairs, source_length=128, target_length=128, ratio=None):
    counts = pair_store.build(
      tmp_path,
      'train',
      _Pairs(pairs),
      vocabulary,
      max_source_length=source_length,
      max_target_length=target_length,
      max_length_ratio=ratio,
    )
    return counts, pair_store.PairStore.open(tmp_path, 'train')

  return build_pairs


def _length(vocabulary, text):
  return len(vocabulary.encode(text))


def test_pairs_are_stored_with_eos_and_text(build, vocabulary):
  pairs = [('abc', 'de f'), (' gh\t', 'a\u2028b'), ('a', 'h')]
  counts, store = build(*pairs)
  assert counts['read'] == counts['kept'] == len(store) == 3
  assert counts['examples'] == {}
  texts = [(source.strip(), reference) for source, reference in pairs]
  assert store.source_texts() == [source for source, _ in texts]
  assert store.reference_texts() == [reference for _, reference in texts]
  for row, (source, reference) in enumerate(texts):
    assert store.source_text(row) == source
    assert store.reference_text(row) == reference
    np.testing.assert_array_equal(
      store.source_tokens[row], [*vocabulary.encode(source), 1]
    )
    np.testing.assert_array_equal(
      store.reference_tokens[row], [*vocabulary.encode(reference), 1]
    )
  assert counts['source_tokens'] == store.source_tokens.lengths.sum()
  assert counts['reference_tokens'] == store.reference_tokens.lengths.sum()
  assert store.source_tokens[0].dtype == np.uint16


def test_what_is_dropped_is_counted_with_examples(build, vocabulary):
  long = 'a b c d e f g h'
  short = 'a b'
  number, few = _length(vocabulary, long), _length(vocabulary, short)
  counts, store = build(
    ('a', ''),
    ('abc', 'abc'),
    (' \t\u2028', 'a'),
    ('\u200b', 'a'),
    (long + ' a', 'a'),
    (short, long),
    (long, short),
    (long, long),
    ('', long + long),
    source_length=number + 1,
    target_length=number + 1,
    ratio=number / few - 0.01,
  )
  examples = counts.pop('examples')
  assert counts.pop('lengths_of_95_percent') == [
    _length(vocabulary, long + ' a') + 1,
    _length(vocabulary, long + long) + 1,
  ]
  tokens = store.source_tokens.num_tokens, store.reference_tokens.num_tokens
  assert counts == {
    'read': 9,
    'kept': 2,
    'dropped_empty': 4,
    'dropped_long': 1,
    'dropped_ratio': 2,
    'source_tokens': tokens[0],
    'reference_tokens': tokens[1],
  }
  assert store.source_texts() == ['abc', long]
  assert {
    reason: [example['pair'] for example in some]
    for reason, some in examples.items()
  } == {
    'dropped_empty': [1, 3, 4],
    'dropped_long': [5],
    'dropped_ratio': [6, 7],
  }
  assert examples['dropped_ratio'][0] == {
    'pair': 6,
    'source': short,
    'source_tokens': few,
    'reference': long,
    'reference_tokens': number,
  }


def test_limits_are_inclusive(build, vocabulary):
  source, reference = 'a b c d', 'a b'
  lengths = _length(vocabulary, source), _length(vocabulary, reference)
  pair = (source, reference)
  settings = {
    'source_length': lengths[0] + 1,
    'target_length': lengths[1] + 1,
    'ratio': lengths[0] / lengths[1],
  }
  counts, _ = build(pair, **settings)
  assert counts['kept'] == 1
  for name, reason in (
    ('source_length', 'dropped_long'),
    ('target_length', 'dropped_long'),
    ('ratio', 'dropped_ratio'),
  ):
    less = {**settings, name: settings[name] - 1e-6}
    counts, _ = build(pair, ('a', 'a'), **less)
    assert (counts['kept'], counts[reason]) == (1, 1)


def test_sources_alone(build):
  counts, store = build(('abc', None), ('', None), ('de', None), ratio=1.0)
  assert (counts['kept'], counts['dropped_empty']) == (2, 1)
  assert 'reference_tokens' not in counts
  assert not store.has_references
  assert store.reference_tokens is None
  assert store.source_texts() == ['abc', 'de']
  for read in (store.reference_texts, lambda: store.reference_text(0)):
    with pytest.raises(ValueError, match='built of sources alone'):
      read()


def test_some_references_are_an_error(build, tmp_path):
  with pytest.raises(ValueError, match='pair 1 has one, but pair 3 has none'):
    build(('a', 'b'), ('c', 'd'), ('e', None))
  with pytest.raises(ValueError, match='pair 1 has none, but pair 2 has one'):
    build(('a', None), ('c', 'd'))
  assert list(tmp_path.iterdir()) == []


def test_nothing_left_is_an_error(build, tmp_path):
  with pytest.raises(ValueError, match="'train' must hold at least one pair"):
    build()
  with pytest.raises(
    ValueError, match=r"keep at least one.*'dropped_empty': 2"
  ):
    build(('a', ''), ('', 'a'))
  assert list(tmp_path.iterdir()) == []


def test_wrong_input_leaves_the_old_file(build, tmp_path, vocabulary):
  build(('abc', 'de'))
  text = tmp_path / 'bad.txt'
  text.write_bytes(b'a\n' * 5 + b'\xff\n')
  bad = sources.ParallelText(source_files=str(text), reference_files=str(text))
  with pytest.raises(ValueError, match=r'bad\.txt .* line 6 .* byte 10 '):
    pair_store.build(
      tmp_path,
      'train',
      bad,
      vocabulary,
      max_source_length=9,
      max_target_length=9,
    )
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'bad.txt',
    'pairs-train-00000-of-00001.arrow',
  ]
  assert pair_store.PairStore.open(tmp_path, 'train').source_text(0) == 'abc'


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ({'source_length': 1}, 'max_source_length must be at least 2; got 1'),
    ({'target_length': 0}, 'max_target_length must be at least 2; got 0'),
    ({'ratio': 0.9}, 'max_length_ratio must be at least 1; got 0.9'),
  ],
)
def test_wrong_settings_are_refused(build, setting, message):
  with pytest.raises(ValueError, match=message):
    build(('a', 'b'), **setting)


@pytest.mark.parametrize('split', ['', 'a/b', 'a-b', '../a'])
def test_wrong_split_names_are_refused(tmp_path, split):
  with pytest.raises(ValueError, match='split must be a name'):
    pair_store.PairStore.open(tmp_path, split)


@pytest.mark.parametrize('seed', range(6))
def test_block_size_does_not_matter(build, monkeypatch, vocabulary, seed):
  draw = random.Random(seed)

  def text():
    return ' '.join(
      draw.choice(['a', 'bc', 'def', '\u200b', '']) for _ in range(4)
    )

  pairs = [(text(), text()) for _ in range(60)] + [('a', 'a')]
  settings = {'source_length': 8, 'target_length': 7, 'ratio': 1.5}
  expected, whole = build(*pairs, **settings)
  # What the rule says, pair by pair.
  kept = []
  for source, reference in pairs:
    lengths = _length(vocabulary, source), _length(vocabulary, reference)
    if (
      min(lengths) > 0
      and lengths[0] <= 7
      and lengths[1] <= 6
      and max(lengths) <= 1.5 * min(lengths)
    ):
      kept.append((source.strip(), reference.strip()))
  made = zip(whole.source_texts(), whole.reference_texts(), strict=True)
  assert list(made) == kept
  assert expected['read'] == len(pairs)
  assert len(pairs) - len(kept) == sum(
    expected[name]
    for name in ('dropped_empty', 'dropped_long', 'dropped_ratio')
  )
  monkeypatch.setattr(arrow_files, 'BATCH_ROWS', draw.choice([1, 7, 20]))
  counts, parts = build(*pairs, **settings)
  assert counts == expected
  assert len(parts) == len(kept)
  rows = np.arange(len(kept))
  for name in ('source_tokens', 'reference_tokens'):
    np.testing.assert_array_equal(
      getattr(whole, name).pad(rows, 8), getattr(parts, name).pad(rows, 8)
    )
  for row in rows:
    assert parts.source_text(row) == kept[row][0]
    assert parts.reference_text(row) == kept[row][1]


def test_rows_out_of_range(build):
  _, store = build(('a', 'b'))
  for row in (-1, 1):
    with pytest.raises(IndexError, match=rf'\[0, 1\); got {row}'):
      store.source_text(row)


def test_a_missing_or_torn_file_is_an_error(build, tmp_path):
  with pytest.raises(FileNotFoundError, match='pairs-test'):
    pair_store.PairStore.open(tmp_path, 'test')
  build(('a', 'b'))
  path = pair_store.pair_path(tmp_path, 'train')
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match=r'pairs-train.* whole Arrow file'):
    pair_store.PairStore.open(tmp_path, 'train')


def test_large_vocabularies_use_wide_token_ids(tmp_path):
  class Wide(vocabularies.Encoder):
    size = 70_000

    def encode_batch(self, texts):
      return [np.array([69_999] * len(text)) for text in texts]

  pair_store.build(
    tmp_path,
    'train',
    _Pairs((('ab', 'a'),)),
    Wide(),
    max_source_length=9,
    max_target_length=9,
  )
  store = pair_store.PairStore.open(tmp_path, 'train')
  assert store.source_tokens[0].dtype == np.uint32
  np.testing.assert_array_equal(store.source_tokens[0], [69_999, 69_999, 1])


class _Translation(vocabularies.Encoder):
  """A language before each source, EOS and a language after each target."""

  size = 300

  def encode_batch(self, texts):
    return [np.frombuffer(text.encode(), np.uint8) for text in texts]

  @property
  def source(self):
    return vocabularies.Side(self.encode_batch, before=(256,), after=(2,))

  @property
  def target(self):
    return vocabularies.Side(self.encode_batch, before=(), after=(2, 257))


def test_special_ids_stand_around_kept_rows(tmp_path):
  counts = pair_store.build(
    tmp_path,
    'train',
    _Pairs((('ab', 'c'), ('abc', 'd'), ('e', 'fg'))),
    _Translation(),
    max_source_length=4,
    max_target_length=4,
  )
  store = pair_store.PairStore.open(tmp_path, 'train')
  assert counts['dropped_long'] == 1
  assert [row.tolist() for row in store.source_tokens] == [
    [256, 97, 98, 2],
    [256, 101, 2],
  ]
  assert [row.tolist() for row in store.reference_tokens] == [
    [99, 2, 257],
    [102, 103, 2, 257],
  ]
  assert counts['lengths_of_95_percent'] == [5, 4]
