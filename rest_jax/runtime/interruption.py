"""Stops on SIGTERM and Ctrl-C without losing finished work.

Stages write files atomically, so most code can be stopped at once: the signal
raises `Interrupted` where it arrives. Code that must save something first, such
as the steps of a training, defers it:

  with interruption.deferred() as is_requested:
    while ...:
      ...
      if is_requested():
        save()
        break  # `Interrupted` is raised as `deferred` ends
"""

from collections.abc import Callable, Iterator
import contextlib
import signal
from types import FrameType

from absl import logging

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
  """A signal asked to stop. Not an `Exception`, which code may catch."""

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.number = number


class _Requests:
  """State of the handler. Signals arrive only in the main thread."""

  def __init__(self):
    self.number: int | None = None
    self.num_deferring = 0

  def handle(self, number: int, frame: FrameType | None) -> None:
    """Handles a signal: raises at once, unless it is the first deferred one."""
    del frame
    if self.num_deferring and self.number is None:
      self.number = number
      logging.warning(
        '%s: stops after this step; once more to stop at once',
        signal.Signals(number).name,
      )
      return
    raise Interrupted(number)


_requests = _Requests()


@contextlib.contextmanager
def handled_by(
  handler: Callable[[int, FrameType | None], None],
) -> Iterator[None]:
  """Handles SIGTERM and SIGINT by a function; for the main thread."""
  before = {number: signal.signal(number, handler) for number in SIGNALS}
  try:
    yield
  finally:
    for number, own in before.items():
      signal.signal(number, own)


@contextlib.contextmanager
def handled() -> Iterator[None]:
  """Turns SIGTERM and SIGINT into `Interrupted`; for the main thread."""
  _requests.number = None
  with handled_by(_requests.handle):
    yield


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
  """Defers the first signal, and raises it at the end.

  Yields:
    A function that returns whether a signal has arrived.
  """
  _requests.num_deferring += 1
  try:
    yield lambda: _requests.number is not None
  finally:
    _requests.num_deferring -= 1
  _raise_if_requested()


def number() -> int | None:
  """Returns the deferred signal; None for none."""
  return _requests.number


def request(number: int) -> None:
  """Inside `deferred`: acts as if another process's signal had arrived here."""
  _requests.number = number


@contextlib.contextmanager
def immediate() -> Iterator[None]:
  """Inside `deferred`: lets signals stop the block at once."""
  depth, _requests.num_deferring = _requests.num_deferring, 0
  try:
    _raise_if_requested()
    yield
  finally:
    _requests.num_deferring = depth


def _raise_if_requested() -> None:
  if _requests.number is None or _requests.num_deferring:
    return
  number, _requests.number = _requests.number, None
  raise Interrupted(number)
