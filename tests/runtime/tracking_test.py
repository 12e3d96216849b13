"""Tests of what Weights & Biases is told."""

import contextlib
import sys
import types

import numpy as np
import pytest

from rest_jax.runtime import tracking
from rest_jax.storage import event_file


class Told:
  """What a stand-in for the package was told."""

  def __init__(self):
    self.runs, self.logged, self.axes, self.errors = [], [], [], []

  @contextlib.contextmanager
  def init(self, **arguments):
    self.runs.append(arguments)
    try:
      yield types.SimpleNamespace(
        log=self.logged.append,
        define_metric=lambda name, step_metric: self.axes.append(
          (name, step_metric)
        ),
      )
    except ValueError as error:
      self.errors.append(str(error))
      raise


@pytest.fixture
def told(monkeypatch):
  told = Told()
  package = types.SimpleNamespace(
    init=told.init, Histogram=lambda values: ('histogram', values.tolist())
  )
  monkeypatch.setitem(sys.modules, 'wandb', package)
  return told


def test_off_by_default(told, tmp_path):
  with tracking.wandb(None, tmp_path), event_file.EventFile(tmp_path) as events:
    events.add_scalar('train/loss', 1.0, 3)
  assert told.runs == [] and told.logged == []


def test_events_are_told_with_an_axis_for_each_stage(told, tmp_path):
  for name in ('bc', 'grow_1'):
    (tmp_path / name).mkdir()
  with tracking.wandb('rest', tmp_path):
    with event_file.EventFile(tmp_path / 'bc') as events:
      events.add_scalar('train/loss', 1.5, 10)
      events.add_scalar('train/loss', 1.25, 20)
    with event_file.EventFile(tmp_path / 'grow_1') as events:
      events.add_histogram('samples/reward', np.array([0.5, 2.0]), 1)
      events.add_text('samples/text', 'stays here', 1)
  with event_file.EventFile(tmp_path / 'bc') as events:
    events.add_scalar('train/loss', 1.0, 30)  # After the run.
  assert told.logged == [
    {'bc/train/loss': 1.5, 'bc/step': 10},
    {'bc/train/loss': 1.25, 'bc/step': 20},
    {
      'grow_1/samples/reward': ('histogram', [0.5, 2.0]),
      'grow_1/step': 1,
    },
  ]
  assert told.axes == [('bc/*', 'bc/step'), ('grow_1/*', 'grow_1/step')]


def test_a_resumed_run_is_the_same_run(told, tmp_path):
  for name in ('one', 'one', 'two'):
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / 'operative_config.gin').write_text('SEED = 3\n')
    with tracking.wandb('rest', tmp_path / name):
      pass
  with tracking.wandb('other', tmp_path / 'one'):
    pass
  first, again, other, elsewhere = told.runs
  assert first == again
  assert len({first['id'], other['id'], elsewhere['id']}) == 3
  assert first['config'] == {'gin': 'SEED = 3\n'}
  assert (first['project'], first['name']) == ('rest', 'one')
  assert first['resume'] == 'allow'


def test_errors_pass_through_it(told, tmp_path):
  with pytest.raises(ValueError, match='wrong'), tracking.wandb('r', tmp_path):
    raise ValueError('wrong')
  assert told.errors == ['wrong']
  tracking.log(tmp_path, 'train/loss', 1.0, 1)
  assert told.logged == []


def test_without_the_package(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with (
    pytest.raises(ImportError, match='pip install wandb'),
    tracking.wandb('rest', tmp_path),
  ):
    pass
