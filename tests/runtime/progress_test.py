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
    progress.advance(0)
    clock.now += 40
    progress.advance(200)
  assert lines[0] == (
    'bc: 1,200 of 3,000 steps, 5.0 a second, 06:00 left loss=2.5'
  )


def test_the_time_left_is_known_from_the_second_unit_on(clock, lines):
  with progress_lib.Progress('bc', 30, 'step') as progress:
    clock.now += 140  # The first one compiles.
    progress.advance(1)
    clock.now += 40
    progress.advance(20)
    assert lines == [
      'bc: 1 of 30 steps, 02:20 so far',
      'bc: 21 of 30 steps, 2.0 seconds a step, 00:18 left',
    ]


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


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [(20, '2.0 seconds a step'), (3000, '05:00 a step')],
)
def test_slow_work_is_counted_by_the_time_of_a_unit(
  clock, lines, seconds, words
):
  with progress_lib.Progress('bc', 20, 'step') as progress:
    clock.now += seconds
    progress.advance(10)
  took = progress_lib.interval(seconds)
  # It ended early.
  assert lines[-1] == f'bc: 10 of 20 steps, {words}, {took} in all'
  assert lines[:-1] in ([], [f'bc: 10 of 20 steps, {took} so far'])


def test_all_that_was_to_be_done_has_one_line(clock, lines):
  with progress_lib.Progress('bc', 10, 'step') as progress:
    clock.now += 40
    progress.advance(10)
  assert lines == ['bc: 10 of 10 steps, 4.0 seconds a step, 00:40 in all']


def test_stages_of_a_run(clock, lines):
  with progress_lib.Stages(4) as progress:
    progress.end('data', None)  # Finished before: it is not named.
    clock.now += 65
    progress.begin('bc')
    progress.end('bc', 65, 'grow 1')
    clock.now += 20
    progress.end('grow 1', 20, 'improve 1.1', 'about 01:05')
    progress.end('improve 1.1', 3)
  assert lines == [
    'run: bc took 01:05; 2 of 4 stages done, next grow 1',
    'run: grow 1 took 00:20; 3 of 4 stages done, next improve 1.1, about 01:05 '
    'left',
    'run: 4 of 4 stages done, 01:25 in all',
  ]


def test_a_run_that_made_nothing_has_no_line(clock, lines):
  with progress_lib.Stages(1) as progress:
    clock.now += 65
    progress.end('data', None)
  assert lines == []
