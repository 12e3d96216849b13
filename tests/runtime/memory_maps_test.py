"""Tests of the bound on compiled programs."""

import functools

import jax
import jax.numpy as jnp
import pytest

from rest_jax.runtime import memory_maps

# Programs compiled here; each holds several maps.
_NUM_PROGRAMS = 20

pytestmark = pytest.mark.skipif(
  not memory_maps.max_maps(), reason='memory maps are counted on Linux alone'
)


# Kept as the samplers and trainers keep theirs, for the life of the process.
@functools.cache
def _function(number: int):
  return jax.jit(lambda x: jnp.sin(x) * number)


def _compile() -> list[float]:
  return [float(_function(number)(1.0)) for number in range(_NUM_PROGRAMS)]


def test_programs_are_dropped_above_the_bound_although_functions_are_kept(
  monkeypatch,
):
  # The compiler's own threads and buffers stay.
  expected = _compile()
  jax.clear_caches()
  before = memory_maps.num_maps()
  assert _compile() == expected
  held = memory_maps.num_maps()
  assert held > before + 2 * _NUM_PROGRAMS
  # At the bound nothing happens.
  monkeypatch.setattr(memory_maps, 'MAX_SHARE', held / memory_maps.max_maps())
  assert not memory_maps.bound()
  assert memory_maps.num_maps() >= held
  monkeypatch.setattr(memory_maps, 'MAX_SHARE', before / memory_maps.max_maps())
  assert memory_maps.bound()
  assert memory_maps.num_maps() < before + _NUM_PROGRAMS
  assert _compile() == expected


def test_nothing_is_dropped_where_maps_are_not_counted(monkeypatch, tmp_path):
  monkeypatch.setattr(memory_maps, '_MAPS', tmp_path / 'maps')
  monkeypatch.setattr(memory_maps, '_LIMIT', tmp_path / 'limit')
  assert memory_maps.num_maps() == memory_maps.max_maps() == 0
  assert not memory_maps.bound()
