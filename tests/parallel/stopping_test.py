"""Tests of several processes that stop together."""

import json
import signal

import numpy as np
import pytest

from rest_jax.parallel import processes, stopping
from rest_jax.training import journal
from tests.parallel import spawn

_STOPPED = 128 + signal.SIGTERM


@pytest.mark.parametrize(
  ('pace', 'steps'), [(0.1, 50), (1.0, 5), (30.0, 1), (0.0, 5000)]
)
def test_they_ask_each_other_after_some_seconds(pace, steps):
  assert stopping.steps_between(pace) == steps


class _Others:
  """Stands for two processes of which this is the second."""

  def __init__(self, monkeypatch, told=0, pace=1.0):
    self.told, self.pace = told, pace
    self.asked = []
    monkeypatch.setattr(processes, 'count', lambda: 2)
    monkeypatch.setattr(processes, 'gather', self.gather)

  def gather(self, name, own):
    self.asked.append(name)
    main = {'number': np.asarray(self.told), 'pace': np.asarray(self.pace)}
    return [main, own]


def test_they_ask_by_the_main_ones_clock_and_where_they_meet(monkeypatch):
  others = _Others(monkeypatch)
  agreement = stopping.Agreement(10)
  asked = []
  for step in range(11, 24):
    number = agreement.number(step, None, (), is_meeting=step == 14)
    assert number is None
    if others.asked:
      asked.append(step)
      others.asked.clear()
  # After the first step, then every five seconds of a second a step.
  assert asked == [11, 14, 19]


def test_a_signal_to_another_is_told_to_this_one(monkeypatch):
  others = _Others(monkeypatch, told=15)
  agreement = stopping.Agreement(0)
  assert agreement.number(1, None, (), is_meeting=False) == 15
  others.told = 0
  # And this one's own is told to the others.
  assert agreement.number(6, 2, (), is_meeting=False) == 2


def test_its_own_signal_waits_until_the_others_are_asked(monkeypatch):
  others = _Others(monkeypatch)
  agreement = stopping.Agreement(0)
  assert agreement.number(1, None, (), is_meeting=False) is None
  assert agreement.number(2, 15, (), is_meeting=False) is None
  assert len(others.asked) == 1
  assert agreement.number(6, 15, (), is_meeting=False) == 15


def test_one_process_asks_nobody():
  agreement = stopping.Agreement(7)
  assert agreement.number(8, None, (), is_meeting=True) is None
  assert agreement.number(9, signal.SIGTERM, (), is_meeting=False) == 15


def _two(folder, *step, status=0):
  """Trains by two processes of two devices; returns what each found."""
  port = str(spawn.free_port())
  module = ['-m', 'tests.parallel.stopped_training', port]
  started = [
    spawn.start([*module, str(number), str(folder), *step], num_devices=2)
    for number in range(2)
  ]
  texts = spawn.outputs(started, 300)
  assert [p.returncode for p in started] == [status] * 2, texts
  return [json.loads(text.splitlines()[-1]) for text in texts]


@pytest.mark.full
def test_a_signal_to_one_stops_both_after_one_step_and_they_resume(tmp_path):
  signalled_at = 14
  stopped = _two(tmp_path, str(signalled_at), status=_STOPPED)
  assert stopped[0] == stopped[1]
  # Batches are read a few steps ahead.
  assert signalled_at - 8 < stopped[0]['steps'] < 30
  found = _two(tmp_path)
  assert found[0] == found[1]
  assert found[0]['resumed'] == found[0]['whole']
  assert found[0]['whole']['steps'] == 30
  logged = [journal.read_metrics(tmp_path / name) for name in ('cut', 'whole')]
  assert logged[0] == logged[1]
