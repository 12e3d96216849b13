"""Settings of every test.

Tests run on the CPU unless JAX_PLATFORMS says otherwise, in 32 bits. To reuse
compiled functions from run to run, set JAX_COMPILATION_CACHE_DIR.
"""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['JAX_ENABLE_X64'] = '0'

import jaxtyping
import pytest

from tests import workers

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


def pytest_configure(config):
  config.pluginmanager.register(workers.Memory())
  config.pluginmanager.register(workers.LostWorkers())


@pytest.fixture(scope='session')
def shared_dir() -> pathlib.Path:
  """The folder `shared` beside the repository: real data, golden numbers."""
  path = _ROOT.parent / 'shared'
  if not path.is_dir():
    pytest.skip(f'there is no {path}, which holds real data and golden numbers')
  return path
