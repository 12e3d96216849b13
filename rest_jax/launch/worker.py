"""Runs on a worker: keeps the program running when the connection is lost.

  python3 rest_jax/launch/worker.py run ID PROGRAM ...
      starts the program, shows its log, and exits with its status
  python3 rest_jax/launch/worker.py stop SIGNAL SECONDS PROGRAM ...
      signals the program, and kills it after SECONDS
  python3 rest_jax/launch/worker.py is_running
      exits with status 0 if a program runs

`run` may be repeated: it shows the log of a running program without starting it
again, and reports the status of one that has ended under the same ID. So it is
called again after the connection was lost (gcloud retries by itself).

It needs only the standard library, since any Python 3 of the worker runs it.
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

# Prefix of the last line of `run`. Without this line the launcher knows that
# the connection was lost.
ENDED = '[worker] ended with status '
_POLL_SECONDS = 0.2


def run(run_id, argv):
  """Starts the program unless it runs, and shows its log until it ends."""
  current = _current()
  start = 0
  if _is_alive(current):
    if current['argv'] != argv:
      print(f'[worker] another run is in progress here: {current["argv"]}')
      print(f'[worker] wait for it, or stop it: kill {current["pid"]}')
      print(f'{ENDED}1', flush=True)
      return 1
    start = max(0, _LOG.stat().st_size - 2000)
    print('[worker] the program is already running; its log:', flush=True)
    run_id = current['id']
  elif current.get('id') != run_id:
    _start(run_id, argv)
  _follow(run_id, start)
  if not _STATUS.exists():
    print('[worker] the program and its keeper have disappeared')
    return 1
  status = int(_STATUS.read_text())
  print(f'{ENDED}{status}', flush=True)
  return status


def stop(number, seconds, argv):
  """Signals a program, and kills it if it has not exited after `seconds`."""
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
  """Runs the program and writes its exit status; ignores signals itself."""
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
      # Checked before the log is read, so that the last output is read too.
      is_alive = _is_alive(_current())
      while chunk := log.read(65536):
        sys.stdout.buffer.write(chunk)
      sys.stdout.buffer.flush()
      if not is_alive or _current().get('id') != run_id:
        return
      time.sleep(_POLL_SECONDS)


def _current():
  """Returns the record of the last run; empty if there was none."""
  try:
    return json.loads(_RUN.read_text())
  except FileNotFoundError:
    return {}


def _is_alive(current):
  """Returns whether the keeper of a run is alive, not another with its PID."""
  if not current:
    return False
  try:
    text = pathlib.Path(f'/proc/{current["keeper"]}/cmdline').read_bytes()
  except OSError:
    return False
  return current['id'].encode() in text.split(b'\0')


def _signal(current, number):
  # The program may have just ended, or never started.
  with contextlib.suppress(ProcessLookupError, TypeError):
    os.kill(current['pid'], number)


def _write(path, text):
  """Writes a file atomically."""
  part = path.with_suffix('.part')
  part.write_text(text)
  os.replace(part, path)


def main(arguments):
  """Executes the command line; returns the exit status."""
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
