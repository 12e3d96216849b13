"""Seconds by kind: each counted once, whatever holds it."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from rest_jax.runtime import time_spent


def test_what_is_inside_of_another_is_counted_once():
  clock = time_spent.Clock()
  clock.note('tracing', 1.0, now=3.0)  # From 2 to 3,
  clock.note('waiting', 0.5, now=3.5)  # and to 3.5,
  clock.note('compiling', 4.0, now=5.0)  # both inside of 1 to 5.
  clock.note('tracing', 1.0, now=7.0)
  assert clock.seconds() == {'tracing': 2.0, 'compiling': 2.5, 'waiting': 0.5}


def test_another_thread_holds_nothing_of_this_one():
  clock = time_spent.Clock()
  clock.note('tracing', 1.0, now=3.0)
  beside = threading.Thread(target=clock.note, args=('compiling', 4.0, 5.0))
  beside.start()
  beside.join()
  assert clock.seconds()['compiling'] == 4.0


def test_jax_says_when_it_traces_and_compiles():
  before = time_spent.so_far()
  jax.jit(lambda x: jnp.sin(x) * 3.25)(1.0)
  spent = time_spent.since(before)
  # From the cache of a run before, it is not compiled but read.
  assert spent['tracing'] > 0 and spent['compiling'] + spent['waiting'] > 0


def test_what_is_compiled_inside_of_a_part_counts_apart():
  parts = {'steps': 1.0}
  with time_spent.counted(parts, 'steps'):
    jax.jit(lambda x: jnp.cos(x) * 4.75)(1.0)
    time.sleep(0.1)
  assert parts.keys() == {'steps', 'compiling'}
  assert parts['steps'] >= 1.1 and parts['compiling'] > 0
  with pytest.raises(OSError), time_spent.counted(parts, 'saving'):
    raise OSError
  assert parts['saving'] >= 0


def test_waiting_is_counted_when_it_fails_too(monkeypatch):
  now = iter([10.0, 12.5])
  monkeypatch.setattr(time_spent, '_clock', time_spent.Clock())
  monkeypatch.setattr(time_spent.time, 'monotonic', lambda: next(now))
  before = time_spent.so_far()
  with pytest.raises(OSError), time_spent.waiting():
    raise OSError
  assert time_spent.since(before)['waiting'] == pytest.approx(2.5)
