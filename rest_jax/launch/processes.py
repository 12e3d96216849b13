"""Runs one process per worker in parallel, and stops them together.

Each line of output is prefixed with the number of its worker. When a worker
fails, the others are stopped, since they would wait for it forever. A signal to
the launcher is forwarded to the workers, which save a checkpoint and exit.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import os
import queue
import signal
import subprocess
import threading
import time

from rest_jax.launch import commands
from rest_jax.runtime import interruption

# Sends a signal to all running workers; the launch target provides it.
Send = Callable[[int], None]

NUM_LAST_LINES = 20
# Pause between the first failure and the stop of the other workers, in seconds:
# the failure that is seen first may be a consequence of another one.
_SETTLE_SECONDS = 2.0
# Added to the grace period, which a stopped worker enforces itself.
_SLACK_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
  """How a worker ended.

  Attributes:
    status: exit status of the program, 128 + signal number if a signal ended
      it; None if unknown, because the connection to the worker was lost.
    was_stopped: whether the launcher had stopped it before.
  """

  worker: int
  status: int | None
  was_stopped: bool
  last_lines: tuple[str, ...]

  def says(self) -> str:
    """Returns a message such as 'worker 1 ended with status 3'."""
    if self.status is None:
      return f'worker {self.worker} was lost'
    if self.status > 128:
      with contextlib.suppress(ValueError):
        name = signal.Signals(self.status - 128).name
        return f'worker {self.worker} was ended by {name}'
    return f'worker {self.worker} ended with status {self.status}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """How all workers ended.

  Attributes:
    ended: one entry per worker, in the order in which they ended.
    interrupted: number of the first signal to the launcher; None for none.
  """

  ended: tuple[Ended, ...]
  interrupted: int | None = None


def run_together(
  worker_commands: Sequence[commands.Command],
  *,
  grace_seconds: float,
  send: Send | None = None,
  marker: str | None = None,
) -> Outcome:
  """Runs one command per worker until all have ended.

  Args:
    grace_seconds: time that a stopped worker has to exit, in seconds.
    send: sends a signal to all workers; None for processes on this machine.
    marker: prefix of the output line with the exit status of the program, for
      commands that are only a connection to it; None if they are the program.
  """
  for command in worker_commands:
    commands.require(command.argv[0])
  workers = _Workers(worker_commands, marker)
  send = send or workers.send
  interrupted = None
  # Times at which the other workers are stopped, and killed.
  stop_at = kill_at = None
  with interruption.handled_by(workers.handle), workers.running():
    while workers.running_numbers():
      times = [time_ for time_ in (stop_at, kill_at) if time_ is not None]
      event = workers.next_event(min(times) if times else None)
      if isinstance(event, signal.Signals):
        interrupted = interrupted or int(event)
        # A second signal would stop a training without saving.
        stop_at = None
        kill_at = kill_at or time.monotonic() + grace_seconds + _SLACK_SECONDS
        commands.say(f'{event.name}: sent to the workers, which save and end')
        send(event)
        continue
      now = time.monotonic()
      if event is not None and event.status != 0 and interrupted is None:
        commands.say(event.says())
        if not workers.are_stopped and stop_at is None:
          stop_at = now + _SETTLE_SECONDS
      if kill_at is not None and now >= kill_at:
        kill_at = None
        workers.kill()
      elif stop_at is not None and now >= stop_at:
        stop_at, kill_at = None, now + grace_seconds + _SLACK_SECONDS
        workers.are_stopped = True
        commands.say('the other workers are stopped')
        send(signal.SIGTERM)
  return Outcome(ended=tuple(workers.ended), interrupted=interrupted)


class _Workers:
  """The processes of the workers, each with a thread that reads its output."""

  def __init__(
    self, worker_commands: Sequence[commands.Command], marker: str | None
  ):
    self._commands = worker_commands
    self._marker = marker
    self._processes: list[subprocess.Popen[str]] = []
    # SimpleQueue: its `put` may be called from a signal handler.
    self.events: queue.SimpleQueue[Ended | signal.Signals] = queue.SimpleQueue()
    self.ended: list[Ended] = []
    self.are_stopped = False

  def handle(self, number: int, frame: object) -> None:
    """Queues a signal to the launcher as an event."""
    del frame
    self.events.put(signal.Signals(number))

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Starts the processes, and kills those that still run at the end."""
    try:
      for number, command in enumerate(self._commands):
        process = subprocess.Popen(
          command.argv,
          env=command.full_environment(),
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
          errors='replace',
          # Ctrl-C in a terminal reaches only the launcher, which forwards it: a
          # second signal would stop a training without saving.
          start_new_session=True,
        )
        self._processes.append(process)
        for work in (self._read, self._clear_up):
          threading.Thread(
            target=work, args=(number, process), daemon=True
          ).start()
      yield
    finally:
      self.kill()

  def running_numbers(self) -> list[int]:
    """Returns the numbers of the workers that have not been seen to end."""
    ended = {one.worker for one in self.ended}
    return [n for n in range(len(self._commands)) if n not in ended]

  def next_event(self, until: float | None) -> Ended | signal.Signals | None:
    """Waits for a worker to end or a signal; returns None at time `until`."""
    try:
      timeout = None if until is None else max(0.0, until - time.monotonic())
      event = self.events.get(timeout=timeout)
    except queue.Empty:
      return None
    if isinstance(event, Ended):
      event = dataclasses.replace(event, was_stopped=self.are_stopped)
      self.ended.append(event)
    return event

  def send(self, number: int) -> None:
    """Sends a signal to the processes on this machine."""
    for worker in self.running_numbers():
      if worker < len(self._processes):
        self._processes[worker].send_signal(number)

  def kill(self) -> None:
    """Kills the running processes and all processes that they started."""
    for worker in self.running_numbers():
      if worker < len(self._processes):
        _kill_group(self._processes[worker])

  def _read(self, number: int, process: subprocess.Popen[str]) -> None:
    last = collections.deque[str](maxlen=NUM_LAST_LINES)
    prefix = f'[{number}] ' if len(self._commands) > 1 else ''
    reported = None
    assert process.stdout is not None
    with process.stdout as lines:
      for line in lines:
        line = line.rstrip('\n')
        if self._marker and line.startswith(self._marker):
          reported = int(line[len(self._marker) :])
          continue
        last.append(line)
        print(f'{prefix}{line}\n', end='', flush=True)
    status = process.wait()
    if self._marker:
      status = reported
    elif status < 0:
      status = 128 - status
    self.events.put(
      Ended(
        worker=number,
        status=status,
        was_stopped=False,
        last_lines=tuple(last),
      )
    )

  def _clear_up(self, number: int, process: subprocess.Popen[str]) -> None:
    """Kills a process's leftover children, which keep its output open."""
    del number
    process.wait()
    _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
  with contextlib.suppress(ProcessLookupError, PermissionError):
    os.killpg(process.pid, signal.SIGKILL)
