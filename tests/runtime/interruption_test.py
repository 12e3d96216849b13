"""Tests of stopping on a signal."""

import os
import signal

import pytest

from rest_jax.runtime import interruption

TERM, INT = signal.SIGTERM, signal.SIGINT


def _send(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', [TERM, INT])
def test_it_stops_at_once_where_nothing_defers_it(number):
  after = []
  with (
    interruption.handled(),
    pytest.raises(interruption.Interrupted) as raised,
  ):
    _send(number)
    after.append('not reached')
  assert raised.value.number == number
  assert str(raised.value) == signal.Signals(number).name
  assert not after


def test_handlers_are_put_back():
  before = [signal.getsignal(number) for number in interruption.SIGNALS]
  with interruption.handled():
    assert signal.getsignal(TERM) not in before
  assert [signal.getsignal(n) for n in interruption.SIGNALS] == before


def test_it_waits_for_what_defers_it():
  done = []
  with (
    interruption.handled(),
    pytest.raises(interruption.Interrupted) as raised,
  ):
    with interruption.deferred() as is_interrupted:
      assert not is_interrupted()
      _send(TERM)
      assert is_interrupted()
      done.append('saved')
    done.append('not reached')
  assert raised.value.number == TERM
  assert done == ['saved']


def test_the_second_signal_does_not_wait():
  done = []
  with (
    interruption.handled(),
    pytest.raises(interruption.Interrupted) as raised,
    interruption.deferred(),
  ):
    _send(TERM)
    _send(INT)
    done.append('not reached')
  assert raised.value.number == INT
  assert not done


def test_a_part_may_be_stopped_at_once():
  done = []
  with (
    interruption.handled(),
    pytest.raises(interruption.Interrupted),
    interruption.deferred(),
  ):
    try:
      with interruption.immediate():
        _send(TERM)
        done.append('not reached')
    except interruption.Interrupted:
      done.append('saved')
      raise
  assert done == ['saved']


def test_a_part_does_not_begin_after_a_signal():
  done = []
  with (
    interruption.handled(),
    pytest.raises(interruption.Interrupted),
    interruption.deferred(),
  ):
    _send(TERM)
    done.append('goes on')
    with interruption.immediate():
      done.append('not reached')
  assert done == ['goes on']


def test_what_came_before_is_forgotten():
  with (
    interruption.handled(),
    pytest.raises(interruption.Interrupted),
    interruption.deferred(),
  ):
    _send(TERM)
  with interruption.handled(), interruption.deferred() as is_interrupted:
    assert not is_interrupted()
