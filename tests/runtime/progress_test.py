"""Tests of progress where there is no terminal."""

from absl import logging
import pytest

from rest_jax.runtime import progress as progress_lib


@pytest.fixture
def clock(monkeypatch):
  """Time that passes when the test says so."""

  class Clock:
    now = 1000.0

  monkeypatch.setattr(progress_lib.time, 'monotonic', lambda: Clock.now)
  return Clock


@pytest.fixture
def lines(monkeypatch):
  found = []
  monkeypatch.setattr(
    logging, 'info', lambda message, *values: found.append(message % values)
  )
  return found


def test_a_line_now_and_then_with_rate_and_time_left(clock, lines):
  with progress_lib.Progress('grow', 100, 'source') as progress:
    for _ in range(8):
      clock.now += 10
      progress.advance(10)
    assert lines == [
      'grow: 40 of 100 sources, 1.0 a second, 01:00 left',
      'grow: 80 of 100 sources, 1.0 a second, 00:20 left',
    ]
    clock.now += 5
    progress.advance(20)
  assert lines[2:] == ['grow: 100 of 100 sources, 1.2 a second, 01:25 in all']


def test_what_was_done_before_is_no_part_of_the_rate(clock, lines):
  with progress_lib.Progress('bc', 3000, 'step', done=1000) as progress:
    progress.note(loss='2.5')
    clock.now += 40
    progress.advance(200)
  assert lines[0] == (
    'bc: 1,200 of 3,000 steps, 5.0 a second, 06:00 left loss=2.5'
  )


def test_a_total_that_nobody_knows(clock, lines):
  with progress_lib.Progress('tokenise', None, 'pair') as progress:
    clock.now += 20
    progress.advance(5000)
  assert lines == ['tokenise: 5,000 pairs, 250.0 a second, 00:20 in all']


def test_short_work_and_failed_work_have_no_line(clock, lines):
  with progress_lib.Progress('short', 2, 'row') as progress:
    clock.now += 1
    progress.advance(2)
  with pytest.raises(ValueError), progress_lib.Progress('failed', 2, 'row'):
    clock.now += 100
    raise ValueError
  assert lines == []
  # Bars that are over are forgotten.
  assert progress_lib._bars == []
