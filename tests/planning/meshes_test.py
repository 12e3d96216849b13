"""Tests of the suggested mesh."""

import pytest

from rest_jax.planning import chips, meshes

_CHIP = chips.CHIPS['v5e']
# What may be kept on a chip.
_ROOM = meshes.STATE_SHARE * _CHIP.hbm_bytes


def _suggest(state_bytes, num_chips=16, **changes):
  sizes = {'num_heads': 16, 'emb_dim': 1024} | changes
  return meshes.suggest(_CHIP, num_chips, int(state_bytes), **sizes)


def test_a_state_that_fits_one_chip_is_held_whole_by_each():
  chosen = _suggest(_ROOM)
  assert (chosen.data, chosen.model) == (16, 1)
  assert not chosen.is_fully_sharded
  assert chosen.state_bytes == int(_ROOM)


def test_a_larger_state_is_split_over_data():
  chosen = _suggest(1.01 * _ROOM)
  assert (chosen.data, chosen.model) == (16, 1)
  assert chosen.is_fully_sharded
  assert chosen.state_bytes == pytest.approx(1.01 * _ROOM / 16, abs=1)


def test_scoring_splits_over_as_few_devices_of_model_as_will_do():
  chosen = _suggest(3 * _ROOM, can_shard_fully=False)
  # 3 parts would do, but 3 divides neither chips nor heads.
  assert (chosen.data, chosen.model) == (4, 4)
  assert not chosen.is_fully_sharded


def test_model_is_taken_where_data_does_not_divide_the_width():
  # 520 = 8 * 65 does not divide by 16 devices of data, but by 8.
  chosen = _suggest(1.5 * _ROOM, emb_dim=520)
  assert (chosen.data, chosen.model) == (8, 2)
  assert not chosen.is_fully_sharded
  chosen = _suggest(3 * _ROOM, emb_dim=520)
  assert (chosen.data, chosen.model) == (8, 2)
  assert chosen.is_fully_sharded


def test_model_divides_the_heads():
  chosen = _suggest(1.5 * _ROOM, num_heads=3, can_shard_fully=False)
  assert chosen is None
  chosen = _suggest(
    1.5 * _ROOM, num_chips=6, num_heads=3, can_shard_fully=False
  )
  assert (chosen.data, chosen.model) == (2, 3)


def test_parameters_are_split_within_a_slice_alone():
  chosen = _suggest(7.9 * _ROOM, num_slices=2)
  assert (chosen.slices, chosen.data, chosen.model) == (2, 16, 1)
  assert chosen.state_bytes == pytest.approx(7.9 * _ROOM / 8, abs=1)
  assert str(chosen).startswith(
    'slices=2, data=16, model=1, parameters sharded'
  )
  # 16 chips would hold it, were they of one slice.
  assert _suggest(8.1 * _ROOM, num_slices=2) is None
  chosen = _suggest(3 * _ROOM, num_slices=2, can_shard_fully=False)
  assert (chosen.slices, chosen.data, chosen.model) == (2, 4, 4)


def test_a_state_too_large_for_any_mesh_has_none():
  assert _suggest(16.1 * _ROOM) is None
  assert _suggest(16 * _ROOM).is_fully_sharded
