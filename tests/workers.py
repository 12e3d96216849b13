"""Bounds, watches and reports the processes that run the tests."""

import _thread
import faulthandler
import pathlib
import resource
import signal
import sys
import threading

import pytest

from rest_jax.runtime import memory_maps


class Memory:
  """Drops compiled programs between files; reports peak memory and maps."""

  def __init__(self):
    self._max_maps = 0
    self._lines: list[str] = []

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_protocol(self, item, nextitem):
    result = yield
    if nextitem is None or nextitem.path != item.path:
      self._max_maps = max(self._max_maps, memory_maps.num_maps())
      memory_maps.bound()
    return result

  def pytest_sessionfinish(self, session):
    # Only xdist's workers have it; the process that starts them reads it.
    output = getattr(session.config, 'workeroutput', None)
    if output is not None:
      output['memory'] = self._used()

  @pytest.hookimpl(optionalhook=True)
  def pytest_testnodedown(self, node, error):
    output = getattr(node, 'workeroutput', {})
    self._lines.append(
      f'{node.gateway.id}: {output.get("memory") or f"lost ({error})"}'
    )

  def pytest_terminal_summary(self, terminalreporter):
    terminalreporter.section('memory')
    for line in self._lines or [self._used()]:
      terminalreporter.line(line)

  def _used(self) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
      f'peak {peak:.1f} GiB; memory maps: {memory_maps.num_maps():,} at the '
      f'end, {self._max_maps:,} at most after a file, '
      f'{memory_maps.max_maps():,} allowed'
    )


class LostWorkers:
  """Ends the run soon after one of xdist's workers is lost.

  Some of xdist's schedulers wait for ever once that has happened, and a test
  of another worker may take an hour.

  Args:
    grace_seconds: time for the other workers' tests to end.
    exit_seconds: time for the summary; then the process exits without it.
  """

  def __init__(self, grace_seconds: float = 15, exit_seconds: float = 30):
    self._grace_seconds = grace_seconds
    self._exit_seconds = exit_seconds
    self._timer: threading.Timer | None = None
    self._lost: list[str] = []
    self._running: list[str] = []

  @pytest.hookimpl(optionalhook=True)
  def pytest_testnodedown(self, node, error):
    if not error:
      return
    self._lost.append(node.gateway.id)
    if self._timer is None:
      # As Ctrl-C does: what has failed is listed, and all workers are ended.
      # What a shell starts in the background ignores Ctrl-C.
      signal.signal(signal.SIGINT, signal.default_int_handler)
      self._timer = threading.Timer(self._grace_seconds, _thread.interrupt_main)
      self._timer.daemon = True
      self._timer.start()
      faulthandler.dump_traceback_later(
        self._grace_seconds + self._exit_seconds,
        exit=True,
        file=sys.__stderr__,
      )

  @pytest.hookimpl(optionalhook=True)
  def pytest_handlecrashitem(self, crashitem):
    self._running.append(crashitem)

  @pytest.hookimpl(tryfirst=True)
  def pytest_sessionfinish(self):
    if self._timer is not None:
      self._timer.cancel()

  def pytest_terminal_summary(self, terminalreporter):
    if self._lost:
      terminalreporter.section('lost workers', red=True)
      terminalreporter.line(
        f'{", ".join(self._lost)} died while running '
        f'{", ".join(self._running) or "no test"}. The run was ended; tests '
        'that are not listed did not run.'
      )

  def pytest_unconfigure(self):
    if self._timer is not None:
      faulthandler.cancel_dump_traceback_later()


class Programs:
  """Keeps the cache of compiled programs small, and whole.

  Args:
    folder: the cache.
    max_bytes: its size when a run begins; the oldest programs beyond it are
      removed.
  """

  def __init__(self, folder: pathlib.Path, max_bytes: int = 2**32):
    self._folder = folder
    self._max_bytes = max_bytes

  def pytest_sessionstart(self, session):
    if hasattr(session.config, 'workerinput'):
      return
    # Here, since JAX takes long to import.
    from rest_jax.runtime import compiled_programs

    compiled_programs.prune(self._folder, self._max_bytes)

  def pytest_warning_recorded(self, warning_message):
    from rest_jax.runtime import compiled_programs

    compiled_programs.forget_damaged(str(warning_message.message))
