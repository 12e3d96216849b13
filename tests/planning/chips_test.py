"""Tests of the chips' figures and the names of slices."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from rest_jax.planning import chips


@pytest.mark.parametrize(
  'name, tflops, gib, gigabytes_a_second',
  [
    ('v4', 275, 32, 1200),
    ('v5e', 197, 16, 819),
    ('v5p', 459, 95, 2765),
    ('v6e', 918, 32, 1638),
  ],
)
def test_figures_are_those_of_the_published_tables(
  name, tflops, gib, gigabytes_a_second
):
  chip = chips.CHIPS[name]
  assert chip.peak_flops == tflops * 10**12
  assert chip.hbm_bytes == gib * 2**30
  assert chip.hbm_bandwidth == gigabytes_a_second * 10**9


def test_the_longer_time_is_the_bound():
  chip = chips.CHIPS['v5e']
  # 197e12 FLOPs take a second, 819e9 bytes too.
  assert chip.bound(197e12, 0.5 * 819e9) == ('compute', 1.0)
  assert chip.bound(0.5 * 197e12, 819e9) == ('memory', 1.0)
  assert chip.bound(2 * 197e12, 819e9) == ('compute', 2.0)


@pytest.mark.parametrize(
  'name, shape, count',
  [
    ('v5e:4x4', (4, 4), 16),
    ('v5e:16x16', (16, 16), 256),
    ('v6e:1x1', (1, 1), 1),
    ('v4:2x2x1', (2, 2, 1), 4),
    ('v5p:2x2x2', (2, 2, 2), 8),
    ('2xv5e:4x4', (4, 4), 32),
    ('12xv4:2x2x1', (2, 2, 1), 48),
  ],
)
def test_a_slice_is_read_from_its_name(name, shape, count):
  where = chips.Slice(name)
  assert where.shape == shape
  assert where.num_chips == count
  assert where.chip.name in name
  assert where.num_slices == int((name.split('v')[0] or '1x')[:-1])


@pytest.mark.parametrize(
  'name',
  [
    'v5e',
    'v5e:',
    'v5e:4x',
    '4x4',
    'v7:2x2',
    'v5litepod:4x4',
    'cpu:8',
    '0xv5e:4x4',
    'xv5e:4x4',
    '2v5e:4x4',
  ],
)
def test_an_invalid_slice_is_refused_with_an_example(name):
  with pytest.raises(ValueError, match=r'v5e:4x4 or v4:2x2x1'):
    chips.Slice(name)


@pytest.mark.parametrize(
  'name', ['v5e:2x2x1', 'v4:2x2', 'v5e:0x4', 'v6e:2x2x2']
)
def test_a_shape_of_another_chip_is_refused(name):
  with pytest.raises(ValueError, match='axes'):
    chips.Slice(name)


def test_without_libtpu_the_error_says_how_to_install_it(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r"pip install -e '\.\[tpu\]'"):
    chips.Slice('v5e:2x2').devices()


_LOCAL_WORK = """
import sys
import jax
import jax.numpy as jnp
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.planning import chips

name, is_alone, gathers = sys.argv[1], sys.argv[2] == 'alone', sys.argv[3]
devices = chips.Slice(name).devices()
meshes = mesh_lib.MeshConfig().build_each_local(devices)
mesh = meshes[0]
if not is_alone:
  own = [each for each in devices if each.process_index == 0]
  mesh = mesh_lib.MeshConfig().build(own)
shape = jax.ShapeDtypeStruct(
  (64, 8), jnp.float32, sharding=mesh_lib.batch_sharding(mesh)
)
out = mesh_lib.replicated(mesh) if gathers == 'gathers' else None
jax.jit(jnp.sin, out_shardings=out).lower(shape).compile()
print(len(meshes), mesh.size)
"""


@pytest.mark.parametrize(
  'name, what, gathers, found',
  [
    # Any chips of a v5p's network reach each other.
    ('v5p:2x2x2', 'alone', 'gathers', '1 4'),
    ('v4:2x2x2', 'alone', 'gathers', '1 4'),
    # Of a v5e's and a v6e's, all do or none.
    ('v5e:4x4', 'together', 'gathers', None),
    ('v6e:4x4', 'together', 'gathers', None),
    ('v5e:4x8', 'together', 'does not', None),
    ('v5e:4x4', 'alone', 'gathers', '4 1'),
    ('v6e:4x4', 'alone', 'gathers', '4 1'),
    ('v5e:4x8', 'alone', 'gathers', '4 1'),
    ('v5e:2x2', 'alone', 'gathers', '1 4'),
  ],
)
def test_what_compiles_for_the_chips_of_one_host(name, what, gathers, found):
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip('libtpu is not installed; it is in the extra [tpu]')
  # In a process of its own: the compiler may abort.
  done = subprocess.run(
    [sys.executable, '-c', _LOCAL_WORK, name, what, gathers],
    cwd=pathlib.Path(__file__).resolve().parents[2],
    env=os.environ | {'PYTHONPATH': '.'},
    capture_output=True,
    text=True,
    check=False,
  )
  if found is None:
    assert done.returncode != 0
    assert 'Error' in done.stderr or 'Check failed' in done.stderr
  else:
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == found
