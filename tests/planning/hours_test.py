"""Tests of the estimate of hours, against values by hand."""

import dataclasses

import pytest

from rest_jax.planning import chips, counts, hours, measured
from rest_jax.sampling import sampler
from tests import smoke

_CHIP = chips.CHIPS['v5e']


def _measured(name, seconds, items=1):
  return measured.Measured(
    name=name,
    size=1,
    unit='rows',
    items=items,
    num_chips=4,
    fits=True,
    flops=seconds * _CHIP.peak_flops,
    flops_once=seconds * _CHIP.peak_flops,
  )


def test_a_part_takes_its_calls_at_the_assumed_share_of_the_bound():
  # 900 s of calls at the bound, of which two fifths are reached.
  part = hours.Part('a', 300, 3.0)
  assert part.hours == pytest.approx(900 / 0.4 / 3600)


@pytest.mark.parametrize(
  'sources, chips_, expected',
  # Of 10 sources a block: ceil(sources / 10) blocks for each of 2 groups of 4
  # samples, over the chips.
  [(10, 1, 2), (11, 1, 4), (100, 4, 5), (101, 4, 6), (1, 256, 1)],
)
def test_blocks_are_dealt_out_to_the_chips(sources, chips_, expected):
  decode = sampler.DecodeConfig(
    num_samples_per_source=8, samples_per_block=4, block_sources=10
  )
  assert hours.blocks(decode, sources, chips_) == expected


@pytest.fixture
def parts():
  """Of the smoke experiment: G=2, I=2, N=4, 30 BC steps, 8 Improve steps."""
  experiment = smoke.settings(gin_files=('gin_configs/losses/oac.gin',))
  programs = {
    'bc': _measured('bc', 2.0),
    'reward pre-training': _measured('reward pre-training', 3.0),
    'reward ratings': _measured('reward ratings', 5.0),
    'value': _measured('value', 7.0),
    'improve': _measured('improve', 11.0),
    hours.SCORED_SOURCES: _measured(hours.SCORED_SOURCES, 13.0, items=7),
    hours.SCORED: _measured(hours.SCORED, 17.0, items=100),
  }
  found = hours.parts(
    experiment,
    programs,
    num_sources=50,
    vocabulary_size=400,
    chip=_CHIP,
    num_chips=4,
  )
  return {part.name: part for part in found}


def test_calls_follow_from_the_sizes(parts):
  calls = {name: part.calls for name, part in parts.items()}
  evaluations = 8 // 4 + 1
  assert calls == {
    'BC': 30,
    'reward pre-training': 10,
    'reward ratings': 10,
    # ceil(50 / 16) blocks over 4 chips, in each of 2 Grows.
    'Grow, sampling': 2 * 1,
    # 50 sources, 7 a call; 50 * (4 + 1) candidates, 100 a call.
    'Grow, scorer sources': 2 * 8,
    'Grow, scorer candidates': 2 * 3,
    'value': 2 * 3000,
    'Improve': 2 * 2 * 8,
    # 20 sources, 16 a block.
    'Improve, sampling of evaluations': 2 * 2 * evaluations * 1,
  }


def test_each_call_takes_its_program_s_bound(parts):
  seconds = {name: part.seconds for name, part in parts.items()}
  assert seconds['BC'] == pytest.approx(2.0)
  assert seconds['Improve'] == pytest.approx(11.0)
  assert seconds['Grow, scorer candidates'] == pytest.approx(17.0)


def test_sampling_takes_a_step_for_each_token_of_the_maximum(parts):
  experiment = smoke.settings()
  decode = experiment.grow.decode
  network = experiment.network
  work = counts.decoding_step(network, decode, decode.source_length_buckets[-1])
  least = max(
    work.flops / _CHIP.peak_flops, work.accessed_bytes / _CHIP.hbm_bandwidth
  )
  assert parts['Grow, sampling'].seconds == pytest.approx(
    decode.max_target_length * least
  )


def test_programs_that_were_not_compiled_are_left_out():
  found = hours.parts(
    dataclasses.replace(smoke.settings(), num_grow_steps=1),
    {},
    num_sources=50,
    vocabulary_size=400,
    chip=_CHIP,
    num_chips=4,
  )
  assert [part.name for part in found] == [
    'Grow, sampling',
    'Improve, sampling of evaluations',
  ]
