"""Tests of batching: every row once an epoch, an order given by the seed."""

import collections
import functools
import itertools
import tracemalloc

import numpy as np
import pytest

from rest_jax.data import special_ids
from rest_jax.training import loader


def make_batches(lengths, *, seed=0, row_multiple=1, tokens=32):
  lengths = np.asarray(lengths)

  def load(rows, source_length, target_length):
    return {
      'rows': rows + 1,
      'shape': np.full((len(rows), 2), (source_length, target_length)),
      'pair': np.repeat(rows + 1, 2),
    }

  return loader.BucketedBatches(
    loader.Rows(source_lengths=lengths, target_lengths=lengths, load=load),
    tokens_per_batch=tokens,
    buckets=(4, 8, 16),
    seed=seed,
    row_multiple=row_multiple,
  )


def test_decoder_batch_by_hand():
  batch = loader.decoder_batch(
    np.array([[5, 1]], np.int32), np.array([[7, 8, 1, 0]], np.int32)
  )
  np.testing.assert_array_equal(batch['decoder_input_tokens'], [[0, 7, 8, 1]])
  np.testing.assert_array_equal(batch['decoder_loss_weights'], [[1, 1, 1, 0]])
  np.testing.assert_array_equal(batch['encoder_input_tokens'], [[5, 1]])


@pytest.mark.parametrize('row_multiple', [1, 2, 3])
def test_every_row_once_an_epoch_in_its_bucket(row_multiple):
  lengths = np.random.default_rng(0).integers(1, 17, 101)
  batches = make_batches(lengths, row_multiple=row_multiple)
  for epoch in range(3):
    seen = collections.Counter()
    for index in range(batches.batches_per_epoch):
      batch = batches[epoch * batches.batches_per_epoch + index]
      real = batch['rows'][batch['rows'] > 0] - 1
      seen.update(real.tolist())
      length = batch['shape'][0, 0]
      assert len(batch['rows']) % row_multiple == 0
      assert lengths[real].max() <= length
      # The smallest bucket that holds them.
      assert lengths[real].min() > {4: 0, 8: 4, 16: 8}[length]
      assert len(batch['pair']) == 2 * len(batch['rows'])
    assert seen == collections.Counter(range(101))


def test_order_depends_on_seed_and_epoch_alone():
  lengths = np.random.default_rng(1).integers(1, 17, 60)
  a, b = make_batches(lengths), make_batches(lengths)
  other = make_batches(lengths, seed=1)
  count = a.batches_per_epoch
  order = [a[i]['rows'].tolist() for i in range(2 * count)]
  assert order == [b[i]['rows'].tolist() for i in range(2 * count)]
  assert order[:count] != order[count:]
  assert order != [other[i]['rows'].tolist() for i in range(2 * count)]


def naive_order(lengths, seed, epoch, tokens=32):
  """Rows of each batch of an epoch, every batch listed and then permuted."""
  random = np.random.default_rng((seed, epoch))
  bounds, batches = np.array((4, 8, 16)), []
  bucket_of = np.searchsorted(bounds, lengths)
  for bucket in np.unique(bucket_of):
    members = random.permutation(np.flatnonzero(bucket_of == bucket)).tolist()
    size = tokens // int(bounds[bucket])
    batches += [members[i : i + size] for i in range(0, len(members), size)]
  return [batches[i] for i in random.permutation(len(batches))]


@pytest.mark.parametrize('seed', range(4))
def test_batches_are_those_of_a_plain_list(seed):
  random = np.random.default_rng(seed)
  lengths = random.integers(1, 17, 300)
  batches = make_batches(lengths, seed=seed)
  expected = [
    rows for epoch in range(3) for rows in naive_order(lengths, seed, epoch)
  ]
  assert len(expected) == 3 * batches.batches_per_epoch
  # In any order of asking: a batch depends on seed and number alone.
  for index in random.permutation(len(expected)):
    made = batches[int(index)]['rows']
    assert made[made > 0].tolist() == [row + 1 for row in expected[index]]


def test_an_epoch_needs_its_index_alone():
  number = 400_000
  tracemalloc.start()
  batches = make_batches(np.full(number, 3, np.int32))
  before = tracemalloc.get_traced_memory()[0]
  for index in (0, batches.batches_per_epoch - 1, batches.batches_per_epoch):
    batches[index]
  after = tracemalloc.get_traced_memory()[0]
  tracemalloc.stop()
  # Two epochs, each with four bytes a row and eight a batch of eight rows.
  assert after - before < 2 * (4 + 8 / 8) * number + 100_000


def test_iterating_from_the_middle_continues_across_epochs():
  lengths = np.random.default_rng(2).integers(1, 17, 40)
  batches = make_batches(lengths)
  count = batches.batches_per_epoch
  iterator = batches.iterate(count - 2)
  for index in range(count - 2, count + 3):
    np.testing.assert_array_equal(
      next(iterator)['rows'], batches[index]['rows']
    )


def test_share_of_real_tokens_by_hand():
  # Bucket 4 has rows of 3 and 4: 8 rows a batch of 32 tokens, a side.
  batches = make_batches([3, 4])
  assert batches.real_token_share == pytest.approx(7 / 32)


def test_the_expected_normaliser_is_the_mean_of_an_epoch():
  # Three batches: 3 + 4, 7 and 15 tokens.
  assert make_batches([3, 4, 7, 15]).expected_normalizer == 29 / 3
  # It does not depend on the process, which reads its own rows alone.
  whole, lengths = _packed(row_multiple=2)
  part, _ = _packed(row_multiple=2, rows_here=lambda rows: np.arange(rows // 2))
  expected = lengths[1].sum() / whole.batches_per_epoch
  assert whole.expected_normalizer == part.expected_normalizer == expected
  given, _ = _packed(normalizers=np.full(80, 0.25, np.float32))
  assert given.expected_normalizer == 20 / given.batches_per_epoch


def _best_padding(lengths, count):
  """Tokens of the best `count` buckets, by trying all."""
  values = np.unique(lengths)
  return min(
    np.asarray(bounds)[np.searchsorted(bounds, lengths)].sum()
    for size in range(1, count + 1)
    for bounds in itertools.combinations(values, size)
    if bounds[-1] == values[-1]
  )


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_chosen_lengths_leave_the_least_padding(count):
  lengths = np.random.default_rng(count).geometric(0.2, 200)
  bounds = np.asarray(loader.choose_lengths(lengths, count))
  assert len(bounds) == count and np.all(np.diff(bounds) > 0)
  padded = bounds[np.searchsorted(bounds, lengths)].sum()
  assert padded == _best_padding(lengths, count)


def test_no_more_lengths_than_occur():
  assert loader.choose_lengths(np.array([3, 7, 3]), 5) == (3, 7)


def _packed(normalizers=None, **changes):
  random = np.random.default_rng(3)
  tokens = random.integers(3, 99, (80, 12)).astype(np.int32)
  lengths = random.integers(2, 13, (2, 80))

  def load(rows, source_length, target_length):
    widths = (source_length, target_length)
    sides = [
      np.where(np.arange(width) < of[rows, None], tokens[rows, :1], 0)
      for width, of in zip(widths, lengths, strict=True)
    ]
    return loader.decoder_batch(*sides) | {'rows': rows + 1}

  rows = loader.Rows(
    source_lengths=lengths[0],
    target_lengths=lengths[1],
    load=load,
    normalizers=normalizers,
  )
  arguments = dict(
    tokens_per_batch=64,
    buckets=(6, 16),
    seed=0,
    pack=True,
  )
  return loader.BucketedBatches(rows, **(arguments | changes)), lengths


def test_packed_batches_hold_every_pair_once_an_epoch():
  batches, lengths = _packed(row_multiple=2)
  for epoch in range(2):
    seen = collections.Counter()
    for index in range(batches.batches_per_epoch):
      batch = batches[epoch * batches.batches_per_epoch + index]
      assert {value.shape for value in batch.values()} <= {(10, 6), (4, 16)}
      seen.update(batch['rows'][batch['rows'] > 0].tolist())
    # A pair's number stands at each of its target tokens.
    assert seen == collections.Counter(
      {row + 1: int(length) for row, length in enumerate(lengths[1])}
    )
  assert batches.num_rows == 80


def test_packed_batches_have_the_share_of_real_tokens_they_state():
  batches, _ = _packed()
  tokens = [
    batches[index][f'{side}_tokens']
    for index in range(batches.batches_per_epoch)
    for side in ('encoder_input', 'decoder_target')
  ]
  real = sum((side > 0).sum() for side in tokens)
  assert batches.real_token_share == real / sum(side.size for side in tokens)
  unpacked, _ = _packed(pack=False)
  assert batches.real_token_share > unpacked.real_token_share


@pytest.mark.parametrize('pack', [False, True])
@pytest.mark.parametrize('step', [1, 2])
def test_processes_read_their_rows_of_the_same_batches(pack, step):
  def rows_of(process, num_rows):
    if step == 2:  # Every other row.
      return np.arange(process, num_rows, 2)
    return np.arange(num_rows).reshape(2, -1)[process]

  whole, _ = _packed(row_multiple=4, pack=pack)
  num_padding = 0
  for process in range(2):
    rows_here = functools.partial(rows_of, process)
    part, _ = _packed(row_multiple=4, pack=pack, rows_here=rows_here)
    assert part.batches_per_epoch == whole.batches_per_epoch
    for index in range(whole.batches_per_epoch):
      found, expected = part[index], whole[index]
      rows = rows_here(len(expected['rows']))
      num_padding += not found['rows'].any()
      own = set(found['rows'][found['rows'] > 0].reshape(-1).tolist())
      assert own == {row + 1 for row in part.rows(index).tolist()}
      assert found.keys() == expected.keys()
      for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value[rows], name)
  # A part may have no row at all.
  assert num_padding > 0 or step == 2


@pytest.mark.parametrize(
  'lengths, message', [([], 'no row'), ([3, 17], '17 tokens')]
)
def test_wrong_input(lengths, message):
  with pytest.raises(ValueError, match=message):
    make_batches(lengths)


def test_batches_of_other_special_ids():
  ids = special_ids.SpecialIds(pad=9, eos=0, unk=1, decoder_start=9)
  batch = loader.decoder_batch(
    np.array([[5, 0]], np.int32), np.array([[7, 8, 0, 9]], np.int32), ids
  )
  np.testing.assert_array_equal(batch['decoder_input_tokens'], [[9, 7, 8, 0]])
  np.testing.assert_array_equal(batch['decoder_loss_weights'], [[1, 1, 1, 0]])
  batches = loader.BucketedBatches(
    loader.Rows(
      source_lengths=np.array([2]),
      target_lengths=np.array([3]),
      load=lambda rows, *_: batch,
      pad=ids.pad,
    ),
    tokens_per_batch=8,
    buckets=(4,),
    seed=0,
  )
  filled = batches[0]
  for name in ('encoder_input_tokens', 'decoder_target_tokens'):
    assert (filled[name][1:] == 9).all()
  assert (filled['decoder_loss_weights'][1:] == 0).all()
