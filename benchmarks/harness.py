"""Systems that take turns: each in a process of its own, one at work at a time."""

from collections.abc import Callable, Mapping
import contextlib
import ctypes
import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
import traceback
from typing import Any, NamedTuple

# Each process keeps the memory that it frees, in huge pages. Otherwise what a
# process frees may go back to a hypervisor while others have their turn, and
# its next round pays for having it back (seen: 15 %).
_ALLOCATOR = {
  'GLIBC_TUNABLES': ':'.join(
    f'glibc.malloc.{name}={value}'
    for name, value in {
      'hugetlb': 1,
      'mmap_max': 0,
      'trim_threshold': 2**34,
      'arena_max': 1,
    }.items()
  )
}

# Of prctl(2).
_PR_SET_PDEATHSIG = 1

# Prepares a system in its own process; returns what does the work once and says
# how much was done (tokens, examples).
Prepare = Callable[[], Callable[[], float]]


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What a system did.

  Attributes:
    system: its name.
    seconds: median of the rounds.
    rate: median of work / seconds over the rounds.
    work: of the last round.
    peak_mb: highest resident memory of its process, preparation included.
    rounds: seconds of each round.
  """

  system: str
  seconds: float
  rate: float
  work: float
  peak_mb: float
  rounds: list[float]


def measure(
  systems: Mapping[str, Prepare], *, num_rounds: int
) -> dict[str, Measurement]:
  """Runs all systems in turn, round by round.

  Args:
    systems: picklable functions that prepare each system.
    num_rounds: times that each does the work, after once that is not counted
      (compilation, caches).

  Returns:
    A measurement for each system; those that are not installed are left out,
    with the reason on stderr.

  Raises:
    RuntimeError: if a system fails otherwise.
  """
  os.environ.update(_ALLOCATOR)
  with contextlib.ExitStack() as stack:
    return _measure(systems, num_rounds, stack)


def _measure(systems, num_rounds, stack) -> dict[str, Measurement]:
  workers = {}
  for name, prepare in systems.items():
    print(f'preparing {name} …', file=sys.stderr, flush=True)
    worker = _Worker(prepare)
    stack.callback(worker.kill)
    if worker.run() is not None:
      workers[name] = worker
    elif worker.is_missing:
      print(f'{name} is left out:\n{worker.error}', file=sys.stderr)
    else:
      raise RuntimeError(f'{name} failed:\n{worker.error}')
  rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
  for number in range(num_rounds):
    for name, worker in workers.items():
      result = worker.run()
      if result is None:
        raise RuntimeError(f'{name} failed in round {number}:\n{worker.error}')
      rounds[name].append(result)
  measured = {}
  for name, results in rounds.items():
    seconds = [second for second, _ in results]
    measured[name] = Measurement(
      system=name,
      seconds=statistics.median(seconds),
      rate=statistics.median(work / second for second, work in results),
      work=results[-1][1],
      peak_mb=workers[name].close(),
      rounds=seconds,
    )
  return measured


def report(
  measured: Mapping[str, Measurement],
  *,
  unit: str,
  ratios: Mapping[str, float],
  settings: Mapping[str, Any],
) -> None:
  """Prints JSON lines to stdout and a table to stderr."""
  print(json.dumps({'settings': dict(settings)}))
  width = max(map(len, measured), default=0)
  for name, one in measured.items():
    line = {
      'system': name,
      f'{unit}_per_second': round(one.rate, 1),
      'seconds': round(one.seconds, 4),
      'peak_mb': round(one.peak_mb),
      unit: round(one.work),
      'rounds': [round(second, 4) for second in one.rounds],
    }
    print(json.dumps(line))
    print(
      f'{name:{width}}  {one.rate:12,.0f} {unit}/s  {one.seconds:9.3f} s  '
      f'{one.peak_mb:7,.0f} MB',
      file=sys.stderr,
    )
  rounded = {name: round(value, 3) for name, value in ratios.items()}
  print(json.dumps({'ratios': rounded}), flush=True)


def rate_ratio(
  measured: Mapping[str, Measurement], ours: str, theirs: str
) -> dict[str, float]:
  """`{'OURS_vs_THEIRS': ratio of rates}`, empty where one was not measured.

  Rates of one round are divided by each other, and the median is taken: both
  saw the same minute of the machine.
  """
  if ours not in measured or theirs not in measured:
    return {}
  one, other = measured[ours], measured[theirs]
  factor = (one.rate * one.seconds) / (other.rate * other.seconds)
  ratio = factor * statistics.median(
    b / a for a, b in zip(one.rounds, other.rounds, strict=True)
  )
  return {f'{ours}_vs_{theirs}': ratio}


class _Failure(NamedTuple):
  """Why a system did not work, and whether for a package that is not there."""

  error: str
  is_missing: bool


class _Worker:
  """A process that waits for its turn."""

  def __init__(self, prepare: Prepare):
    # Spawned: threads of one library must not be inherited by another.
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(
      target=_serve, args=(prepare, theirs), daemon=True
    )
    self._process.start()
    theirs.close()
    self.error = ''
    self.is_missing = False

  def run(self) -> tuple[float, float] | None:
    self._signal(signal.SIGCONT)
    try:
      self._pipe.send('run')
      answer = self._pipe.recv()
    except (EOFError, OSError) as error:
      answer = _Failure(f'the process ended: {error!r}', False)
    # Threads that wait for work may spin; not at the expense of the next one.
    self._signal(signal.SIGSTOP)
    if isinstance(answer, _Failure):
      self.error, self.is_missing = answer
      return None
    return answer

  def close(self) -> float:
    self._signal(signal.SIGCONT)
    self._pipe.send('close')
    peak_mb = self._pipe.recv()
    self._process.join()
    return peak_mb

  def kill(self) -> None:
    """Ends the process if it is still there: a stopped one heeds nothing else."""
    self._process.kill()
    self._process.join()

  def _signal(self, number: signal.Signals) -> None:
    if self._process.pid is not None and self._process.is_alive():
      os.kill(self._process.pid, number)


def _end_with_parent() -> None:
  """Has Linux kill this process, stopped or not, when its parent ends."""
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(prepare: Prepare, pipe) -> None:
  _end_with_parent()
  try:
    run = prepare()
    while pipe.recv() == 'run':
      started = time.perf_counter()
      work = run()
      pipe.send((time.perf_counter() - started, work))
  except Exception as error:
    is_missing = isinstance(error, ImportError)
    pipe.send(_Failure(traceback.format_exc(), is_missing))
    return
  pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
