"""Tests of how the processes of a run find each other."""

from concurrent import futures
import socket
import subprocess
import sys
import threading

import jax
import pytest

from rest_jax.parallel import processes, rendezvous
from tests.parallel import spawn


@pytest.fixture
def address():
  return f'localhost:{spawn.free_port()}'


def _meet(address, numbers, *, count, seconds=20.0):
  """Has some of a run's processes meet; returns what each raised.

  Process 0 waits for `seconds`, the others a little longer.
  """

  def meet(number):
    longer = 2.0 if number and 0 in numbers else 0.0
    try:
      rendezvous.meet(address, count, number, seconds + longer)
    except rendezvous.MeetingError as error:
      return str(error)
    return None

  with futures.ThreadPoolExecutor(len(numbers)) as pool:
    return list(pool.map(meet, numbers))


@pytest.mark.parametrize('numbers', [[0, 1, 2], [2, 1, 0]])
def test_all_go_on_once_all_are_there(address, numbers):
  assert _meet(address, numbers, count=3) == [None] * 3


def test_one_process_waits_for_nobody(address):
  assert _meet(address, [0], count=1) == [None]


def test_process_0_says_who_is_missing(address):
  found = _meet(address, [0, 2], count=4, seconds=2.0)
  for message in found:
    assert f'process 0 of 4 at {address} is waiting for process' in message
    assert 'processes 1, 3, for 2 s' in message and '--process_id' in message
  assert found[1].startswith('process 2 of 4 cannot go on: process 0')


def test_one_that_has_waited_long_says_who_is_missing(address):
  with futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(_meet, address, [0], count=3, seconds=3.0)
    [message] = _meet(address, [1], count=3, seconds=1.0)
    first.result()
  assert 'process 1 of 3: process 0 at' in message
  assert 'has waited 1 s for process 2' in message


def test_the_others_say_that_process_0_is_missing(address):
  [message] = _meet(address, [1], count=2, seconds=0.5)
  assert f'process 1 of 2 is waiting for process 0 at {address}' in message
  assert 'Connection refused' in message and 'for 0.5 s' in message


def test_who_is_missing_is_logged_meanwhile(address, monkeypatch, caplog):
  monkeypatch.setattr(rendezvous, 'TELL_SECONDS', 0.1)
  with caplog.at_level('WARNING'):
    _meet(address, [0, 1], count=3, seconds=1.5)
    _meet(address, [1], count=3, seconds=1.0)
  assert f'process 0 of 3 at {address} is waiting for process 2' in caplog.text
  assert f'process 0 at {address} are waiting for process 2' in caplog.text
  assert f'process 1 of 3 is waiting for process 0 at {address}' in caplog.text


def test_one_that_was_restarted_is_waited_for(address):
  host, port = address.split(':')
  late = threading.Timer(1.0, _meet, (address, [1]), {'count': 2})
  first = threading.Timer(0.3, _leave_at_once, (host, int(port)))
  for timer in (first, late):
    timer.start()
  assert _meet(address, [0], count=2) == [None]
  for timer in (first, late):
    timer.join()


def _leave_at_once(host, port):
  with socket.create_connection((host, port)) as opened:
    opened.sendall(b'rest_jax 1 2\n')


def test_another_of_the_same_number_is_told(address):
  with futures.ThreadPoolExecutor(1) as pool:
    waiting = pool.submit(_meet, address, [0, 1], count=3, seconds=4.0)
    [twice] = _meet(address, [1], count=3)
    either = f'{waiting.result()} {twice}'  # Whichever came second.
  assert 'another process has --process_id=1 already' in either


def test_another_number_of_processes_is_told(address):
  with futures.ThreadPoolExecutor(1) as pool:
    waiting = pool.submit(_meet, address, [0], count=3, seconds=4.0)
    [message] = _meet(address, [1], count=2)
    waiting.result()
  assert 'started with --num_processes=3; got process 1 of 2' in message


def test_a_port_in_use_is_named(address):
  with rendezvous._server(address, int(address.split(':')[1])):
    [message] = _meet(address, [0], count=2)
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


@pytest.mark.parametrize('number', [0, 1])
def test_a_command_alone_ends_with_an_error(address, tmp_path, number):
  done = subprocess.run(
    [
      sys.executable, '-m', 'rest_jax.main', '--distributed',
      f'--coordinator_address={address}', '--num_processes=2',
      f'--process_id={number}', '--meeting_timeout_s=1',
      '--gin_file=gin_configs/experiments/smoke.gin',
      f'--model_dir={tmp_path / "run"}',
    ],
    cwd=spawn.ROOT, capture_output=True, text=True, check=False, timeout=120,
  )  # fmt: skip
  assert done.returncode == 1
  assert f'waiting for process {1 - number}' in done.stderr
  assert 'Check failure' not in done.stderr and 'Traceback' not in done.stderr
  assert not (tmp_path / 'run').exists()
