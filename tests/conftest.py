"""Settings of every test.

Tests run on the CPU unless JAX_PLATFORMS says otherwise, in 32 bits. Workers,
the programs they start and later runs share one cache of compiled programs:
JAX_COMPILATION_CACHE_DIR, or a folder of the user's cache.
"""

import gc
import hashlib
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['JAX_ENABLE_X64'] = '0'
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  os.path.expanduser(
    f'{os.environ.get("XDG_CACHE_HOME") or "~/.cache"}/rest_jax/tests'
  ),
)
# Most programs of tests are small, and there are thousands of them.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import jaxtyping
import pytest

from rest_jax.storage import cache, paths
from tests import gcs, workers

# Array annotations of these are checked at every call, in tests only.
_CHECKED = (
  'rest_jax.losses',
  'rest_jax.filters',
  'rest_jax.models',
  'rest_jax.online.objective',
  'rest_jax.sampling',
)
jaxtyping.install_import_hook(_CHECKED, 'beartype.beartype')

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# What tests write need not survive a failure of power.
os.fsync = lambda descriptor: None
# The files that take longest begin first, so that no worker ends alone. The first
# worker makes the smoke run, which the second needs after `training/trainer`.
_LONGEST = (
  'cli/main',
  'training/trainer',
  'gin_configs',
  'bucket_run',
  'sampling/sampler',
  'api',
  'stages/reward',
  'stages/refresh',
  'cli/convert',
  'rest',
  'parallel/mesh',
  'cli/compare',
  'cli/check_checkpoint',
  'online/ppo',
  'parallel/processes',
  'sampling/decode',
  'stages/equal_entropy',
  'stages/online',
  'interop/huggingface',
  'launch/targets/tpu_vm',
  'benchmarks',
  'training/step',
  'workers',
)


def pytest_configure(config):
  config.pluginmanager.register(workers.Memory())
  config.pluginmanager.register(workers.LostWorkers())
  cache = pathlib.Path(os.environ['JAX_COMPILATION_CACHE_DIR'])
  config.pluginmanager.register(workers.Programs(cache))


def pytest_collection_modifyitems(items):
  files = [_ROOT / 'tests' / f'{name}_test.py' for name in _LONGEST]
  place = {path: number for number, path in enumerate(files)}
  items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish():
  # What thousands of tests and large libraries hold is not looked through again,
  # nor is what a trace makes after each 700 objects.
  gc.collect()
  gc.freeze()
  gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope='session')
def run(tmp_path_factory):
  """The finished smoke run. Do not change it."""
  from tests import smoke  # After the hook above: it imports what is checked.

  return smoke.finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope='session')
def _gcs_server():
  with gcs.server() as proxy:
    yield proxy


@pytest.fixture
def gcs_server(_gcs_server, tmp_path, monkeypatch) -> gcs.Proxy:
  """A server of Google Cloud Storage on loopback, and a cache of its own."""
  for name, value in gcs.environment(_gcs_server.port).items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(cache, '_folder', tmp_path / 'cache')
  _gcs_server.reset()
  return _gcs_server


@pytest.fixture
def bucket_dir(gcs_server, request) -> pathlib.Path:
  """A new folder in a bucket."""
  name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
  return paths.of(f'gs://{gcs.BUCKET}/{name}/run')


@pytest.fixture(scope='session')
def shared_dir() -> pathlib.Path:
  """The folder `shared` beside the repository: real data, golden numbers."""
  path = _ROOT.parent / 'shared'
  if not path.is_dir():
    pytest.skip(f'there is no {path}, which holds real data and golden numbers')
  return path
