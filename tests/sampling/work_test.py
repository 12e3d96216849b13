"""What is compiled for how much work, and how sources are split."""

import dataclasses

import numpy as np
import pytest

from rest_jax.models import network
from rest_jax.sampling import decode_config, devices, estimates, shapes, work

_DEMO = network.NetworkConfig(
  vocab_size=700,
  emb_dim=128,
  mlp_dim=256,
  num_heads=4,
  head_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
_IWSLT = network.NetworkConfig(vocab_size=32000)


def _config(**settings):
  settings = {
    'num_samples_per_source': 8,
    'max_target_length': 48,
    'block_sources': 32,
    'source_length_buckets': (16, 24, 48),
  } | settings
  return decode_config.DecodeConfig(**settings)


def _lengths(count):
  """As the demo's sources: 14 tokens on average, few of more than 24."""
  lengths = np.random.default_rng(0).normal(14, 5, count)
  return np.clip(lengths, 4, 48).astype(int)


def _fitted(count, network_config=_DEMO, device=devices.CPU, **settings):
  sizes = estimates.Sizes.of(network_config)
  return work.fitted(_config(**settings), device, sizes, _lengths(count))


def _bodies(found, count):
  """Those that so many sources have compiled."""
  used = {item.shape for item in work.items(_config(), found, _lengths(count))}
  every = {*used, *(shape.longer for shape in used if shape.longer)}
  return sum(shape.loops.num_bodies for shape in every)


def test_bodies_of_loops_are_those_of_a_program():
  loops = shapes.Loops((16, 32, 48), (64, 128, 192), (64, 16))
  # Four capacities per stage; then (32, 48) and (48,).
  assert loops.num_bodies == 3 * 4 + 2 + 1
  assert shapes.Loops((48,)).num_bodies == 1
  assert list(shapes.Loops((48,)).with_one_more(loops)) == [
    shapes.Loops((16, 48)),
    shapes.Loops((32, 48)),
    *(shapes.Loops((48,), (rows,)) for rows in (64, 128, 192)),
    *(shapes.Loops((48,), (), (size,)) for size in (64, 16)),
  ]


def test_parts_of_a_block():
  config = _config(
    num_samples_per_source=10,
    block_sources=2,
    row_shares=(0.01, 0.3),
    compact_shares=(0.35, 0.3, 0.01),
  )
  loops = shapes.block(config, devices.CPU, 48).loops
  assert loops.row_capacities == (1, 6)
  assert loops.compact_sizes == (7, 6, 1)
  # Then every step computes every hypothesis.
  config = dataclasses.replace(config, row_shares=())
  assert shapes.block(config, devices.CPU, 48).loops.compact_sizes == ()


def _queue(length, **settings):
  settings = {
    'num_samples_per_source': 4,
    'block_sources': 4,
    'max_target_length': 96,
    'queue_sources': 12,
  } | settings
  return shapes.queue(_config(**settings), devices.CPU, length)


def test_slots_of_a_queue():
  # Rings of 1.5 times the bucket, in eights; as many as the memory of a block's
  # caches holds, 4 times its sources at most; none without a source.
  found = [_queue(length) for length in (16, 17, 32)]
  assert [queue.max_length for queue in found] == [24, 32, 48]
  assert [queue.num_places for queue in found] == [12, 12, 8]
  # Rings of more than half of the longest hypothesis.
  assert _queue(33) is None
  assert _queue(16, queue_sources=None) is None


def test_row_counts_of_a_queue():
  # In sixteenths, but of no fewer rows than 32.
  assert _queue(16).loops.row_capacities == (32,)
  many = _queue(16, block_sources=64, queue_sources=256)
  assert many.loops.row_capacities == tuple(range(64, 1024, 64))
  assert _queue(16, row_shares=()).loops.row_capacities == ()


def test_few_bodies_where_little_is_sampled():
  every = work.every(_config(), devices.CPU, _lengths(10_000))
  # A queue of 16 loops and three blocks of 15.
  assert _bodies(every, 10_000) == 16 + 3 * 15
  assert [shape.num_places for shape in every] == [64, None, None]
  counts = [
    _bodies(_fitted(count), count) for count in (10, 1_000, 10_000, 100_000)
  ]
  assert counts == sorted(counts)
  assert counts[0] == 1
  assert counts[2] <= 61 / 5


def test_long_work_has_all_loops_of_the_settings():
  settings = {'num_samples_per_source': 100}
  found = _fitted(160_000, _IWSLT, **settings)
  lengths = _lengths(160_000)
  assert found == work.every(_config(**settings), devices.CPU, lengths)


@pytest.mark.parametrize('count', [300, 3_000, 30_000])
def test_no_other_loops_take_less_time(count):
  """Neither one more nor one less, as `estimates` has it."""
  config, lengths = _config(source_length_buckets=(48,)), _lengths(count)
  sizes = estimates.Sizes.of(_DEMO)
  (found,) = work.fitted(config, devices.CPU, sizes, lengths)
  part = estimates.Part(count, float(lengths.mean()))
  estimate = estimates.Estimate(sizes, devices.CPU, (part,))
  every = shapes.block(config, devices.CPU, 48).loops
  others = [
    *found.loops.with_one_more(every),
    *(loops for loops in (every, shapes.Loops((48,))) if loops != found.loops),
  ]
  assert others
  for loops in others:
    other = dataclasses.replace(found, loops=loops)
    assert estimate.seconds(found) <= estimate.seconds(other)


def test_a_device_that_nobody_measured_has_one_loop():
  assert devices.of('cuda') == devices.PLAIN
  for count in (100, 1_000_000):
    for shape in _fitted(count, device=devices.of('gpu')):
      assert shape.loops == shapes.Loops((48,))
      assert shape.num_places is None
  # Compiled ahead of time for it, but not run.
  found = work.every(_config(), devices.of('tpu'), _lengths(100))
  assert {shape.loops for shape in found} == {shapes.Loops((16, 32, 48))}


def test_too_long_hypotheses_of_queues_share_a_block():
  found = _fitted(
    512,
    _IWSLT,
    num_samples_per_source=16,
    block_sources=16,
    max_target_length=128,
    source_length_buckets=(16, 32, 64, 128),
  )
  queues = [shape for shape in found if shape.num_places]
  assert queues
  assert found[-1].source_length == 128
  for shape in queues:
    assert shape.longer == found[-1]


class TestItems:
  def test_every_sample_of_every_source_is_in_one_item(self):
    config = _config(num_samples_per_source=6, samples_per_block=4)
    lengths = _lengths(1_000)
    found = work.every(config, devices.CPU, lengths)
    counts = np.zeros((1_000, 6), int)
    for item in work.items(config, found, lengths):
      assert len(item.positions) <= item.shape.num_sources
      assert len(item.sample_ids) <= item.shape.num_samples
      assert lengths[item.positions].max() <= item.shape.source_length
      counts[np.ix_(item.positions, item.sample_ids)] += 1
    assert (counts == 1).all()

  def test_long_sources_come_first(self):
    config, lengths = _config(), _lengths(500)
    found = _fitted(500)
    longest = [
      lengths[item.positions].max()
      for item in work.items(config, found, lengths)
    ]
    assert longest == sorted(longest, reverse=True)
    assert len(longest) == -(-500 // 32)

  @pytest.mark.parametrize('length', [0, 49])
  def test_refuses_lengths_beyond_the_buckets(self, length):
    with pytest.raises(ValueError, match=f'between 1 and 48 tokens.* {length}'):
      work.items(_config(), _fitted(10), np.array([length]))


class TestEstimates:
  def test_the_mean_of_the_assumed_lengths_is_that_of_the_sources(self):
    longer = estimates.Part(1.0, 200.0).longer(10_000)
    assert longer.sum() == pytest.approx(200, rel=0.01)

  def test_sizes_by_hand(self):
    sizes = estimates.Sizes.of(_DEMO)
    layer = 128 * (6 * 128 + 3 * 256)
    assert sizes.row_flops == 2 * (2 * layer + 128 * 700)
    encoder = 2 * 128 * (4 * 128 + 3 * 256)
    # And the keys and values of two decoder layers.
    assert sizes.source_flops == 2 * (encoder + 128 * 2 * 2 * 128)
    assert sizes.position_bytes == 2 * 2 * 128 * 4

  def test_a_block_by_hand(self):
    device = devices.Device(
      program_seconds=1.0,
      body_seconds=0.25,
      layer_seconds=0.125,
      step_seconds=1.0,
      flops=np.inf,
      bandwidth=np.inf,
    )
    # Hypotheses of at most one token: one step for each of three blocks.
    estimate = estimates.Estimate(
      estimates.Sizes.of(_DEMO), device, (estimates.Part(96, 1.0),)
    )
    shape = dataclasses.replace(
      shapes.block(_config(), device, 16), loops=shapes.Loops((1,))
    )
    assert estimate.running(shape) == pytest.approx(3)
    assert estimate.seconds(shape) == pytest.approx(3 + 1 + 0.25 + 2 * 0.125)
