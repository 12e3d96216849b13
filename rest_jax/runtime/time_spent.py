"""Where the time of this process goes: tracing, compiling, waiting for data.

JAX says when it has traced, lowered or compiled a program, or read one from its
cache; `waiting` is put around what waits for a disk or for another process. What
is left of the wall-clock time is running.
"""

import collections
from collections.abc import Iterator
import contextlib
import threading
import time

from jax import monitoring

TRACING, COMPILING, WAITING = 'tracing', 'compiling', 'waiting'
KINDS = (TRACING, COMPILING, WAITING)

_EVENTS = {
  '/jax/core/compile/jaxpr_trace_duration': TRACING,
  '/jax/core/compile/jaxpr_to_mlir_module_duration': TRACING,
  '/jax/core/compile/backend_compile_duration': COMPILING,
  # Part of the event before it.
  '/jax/compilation_cache/cache_retrieval_time_sec': WAITING,
}


# Durations of a thread that one which is not over yet may hold.
_REMEMBERED = 10_000


class Clock:
  """Adds up durations that are told when they end, each second once.

  A duration may hold others of its thread, which were told before: a traced
  function traces the functions that it calls.
  """

  def __init__(self):
    self._lock = threading.Lock()
    self._seconds: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    self._of_thread = threading.local()

  def note(self, kind: str, seconds: float, now: float) -> None:
    """Adds a duration that ends now, less those inside of it."""
    ended = self._of_thread.__dict__.setdefault(
      'ended', collections.deque(maxlen=_REMEMBERED)
    )
    began, inside = now - seconds, 0.0
    while ended and ended[-1][0] >= began:
      inside += ended.pop()[1]
    ended.append((began, seconds))
    with self._lock:
      self._seconds[kind] += max(seconds - inside, 0.0)

  def seconds(self) -> dict[str, float]:
    """Returns the seconds so far by kind, over all threads."""
    with self._lock:
      return dict(self._seconds)


_clock = Clock()


def so_far() -> dict[str, float]:
  """Returns what this process has spent so far, in seconds by kind."""
  return _clock.seconds()


def since(before: dict[str, float]) -> dict[str, float]:
  """Returns what this process has spent since `so_far` gave `before`."""
  return {kind: now - before[kind] for kind, now in so_far().items()}


@contextlib.contextmanager
def waiting() -> Iterator[None]:
  """Counts the time inside as waiting, but for what is compiled there."""
  began = time.monotonic()
  try:
    yield
  finally:
    now = time.monotonic()
    _clock.note(WAITING, now - began, now)


@contextlib.contextmanager
def counted(seconds: dict[str, float], part: str) -> Iterator[None]:
  """Adds the time inside to a part, that of compilation to COMPILING."""
  before, began = so_far(), time.monotonic()
  try:
    yield
  finally:
    wall, spent = time.monotonic() - began, since(before)
    # Other threads may compile at the same time.
    compiled = min(spent[TRACING] + spent[COMPILING], wall)
    seconds[part] = seconds.get(part, 0.0) + wall - compiled
    seconds[COMPILING] = seconds.get(COMPILING, 0.0) + compiled


def _hear(event: str, duration_secs: float, **kwargs: str | int) -> None:
  del kwargs
  kind = _EVENTS.get(event)
  if kind is not None:
    _clock.note(kind, duration_secs, time.monotonic())


monitoring.register_event_duration_secs_listener(_hear)
