"""Tests of what ends a run of the tests, on a small suite of their own."""

import os
import pathlib
import re
import subprocess
import sys
import time
import types

from rest_jax.runtime import compiled_programs
from tests import workers

_ROOT = pathlib.Path(__file__).resolve().parents[1]

_CONFTEST = """
from tests import workers

def pytest_configure(config):
  config.pluginmanager.register(workers.Memory())
  config.pluginmanager.register(workers.LostWorkers(grace_seconds=1, exit_seconds=90))
"""

_KILLED = """
import os, pathlib, signal

def test_that_dies():
  pathlib.Path('killed').touch()
  os.kill(os.getpid(), signal.SIGKILL)
"""

# Handlers of signals that are written in Python never run here.
_HANGS = """
import signal, time

def test_that_hangs():
  signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
  time.sleep(1000)
"""

_LONG = """
import time

def test_that_is_long():
  time.sleep(1000)
"""

_PASSES = 'def test_that_passes(): pass\n'

# What a shell starts in the background ignores Ctrl-C.
_IN_THE_BACKGROUND = ('sh', '-c', 'trap "" INT; exec "$@"', 'sh')
# As launch/test.sh.
_TWO = ('-n', '2', '--dist', 'loadfile', '--max-worker-restart=0')


def _run(folder: pathlib.Path, files: dict[str, str], *arguments: str):
  """Runs a suite; returns its exit status and its output."""
  for name, text in {'conftest.py': _CONFTEST, **files}.items():
    (folder / name).write_text(text)
  (folder / 'pytest.ini').write_text('[pytest]\npython_files = *_test.py\n')
  # The run that this test is part of may have options of its own.
  outer = {k: v for k, v in os.environ.items() if not k.startswith('PYTEST_')}
  result = subprocess.run(
    [*_IN_THE_BACKGROUND, sys.executable, '-m', 'pytest', *arguments],
    cwd=folder,
    env={**outer, 'PYTHONPATH': str(_ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
  )
  return result.returncode, result.stdout


def test_a_killed_worker_ends_a_run_whose_other_worker_is_busy(tmp_path):
  files = {'a_test.py': _KILLED, 'b_test.py': _LONG}
  status, output = _run(tmp_path, files, *_TWO)
  seconds = time.time() - (tmp_path / 'killed').stat().st_mtime
  assert status != 0
  assert "crashed while running 'a_test.py::test_that_dies'" in output
  assert 'died while running a_test.py::test_that_dies' in output
  # The other worker would take 1,000; a busy machine takes its time to stop.
  assert seconds < 90


def test_a_test_that_hangs_ends_the_run_and_shows_where(tmp_path):
  settings = ('faulthandler_timeout=2', 'faulthandler_exit_on_timeout=true')
  options = [part for setting in settings for part in ('-o', setting)]
  status, output = _run(tmp_path, {'a_test.py': _HANGS}, *options)
  assert status != 0
  assert 'line 6 in test_that_hangs' in output


def test_every_test_has_a_timeout(pytestconfig):
  assert 0 < float(pytestconfig.getini('faulthandler_timeout')) <= 3600
  assert pytestconfig.getini('faulthandler_exit_on_timeout')


def test_memory_of_each_worker_is_reported(tmp_path):
  files = {'a_test.py': _PASSES, 'b_test.py': _PASSES}
  status, output = _run(tmp_path, files, *_TWO)
  assert status == 0
  for worker in ('gw0', 'gw1'):
    assert re.search(
      rf'{worker}: peak \d+\.\d GiB; memory maps: [\d,]+ at the end', output
    )


def test_the_oldest_programs_beyond_a_size_are_removed(tmp_path):
  for number in range(3):
    path = tmp_path / f'{number}-cache'
    path.write_bytes(b'x' * 10)
    os.utime(path, (number, number))
  programs = workers.Programs(tmp_path, max_bytes=20)
  worker = types.SimpleNamespace(config=types.SimpleNamespace(workerinput={}))
  programs.pytest_sessionstart(worker)
  assert len(list(tmp_path.iterdir())) == 3
  programs.pytest_sessionstart(types.SimpleNamespace(config=object()))
  assert {path.name for path in tmp_path.iterdir()} == {'1-cache', '2-cache'}


def test_a_program_that_cannot_be_read_is_removed(tmp_path, monkeypatch):
  for name in ('jit_step-1a-cache', 'jit_other-2b-cache'):
    (tmp_path / name).write_bytes(b'half')
  stub = types.SimpleNamespace(values={'jax_compilation_cache_dir': tmp_path})
  monkeypatch.setattr(compiled_programs.jax, 'config', stub)
  message = "Error reading persistent compilation cache entry for 'jit_step': E"
  workers.Programs(tmp_path).pytest_warning_recorded(
    types.SimpleNamespace(message=UserWarning(message))
  )
  assert [path.name for path in tmp_path.iterdir()] == ['jit_other-2b-cache']
