"""Tests of the bound on compiled programs."""

import functools

import jax
import jax.numpy as jnp
import pytest

from rest_jax.runtime import compilation

# Programs compiled here; each holds several maps.
_NUM_PROGRAMS = 20

pytestmark = pytest.mark.skipif(
  not compilation.max_maps(), reason='memory maps are counted on Linux alone'
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
  before = compilation.num_maps()
  assert _compile() == expected
  held = compilation.num_maps()
  assert held > before + 2 * _NUM_PROGRAMS
  # At the bound nothing happens.
  monkeypatch.setattr(compilation, 'MAX_SHARE', held / compilation.max_maps())
  assert not compilation.bound()
  assert compilation.num_maps() >= held
  monkeypatch.setattr(compilation, 'MAX_SHARE', before / compilation.max_maps())
  assert compilation.bound()
  assert compilation.num_maps() < before + _NUM_PROGRAMS
  assert _compile() == expected


def test_nothing_is_dropped_where_maps_are_not_counted(monkeypatch, tmp_path):
  monkeypatch.setattr(compilation, '_MAPS', tmp_path / 'maps')
  monkeypatch.setattr(compilation, '_LIMIT', tmp_path / 'limit')
  assert compilation.num_maps() == compilation.max_maps() == 0
  assert not compilation.bound()
