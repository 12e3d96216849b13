"""Tests of what keeps a program going on a worker."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from rest_jax.launch import worker

# Prints, waits for a file called `go`, and ends with a status.
_WAITS = """
import os, pathlib, signal, sys, time
def save(number, frame):
  print('saved', flush=True)
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
with open('starts', 'a') as starts:
  starts.write('x')
print('started with', sys.argv[2:], flush=True)
while not pathlib.Path('go').exists():
  time.sleep(0.02)
print('went on', flush=True)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def home(tmp_path):
  """Where a worker keeps its state; nothing is left running there."""
  yield tmp_path
  path = tmp_path / 'build' / 'worker' / 'run.json'
  if path.exists():
    argv = json.loads(path.read_text())['argv']
    _call(tmp_path, 'stop', '9', '0', *argv)


def _argv(*arguments):
  return [sys.executable, str(worker.__file__), *map(str, arguments)]


def _call(home, *arguments):
  return subprocess.run(
    _argv(*arguments), cwd=home, capture_output=True, text=True, timeout=60
  )


def _begin(home, run_id, *arguments):
  return subprocess.Popen(
    _argv('run', run_id, *arguments),
    cwd=home,
    stdout=subprocess.PIPE,
    text=True,
  )


def _lose(connection):
  connection.kill()
  connection.communicate()


def _program(*arguments):
  return (sys.executable, '-c', _WAITS, *arguments)


def _wait_for(text, home):
  log = home / 'build' / 'worker' / 'log'
  for _ in range(400):
    if log.exists() and text in log.read_text():
      return
    time.sleep(0.05)
  raise AssertionError(f'{text!r} never came')


@pytest.mark.parametrize('status', [0, 1, 41])
def test_the_program_is_followed_to_its_end(home, status):
  (home / 'go').touch()
  done = _call(home, 'run', 'a', *_program(str(status), 'b c', "'"))
  assert done.returncode == status
  lines = done.stdout.splitlines()
  assert lines[0] == f'started with {["b c", chr(39)]}'
  assert lines[-2:] == ['went on', f'{worker.ENDED}{status}']


def test_a_new_connection_follows_the_same_program(home):
  first = _begin(home, 'a', *_program('0'))
  _wait_for('started', home)
  _lose(first)
  assert _call(home, 'is_running').returncode == 0
  second = _begin(home, 'a', *_program('0'))
  time.sleep(0.3)
  (home / 'go').touch()
  printed, _ = second.communicate(timeout=60)
  assert 'went on' in printed
  assert printed.splitlines()[-1] == f'{worker.ENDED}0'
  assert (home / 'starts').read_text() == 'x'


def test_a_program_that_ended_unobserved_is_reported_and_not_repeated(home):
  first = _begin(home, 'a', *_program('5'))
  _wait_for('started', home)
  _lose(first)
  (home / 'go').touch()
  for _ in range(400):
    if _call(home, 'is_running').returncode == 1:
      break
  again = _call(home, 'run', 'a', *_program('5'))
  assert again.returncode == 5
  assert again.stdout.splitlines()[-1] == f'{worker.ENDED}5'
  assert (home / 'starts').read_text() == 'x'
  # Another start is another start.
  assert _call(home, 'run', 'b', *_program('5')).returncode == 5
  assert (home / 'starts').read_text() == 'xx'


def test_another_run_is_not_disturbed(home):
  first = _begin(home, 'a', *_program('0'))
  _wait_for('started', home)
  other = _call(home, 'run', 'b', *_program('1'))
  assert other.returncode == 1
  assert 'another run' in other.stdout
  # It is an error, not a lost worker, which would be started again.
  assert other.stdout.splitlines()[-1] == f'{worker.ENDED}1'
  stopped = _call(home, 'stop', '15', '0', *_program('1'))
  assert 'not running' in stopped.stdout
  assert first.poll() is None
  (home / 'go').touch()
  assert first.wait(60) == 0
  first.stdout.close()


def test_a_signal_reaches_the_program(home):
  first = _begin(home, 'a', *_program('0'))
  _wait_for('started', home)
  stop = ('stop', '15', '30', *_program('0'))
  assert _call(home, *stop).returncode == 0
  printed, _ = first.communicate(timeout=60)
  assert printed.splitlines()[-2:] == ['saved', f'{worker.ENDED}143']
  stopped = _call(home, *stop)
  assert (stopped.returncode, 'not running' in stopped.stdout) == (0, True)


def test_a_program_that_does_not_end_in_time_is_killed(home):
  stubborn = (
    'import signal, time; signal.signal(15, signal.SIG_IGN); '
    'print("started", flush=True); time.sleep(60)'
  )
  program = (sys.executable, '-c', stubborn)
  first = _begin(home, 'a', *program)
  _wait_for('started', home)
  assert 'killed' in _call(home, 'stop', '15', '0.3', *program).stdout
  printed, _ = first.communicate(timeout=60)
  assert printed.splitlines()[-1] == f'{worker.ENDED}137'


def test_without_a_status_nothing_is_reported(home):
  first = _begin(home, 'a', *_program('0'))
  _wait_for('started', home)
  state = json.loads((home / 'build' / 'worker' / 'run.json').read_text())
  os.kill(state['keeper'], signal.SIGKILL)
  printed, _ = first.communicate(timeout=60)
  assert worker.ENDED not in printed
  assert first.returncode == 1
  os.kill(state['pid'], signal.SIGKILL)


def test_a_program_that_is_not_there_is_an_error(home):
  done = _call(home, 'run', 'a', './nothing')
  assert done.returncode == 127
  assert 'cannot start ./nothing' in done.stdout


def test_another_process_of_that_number_is_not_the_keeper(home):
  state = home / 'build' / 'worker'
  state.mkdir(parents=True)
  (state / 'run.json').write_text(
    json.dumps({'id': 'a', 'argv': ['x'], 'keeper': os.getpid(), 'pid': 0})
  )
  assert _call(home, 'is_running').returncode == 1


def test_worker_needs_only_the_standard_library():
  text = pathlib.Path(worker.__file__).read_text()
  imported = {
    line.split()[1].split('.')[0]
    for line in text.splitlines()
    if line.startswith(('import ', 'from '))
  }
  assert imported <= set(sys.stdlib_module_names)
