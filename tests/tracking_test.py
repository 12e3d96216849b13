"""Tests of what Weights & Biases is told."""

import contextlib
import sys
import types

import pytest

from rest_jax import tracking


@pytest.fixture
def calls(monkeypatch):
  """What a stand-in for the package was called with."""
  calls = []

  @contextlib.contextmanager
  def init(**arguments):
    calls.append(arguments)
    try:
      yield
    except ValueError as error:
      calls.append(error)
      raise

  hook = types.SimpleNamespace(
    patch=lambda **arguments: calls.append(arguments),
    unpatch=lambda: calls.append('unpatch'),
  )
  package = types.SimpleNamespace(init=init, tensorboard=hook)
  monkeypatch.setitem(sys.modules, 'wandb', package)
  monkeypatch.setitem(sys.modules, 'tensorboard', types.SimpleNamespace())
  return calls


def test_off_by_default(calls, tmp_path):
  with tracking.wandb(None, tmp_path):
    pass
  assert calls == []


def test_a_resumed_run_is_the_same_run(calls, tmp_path):
  for name in ('one', 'one', 'two'):
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / 'operative_config.gin').write_text('SEED = 3\n')
    with tracking.wandb('rest', tmp_path / name):
      pass
  assert calls[0::3] == [
    {'root_logdir': str(tmp_path / name), 'tensorboard_x': True}
    for name in ('one', 'one', 'two')
  ]
  first, again, other = calls[1::3]
  assert calls[2::3] == ['unpatch'] * 3
  assert first == again
  assert first['id'] != other['id']
  assert first['config'] == {'gin': 'SEED = 3\n'}
  assert (first['project'], first['name']) == ('rest', 'one')
  assert first['resume'] == 'allow'
  with tracking.wandb('other', tmp_path / 'one'):
    pass
  assert calls[-2]['id'] != first['id']


def test_errors_pass_through_it(calls, tmp_path):
  with pytest.raises(ValueError, match='wrong'), tracking.wandb('r', tmp_path):
    raise ValueError('wrong')
  assert calls[-2] == 'unpatch'
  assert str(calls[-1]) == 'wrong'


@pytest.mark.parametrize('name', ['wandb', 'tensorboard'])
def test_without_a_package(calls, monkeypatch, tmp_path, name):
  monkeypatch.setitem(sys.modules, name, None)
  with (
    pytest.raises(ImportError, match='pip install wandb tensorboard'),
    tracking.wandb('rest', tmp_path),
  ):
    pass
