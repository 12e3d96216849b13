"""Tests of processes side by side."""

import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from rest_jax.launch import commands, processes


@pytest.fixture(autouse=True)
def _short_times(monkeypatch):
  monkeypatch.setattr(processes, '_SETTLE_SECONDS', 0.3)
  monkeypatch.setattr(processes, '_SLACK_SECONDS', 0.3)


def _python(text, *arguments):
  return commands.Command((sys.executable, '-c', text, *arguments))


def _run(*worker_commands, grace_seconds=20.0, **settings):
  return processes.run_together(
    worker_commands, grace_seconds=grace_seconds, **settings
  )


_SLEEPS = 'import time; time.sleep(60)'
# Says that it is there, and on SIGTERM that it saves.
_SAVES = """
import signal, sys, time
def save(number, frame):
  print('saved on', signal.Signals(number).name, flush=True)
  sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, save)
print('ready', flush=True)
time.sleep(60)
"""


def test_lines_carry_the_number_of_their_worker(capsys):
  outcome = _run(_python('print("a\\nb")'), _python('print("c")'))
  assert [one.status for one in outcome.ended] == [0, 0]
  printed = capsys.readouterr().out.splitlines()
  assert sorted(printed) == ['[0] a', '[0] b', '[1] c']
  assert printed.index('[0] a') < printed.index('[0] b')


def test_a_single_worker_has_no_number(capsys):
  _run(
    _python('print("a", flush=True); import sys; print("b", file=sys.stderr)')
  )
  assert capsys.readouterr().out == 'a\nb\n'


def test_the_failure_of_one_stops_the_others(capsys):
  started = time.monotonic()
  outcome = _run(
    _python(_SAVES), _python('import sys; print("no file"); sys.exit(1)')
  )
  assert time.monotonic() - started < 20
  first, second = outcome.ended
  assert (first.worker, first.status, first.was_stopped) == (1, 1, False)
  assert first.last_lines == ('no file',)
  assert (second.worker, second.was_stopped) == (0, True)
  assert second.status == 128 + signal.SIGTERM
  assert 'saved on SIGTERM' in second.last_lines
  assert 'worker 1 ended with status 1' in capsys.readouterr().err


def test_workers_that_fail_together_do_not_count_as_stopped():
  outcome = _run(
    _python('import sys; sys.exit(1)'),
    _python('import os, time; time.sleep(0.1); os.kill(os.getpid(), 9)'),
  )
  assert {(one.status, one.was_stopped) for one in outcome.ended} == {
    (1, False),
    (137, False),
  }


def test_a_worker_that_does_not_end_in_time_is_killed():
  stubborn = (
    'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '
    'time.sleep(60)'
  )
  outcome = _run(
    _python(stubborn), _python('raise SystemExit(1)'), grace_seconds=0.1
  )
  assert [(e.worker, e.status) for e in outcome.ended] == [(1, 1), (0, 137)]


def test_only_the_last_lines_are_kept():
  outcome = _run(_python('for n in range(100): print(n)'))
  kept = outcome.ended[0].last_lines
  assert kept == tuple(map(str, range(100)))[-processes.NUM_LAST_LINES :]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_forwarded_once_and_waited_for(number, tmp_path):
  before = signal.getsignal(number)
  counted = _SAVES.replace(
    "print('saved",
    f"open({str(tmp_path)!r} + '/' + sys.argv[1], 'a')"
    ".write('x'); time.sleep(0.5); print('saved",
  ).replace("print('ready', flush=True)", "open(sys.argv[2], 'w').close()")
  ready = [tmp_path / f'ready{n}' for n in range(2)]

  def send():
    while not all(path.exists() for path in ready):
      time.sleep(0.05)
    os.kill(os.getpid(), number)

  threading.Thread(target=send).start()
  outcome = _run(*(_python(counted, f'w{n}', str(ready[n])) for n in range(2)))
  assert outcome.interrupted == number
  assert [one.status for one in outcome.ended] == [128 + number] * 2
  assert [(tmp_path / f'w{n}').read_text() for n in range(2)] == ['x', 'x']
  assert signal.getsignal(number) is before


def test_a_worker_that_does_not_save_in_time_is_killed(tmp_path):
  stubborn = (
    'import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '
    'open(sys.argv[1], "w").close(); time.sleep(60)'
  )
  ready = tmp_path / 'ready'

  def send():
    while not ready.exists():
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=send).start()
  outcome = _run(_python(stubborn, str(ready)), grace_seconds=0.1)
  assert outcome.interrupted == signal.SIGTERM
  assert outcome.ended[0].status == 137


def test_child_processes_of_a_worker_are_killed(tmp_path):
  pid_file = tmp_path / 'pid'
  leaves = (
    'import subprocess, sys; child = subprocess.Popen(["sleep", "60"]); '
    'open(sys.argv[1], "w").write(str(child.pid)); sys.exit(1)'
  )
  started = time.monotonic()
  outcome = _run(_python(leaves, str(pid_file)))
  assert time.monotonic() - started < 20
  assert outcome.ended[0].status == 1
  pid = int(pid_file.read_text())
  for _ in range(100):
    try:
      os.kill(pid, 0)
    except ProcessLookupError:
      break
    time.sleep(0.05)
  else:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    assert stat.rsplit(')', 1)[1].split()[0] == 'Z'


def test_with_a_marker_the_reported_status_counts(capsys):
  sent = []
  outcome = _run(
    _python('print("x"); print("END 7"); raise SystemExit(255)'),
    marker='END ',
    send=sent.append,
  )
  assert outcome.ended[0].status == 7
  assert outcome.ended[0].last_lines == ('x',)
  assert 'END' not in capsys.readouterr().out


def test_without_its_marker_a_connection_is_lost():
  outcome = _run(_python('raise SystemExit(1)'), marker='END ')
  assert outcome.ended[0].status is None


def test_other_workers_are_stopped_by_the_given_function():
  sent = []
  outcome = _run(
    _python(_SLEEPS),
    _python('print("END 1")'),
    marker='END ',
    send=sent.append,
    grace_seconds=0.1,
  )
  assert sent == [signal.SIGTERM]
  assert [(e.worker, e.status) for e in outcome.ended] == [(1, 1), (0, None)]


def test_a_missing_program_is_an_error():
  with pytest.raises(commands.LaunchError, match='no_such_program'):
    _run(commands.Command(('no_such_program',)))
