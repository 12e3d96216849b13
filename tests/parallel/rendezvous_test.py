"""Tests of how the processes of a run find each other."""

from concurrent import futures
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from rest_jax.parallel import processes, rendezvous
from tests.parallel import spawn


@pytest.fixture
def address():
  return f'localhost:{spawn.free_port()}'


def _meet(address, number, *, count, seconds=20.0):
  """Has a process of a run meet the others; returns what it raised."""
  try:
    rendezvous.meet(address, count, number, seconds)
  except rendezvous.MeetingError as error:
    return str(error)
  return None


@pytest.fixture
def start(address):
  """Starts a process of a run, which waits until all have met."""
  with futures.ThreadPoolExecutor(4) as pool:
    yield lambda number, **given: pool.submit(_meet, address, number, **given)


def _all_go_on(*started):
  assert [each.result() for each in started] == [None] * len(started)


@pytest.mark.parametrize('numbers', [[0, 1, 2], [2, 1, 0]])
def test_all_go_on_once_all_are_there(start, numbers):
  _all_go_on(*[start(number, count=3) for number in numbers])


def test_one_process_waits_for_nobody(address):
  assert _meet(address, 0, count=1) is None


def test_process_0_says_who_is_missing(start, address):
  other = start(2, count=4)
  message = start(0, count=4, seconds=2.0).result()
  assert f'process 0 of 4 at {address} is waiting for process' in message
  assert 'processes 1, 3, for 2 s' in message and '--process_id' in message
  assert other.result() == f'process 2 of 4 cannot go on: {message}'


def test_one_that_has_waited_long_says_who_is_missing(start, address):
  first = start(0, count=3)
  message = _meet(address, 1, count=3, seconds=1.0)
  assert 'process 1 of 3: process 0 at' in message
  assert 'has waited 1 s for process 2' in message
  _all_go_on(first, start(1, count=3), start(2, count=3))


def test_the_others_say_that_process_0_is_missing(address):
  message = _meet(address, 1, count=2, seconds=0.5)
  assert f'process 1 of 2 is waiting for process 0 at {address}' in message
  assert 'Connection refused' in message and 'for 0.5 s' in message


def test_who_is_missing_is_logged_meanwhile(
  start, address, monkeypatch, caplog
):
  monkeypatch.setattr(rendezvous, 'TELL_SECONDS', 0.1)

  def wait_for(words):
    deadline = time.monotonic() + 20
    while words not in caplog.text and time.monotonic() < deadline:
      time.sleep(0.05)
    assert words in caplog.text

  with caplog.at_level('WARNING'):
    second = start(1, count=3)
    wait_for(f'process 1 of 3 is waiting for process 0 at {address}')
    first = start(0, count=3)
    wait_for(f'process 0 of 3 at {address} is waiting for process 2')
    wait_for(f'process 0 at {address} are waiting for process 2')
    _all_go_on(first, second, start(2, count=3))


def test_one_that_was_restarted_is_waited_for(start, address):
  first = start(0, count=3)
  host, port = address.split(':')
  with _connection(host, int(port)) as left:
    left.sendall(b'rest_jax 1 3\n')
  # Process 0 has to see that it left before all seem to be there.
  time.sleep(0.5)
  second = start(2, count=3)
  with pytest.raises(TimeoutError):
    first.result(timeout=0.5)
  _all_go_on(first, second, start(1, count=3))


def _connection(host, port):
  """A connection to process 0 once that listens."""
  deadline = time.monotonic() + 20
  while True:
    try:
      return socket.create_connection((host, port))
    except ConnectionRefusedError:
      assert time.monotonic() < deadline
      time.sleep(0.05)


def test_another_of_the_same_number_is_told(start):
  first = start(0, count=3)
  twice = [start(1, count=3), start(1, count=3)]
  [refused], [waits] = futures.wait(twice, 20, futures.FIRST_COMPLETED)
  assert 'another process has --process_id=1 already' in refused.result()
  _all_go_on(first, waits, start(2, count=3))


def test_another_number_of_processes_is_told(start, address):
  first = start(0, count=3)
  message = _meet(address, 1, count=2)
  assert 'started with --num_processes=3; got process 1 of 2' in message
  _all_go_on(first, start(1, count=3), start(2, count=3))


def test_a_port_in_use_is_named(address):
  with rendezvous._server(address, int(address.split(':')[1])):
    message = _meet(address, 0, count=2)
  assert 'cannot listen at port' in message and 'Choose another port' in message


@pytest.mark.parametrize('address', ['localhost', ':12', 'localhost:x'])
def test_an_address_has_host_and_port(address):
  with pytest.raises(ValueError, match='must be host:port'):
    rendezvous.meet(address, 2, 1, 1.0)


def test_waiting_in_jax_ends_in_python(monkeypatch, caplog):
  ended = threading.Event()
  monkeypatch.setattr(
    jax.distributed, 'initialize', lambda *_, **__: ended.wait(20)
  )
  monkeypatch.setattr(rendezvous, 'TELL_SECONDS', 0.1)
  with (
    caplog.at_level('WARNING'),
    pytest.raises(rendezvous.MeetingError, match=r'for 0\.4 s'),
  ):
    processes.initialize(timeout_s=0.4)
  ended.set()
  assert 'waiting for the other processes of the run at the' in caplog.text


def test_what_jax_raises_is_raised(monkeypatch):
  def fail(*_, **__):
    raise RuntimeError('no cluster')

  monkeypatch.setattr(jax.distributed, 'initialize', fail)
  with pytest.raises(RuntimeError, match='no cluster'):
    processes.initialize()


def test_a_command_alone_ends_with_an_error(address, tmp_path):
  done = subprocess.run(
    [
      sys.executable, '-m', 'rest_jax.main', '--distributed',
      f'--coordinator_address={address}', '--num_processes=2',
      '--process_id=1', '--meeting_timeout_s=1',
      '--gin_file=gin_configs/experiments/smoke.gin',
      f'--model_dir={tmp_path / "run"}',
    ],
    cwd=spawn.ROOT, capture_output=True, text=True, check=False, timeout=120,
  )  # fmt: skip
  assert done.returncode == 1
  assert 'waiting for process 0' in done.stderr
  assert 'Check failure' not in done.stderr and 'Traceback' not in done.stderr
  assert not (tmp_path / 'run').exists()
