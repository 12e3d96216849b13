"""Tests of settings that follow from measured facts."""

import dataclasses

import numpy as np
import pytest

from rest_jax.own_data import choices

CPU = choices.Machine()
TPU = choices.Machine(platform='tpu', num_devices=8)


def lengths(half=14, most=24, nearly_all=40, longest=60, mean=15.0):
  return choices.Lengths(
    mean=mean, half=half, most=most, nearly_all=nearly_all, longest=longest
  )


def facts(**changes):
  return choices.Facts(
    **{
      'num_train': 2000,
      'num_validation': 200,
      'num_characters': 90,
      'vocabulary_size': 1100,
      'folded': 0.0,
      'source': lengths(),
      'target': lengths(longest=50),
      'longer': lengths(half=16, most=26, nearly_all=42),
      **changes,
    }
  )


def test_lengths_are_those_of_shares_of_the_texts():
  measured = choices.Lengths.of(np.arange(1, 101))
  assert measured == lengths(50, 90, 99, 100, 50.5)


@pytest.mark.parametrize(
  ('num_pairs', 'num_characters', 'size'),
  [
    (2000, 90, 1100),  # 25 sqrt(2000) = 1,118
    (100, 60, 300),
    (160_000, 100, 10_000),
    (10_000_000, 100, 32_000),
    (2000, 3000, 6100),  # Characters of Chinese.
  ],
)
def test_the_vocabulary_grows_with_the_root_of_the_pairs(
  num_pairs, num_characters, size
):
  assert choices.vocabulary_size(num_pairs, num_characters) == size


def test_frequent_characters_make_up_a_share_of_the_text():
  counts = {'e': 90, 'n': 8, 'x': 1, 'y': 1}
  assert choices.num_frequent(counts, 0.9) == 1
  assert choices.num_frequent(counts, 0.91) == 2
  assert choices.num_frequent(counts, 1.0) == 4


@pytest.mark.parametrize(
  ('longest', 'nearly_all', 'kept'),
  [(60, 40, 64), (64, 40, 64), (90, 40, 80), (9000, 400, 512), (3, 3, 8)],
)
def test_the_longest_are_kept_unless_they_are_outliers(
  longest, nearly_all, kept
):
  measured = lengths(longest=longest, nearly_all=nearly_all)
  assert choices.longest_kept(measured) == kept


def test_buckets_are_few_and_end_with_the_longest():
  assert choices.buckets(lengths(), 64, 2000) == (24, 64)
  assert choices.buckets(lengths(), 64, 20_000) == (16, 24, 64)
  assert choices.buckets(lengths(most=63), 64, 2000) == (64,)


def test_bc_makes_twenty_passes_within_limits():
  # 20 * 1.2 * 10,000 * 15 / 2048 = 1,758
  many = facts(num_train=10_000, longer=lengths())
  assert choices.bc_steps(many, 2048, 'tiny', CPU) == 1800
  assert choices.bc_steps(facts(), 2048, 'tiny', CPU) == 600
  more = facts(num_train=1_000_000)
  assert choices.bc_steps(more, 768, 'small', CPU) == 8000
  assert choices.bc_steps(more, 32_768, 'base', TPU) == 11_000


@pytest.mark.parametrize(
  ('num_train', 'machine', 'size'),
  [
    (2000, CPU, 'tiny'),
    (20_000, CPU, 'small'),
    (500_000, CPU, 'small'),
    (2000, TPU, 'tiny'),
    (500_000, TPU, 'base'),
  ],
)
def test_the_network_fits_text_and_machine(num_train, machine, size):
  assert choices.network_size(num_train, machine) == size


def test_settings_of_a_cpu_and_of_an_accelerator():
  small = choices.choose(facts(num_train=50_000), CPU)
  assert (small.num_samples_per_source, small.block_sources) == (8, 32)
  assert (small.tokens_per_batch, small.dtype) == (768, 'float32')
  assert small.packed_lengths == (64,)
  assert small.max_grow_sources == 10_000
  large = choices.choose(facts(num_train=150_000), TPU)
  assert (large.num_samples_per_source, large.block_sources) == (32, 64)
  assert (large.tokens_per_batch, large.dtype) == (65_536, 'bfloat16')
  assert large.packed_lengths == ()
  assert large.max_grow_sources is None


@pytest.mark.parametrize(
  ('size', 'longest', 'tokens'),
  # At least eight rows, as far as 2,048 tokens.
  [
    ('tiny', 48, 512),
    ('tiny', 72, 576),
    ('small', 48, 768),
    ('tiny', 512, 2048),
  ],
)
def test_batches_are_small_on_a_cpu(size, longest, tokens):
  assert choices.tokens_per_batch(size, longest, CPU) == tokens


def test_long_rows_are_not_packed():
  assert choices.packed_lengths((32, 128), CPU) == (128,)
  assert choices.packed_lengths((32, 136), CPU) == ()


def test_the_reward_is_learned_where_there_are_ratings():
  assert choices.choose(facts(), CPU).reward == 'references_likelihood'
  # 3 * 1.2 * 5000 * 60 / 2048 = 527
  rated = facts(num_ratings=5000, rated=lengths(nearly_all=90, mean=60.0))
  chosen = choices.choose(rated, CPU)
  assert (chosen.reward, chosen.reward_steps) == ('learned', 530)
  assert chosen.reward_max_length == 96
  assert chosen.reward_buckets == (32, 64, 96)
  assert choices.choose(rated, CPU, reward='chrf').reward == 'chrf'
  with pytest.raises(
    ValueError, match="reward 'learned' needs ratings; got none"
  ):
    choices.choose(facts(), CPU, reward='learned')
  with pytest.raises(ValueError, match=r"size must be one of .* got 'huge'"):
    choices.choose(facts(), CPU, size='huge')


def test_sources_without_references_need_another_reward():
  assert choices.choose(facts(num_grow=9), CPU).reward == 'consensus'
  rated = facts(num_grow=9, num_ratings=9, rated=lengths(), rated_within=True)
  assert choices.choose(rated, CPU).reward == 'features'
  with pytest.raises(ValueError, match='needs a reference of each source'):
    choices.choose(rated, CPU, reward='chrf')


def test_wide_marks_and_many_characters_are_kept():
  assert choices.normalization_rule(0.05) == 'nmt_nfkc'
  assert choices.normalization_rule(0.5) == 'identity'
  assert choices.character_coverage(90) == 1.0
  assert choices.character_coverage(4000) == 0.9995


def test_every_length_holds_what_the_limits_allow():
  for source, target in ((60, 300), (300, 60), (9, 9)):
    measured = facts(
      source=lengths(longest=source, nearly_all=source),
      target=lengths(longest=target, nearly_all=target),
    )
    chosen = dataclasses.asdict(choices.choose(measured, CPU))
    longest = max(chosen['max_source_length'], chosen['max_target_length'])
    assert chosen['buckets'][-1] == longest >= max(source, target)
