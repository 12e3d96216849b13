"""Tests of the estimate of hours, against values by hand."""

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.planning import chips, counts, hours, measured, plan
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


def _parts(programs, *overrides, **settings):
  experiment = smoke.settings(*overrides, **settings)
  run = run_lib.Run(experiment, 'no such folder')
  return hours.parts(
    run,
    programs,
    policy=plan.policy_of(run),
    num_sources=50,
    chip=_CHIP,
    num_chips=4,
  )


@pytest.fixture
def parts():
  """Of the smoke experiment: G=2, I=2, N=4, 30 BC steps, 8 Improve steps."""
  programs = {
    'bc': _measured('bc', 2.0),
    'reward pre-training': _measured('reward pre-training', 3.0),
    'reward ratings': _measured('reward ratings', 5.0),
    'value': _measured('value', 7.0),
    'improve': _measured('improve', 11.0),
    hours.SCORED_SOURCES: _measured(hours.SCORED_SOURCES, 13.0, items=7),
    'scorer candidates': _measured('scorer candidates', 17.0, items=100),
  }
  found = _parts(programs, gin_files=('gin_configs/losses/oac.gin',))
  return {part.name: part for part in found}


def test_calls_follow_from_the_sizes(parts):
  calls = {name: part.calls for name, part in parts.items()}
  evaluations = 8 // 4 + 1
  assert calls == {
    'bc': 30,
    'reward pre-training': 10,
    'reward ratings': 10,
    # ceil(50 / 16) blocks over 4 chips, in each of 2 Grows.
    'Grow, sampling': 2 * 1,
    # 50 sources, 7 a call; 50 * (4 + 1) candidates, 100 a call.
    'Grow, scorer sources': 2 * 8,
    'Grow, scorer candidates': 2 * 3,
    'value': 2 * 3000,
    'improve': 2 * 2 * 8,
    # 20 sources, 16 a block.
    'Improve, sampling of evaluations': 2 * 2 * evaluations * 1,
  }


def test_each_call_takes_its_program_s_bound(parts):
  seconds = {name: part.seconds for name, part in parts.items()}
  assert seconds['bc'] == pytest.approx(2.0)
  assert seconds['improve'] == pytest.approx(11.0)
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
  names = [part.name for part in _parts({}, 'NUM_GROW_STEPS=1')]
  assert names == ['Grow, sampling', 'Improve, sampling of evaluations']


def test_finished_folders_of_other_runs_cost_nothing():
  programs = {name: _measured(name, 1.0) for name in ('bc', 'improve')}
  given = [f"{name}_DIR='x'" for name in ('BC', 'GROW')]
  found = _parts(programs, 'NUM_GROW_STEPS=2', *given)
  calls = {part.name: part.calls for part in found}
  assert 'bc' not in calls and calls['Grow, sampling'] == 1
