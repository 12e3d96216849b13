"""Tests of the cache of compiled programs."""

import pathlib
import warnings

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import pytest

from rest_jax.runtime import compiled_programs
from rest_jax.storage import paths


@pytest.fixture
def config(monkeypatch):
  """What JAX is told; nothing is set in the environment."""
  told = {'jax_compilation_cache_dir': None}

  class Config:
    values = told

    def update(self, name, value):
      told[name] = value

  monkeypatch.setattr(jax, 'config', Config())
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)
  for name in (
    'JAX_COMPILATION_CACHE_DIR',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS',
  ):
    monkeypatch.delenv(name, raising=False)
  return told


def test_programs_lie_in_the_cache_of_the_user(config, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  compiled_programs.keep(tmp_path / 'run')
  folder = pathlib.Path(config['jax_compilation_cache_dir'])
  assert folder.is_dir()
  assert folder.parent == tmp_path / 'cache' / 'rest_jax' / 'programs'
  assert not (tmp_path / 'run').exists()
  assert config['jax_persistent_cache_min_compile_time_secs'] == 0.0


def test_they_lie_in_the_run_if_the_user_has_no_cache(
  config, tmp_path, monkeypatch
):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  compiled_programs.keep(tmp_path / 'run')
  assert config['jax_compilation_cache_dir'] == str(tmp_path / 'run')


def test_the_environment_comes_first(config, tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'set by the user')
  monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '2')
  compiled_programs.keep(tmp_path / 'run')
  assert config == {'jax_compilation_cache_dir': None}


def test_processors_do_not_share_programs(tmp_path, monkeypatch):
  folders = []
  for flags in ('sse avx2', 'avx2 sse', 'sse avx2 amx'):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'model name : one\nflags\t: {flags}\nbugs : none\n')
    monkeypatch.setattr(compiled_programs, '_CPU', path)
    folders.append(compiled_programs.user_folder())
  assert folders[0] == folders[1] != folders[2]


def test_a_damaged_program_is_removed(config, tmp_path, monkeypatch, caplog):
  shown = []
  for name in (
    'jit_step-1a-cache',
    'jit_step-2b-cache',
    'jit_stepping-3c-cache',
  ):
    (tmp_path / name).write_bytes(b'half')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path))
  monkeypatch.setattr(warnings, 'showwarning', shown.append)
  compiled_programs.keep(tmp_path / 'run')
  config['jax_compilation_cache_dir'] = str(tmp_path)
  warnings.showwarning(
    "Error reading persistent compilation cache entry for 'jit_step': E: torn"
  )
  assert [path.name for path in tmp_path.iterdir()] == ['jit_stepping-3c-cache']
  assert not shown and 'jit_step was damaged' in caplog.text
  warnings.showwarning('another')
  assert shown == ['another']


def test_programs_in_a_bucket_are_shared_and_mended(
  bucket_dir, monkeypatch, tmp_path, caplog
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(bucket_dir))
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)
  before = jax.config.values['jax_compilation_cache_dir']

  def compiled() -> list[bytes]:
    """Compiles a program anew, and returns what the bucket keeps."""

    def tripled(x):
      return 3 * x

    assert jax.jit(tripled)(jnp.arange(3)).tolist() == [0, 3, 6]
    found = bucket_dir.glob('*/jit_tripled-*-cache')
    return [path.read_bytes() for path in found]

  try:
    compilation_cache.reset_cache()
    compiled_programs.share(paths.of(bucket_dir))
    compiled_programs.keep(tmp_path)
    [program] = compiled()
    assert compiled() == [program]
    [path] = bucket_dir.glob('*/jit_tripled-*-cache')
    path.write_bytes(program[:-1])
    [mended] = compiled()
    assert mended != program[:-1] and compiled() == [mended]
    assert caplog.text.count('tripled was damaged') == 1
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
    compilation_cache.reset_cache()
