"""Runs on a worker: keeps the program going when the connection is lost.

  python3 rest_jax/launch/worker.py run ID PROGRAM ...    starts it, shows its log, ends as it
  python3 rest_jax/launch/worker.py stop SIGNAL SECONDS PROGRAM ...
                                                 signals it, kills it after SECONDS
  python3 rest_jax/launch/worker.py is_running            status 0 if any program runs

`run` may be called any number of times: a program that runs is followed and not
started again, and one that ended under the same ID is only reported. So whoever
loses the connection (gcloud tries again by itself) calls it again.

It is read by whatever Python 3 the worker has, so it needs nothing but that.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

STATE = pathlib.Path('build') / 'worker'
_RUN, _STATUS, _LOG = STATE / 'run.json', STATE / 'status', STATE / 'log'

# The last line of `run` begins with it, by which the launcher tells the
# program's end from that of the connection.
ENDED = '[worker] ended with status '
_POLL_SECONDS = 0.2


def run(run_id, argv):
  """Starts the program unless it is there, and shows its log until it ends."""
  current = _current()
  start = 0
  if _is_alive(current):
    if current['argv'] != argv:
      print(f'[worker] another run is going on here: {current["argv"]}')
      print(f'[worker] wait for it, or end it: kill {current["pid"]}')
      print(f'{ENDED}1', flush=True)
      return 1
    start = max(0, _LOG.stat().st_size - 2000)
    print('[worker] it is running already; its log goes on:', flush=True)
    run_id = current['id']
  elif current.get('id') != run_id:
    _start(run_id, argv)
  _follow(run_id, start)
  if not _STATUS.exists():
    print('[worker] the program and its keeper are gone without a status')
    return 1
  status = int(_STATUS.read_text())
  print(f'{ENDED}{status}', flush=True)
  return status


def stop(number, seconds, argv):
  """Signals a program, and kills it if it has not ended after `seconds`."""
  current = _current()
  if not _is_alive(current) or current['argv'] != argv:
    print('[worker] that program is not running')
    return 0
  _signal(current, number)
  deadline = time.monotonic() + seconds
  while _is_alive(current):
    if time.monotonic() > deadline:
      print('[worker] the program did not end in time and is killed')
      _signal(current, signal.SIGKILL)
      deadline = float('inf')
    time.sleep(_POLL_SECONDS)
  return 0


def _start(run_id, argv):
  STATE.mkdir(parents=True, exist_ok=True)
  _STATUS.unlink(missing_ok=True)
  with open(_LOG, 'wb') as log:
    keeper = subprocess.Popen(
      [sys.executable, __file__, 'keep', run_id, *argv],
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
  while _current().get('id') != run_id and keeper.poll() is None:
    time.sleep(_POLL_SECONDS)


def _keep(run_id, argv):
  """Waits for the program and writes its status; signals are the program's."""
  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
  try:
    program = subprocess.Popen(argv)
  except OSError as error:
    print(f'cannot start {argv[0]}: {error.strerror}', flush=True)
    program = None
  pid = program.pid if program else None
  current = {'id': run_id, 'argv': argv, 'keeper': os.getpid(), 'pid': pid}
  _write(_RUN, json.dumps(current))
  status = program.wait() if program else 127
  _write(_STATUS, str(status if status >= 0 else 128 - status))


def _follow(run_id, position):
  """Prints the log from a position in bytes until the keeper has ended."""
  with open(_LOG, 'rb') as log:
    log.seek(position)
    while True:
      # Asked before the log is read: what it wrote last is then read too.
      is_alive = _is_alive(_current())
      while chunk := log.read(65536):
        sys.stdout.buffer.write(chunk)
      sys.stdout.buffer.flush()
      if not is_alive or _current().get('id') != run_id:
        return
      time.sleep(_POLL_SECONDS)


def _current():
  """The run that was started last; empty if there was none."""
  try:
    return json.loads(_RUN.read_text())
  except FileNotFoundError:
    return {}


def _is_alive(current):
  """Whether its keeper runs, and is no other process of that number."""
  if not current:
    return False
  try:
    text = pathlib.Path(f'/proc/{current["keeper"]}/cmdline').read_bytes()
  except OSError:
    return False
  return current['id'].encode() in text.split(b'\0')


def _signal(current, number):
  # It may have ended just now, or have never begun.
  with contextlib.suppress(ProcessLookupError, TypeError):
    os.kill(current['pid'], number)


def _write(path, text):
  """Leaves either the whole text or none."""
  part = path.with_suffix('.part')
  part.write_text(text)
  os.replace(part, path)


def main(arguments):
  """Does what the command line says; returns the exit status."""
  action, rest = arguments[0], arguments[1:]
  if action == 'run':
    return run(rest[0], rest[1:])
  if action == 'stop':
    return stop(int(rest[0]), float(rest[1]), rest[2:])
  if action == 'is_running':
    return 0 if _is_alive(_current()) else 1
  _keep(rest[0], rest[1:])
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
