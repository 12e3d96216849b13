"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from collections.abc import Iterator
import contextlib
import resource
import sys
import time
from typing import Any

from absl import logging
import tqdm

_SECONDS_BETWEEN_LINES = 30.0
# What is done sooner has no line when it ends.
_SECONDS_WORTH_A_LINE = 10.0

# Of `ru_maxrss`: kilobytes on Linux, bytes on macOS.
_UNITS_PER_MB = 2**20 if sys.platform == 'darwin' else 2**10


def peak_rss_mb() -> float:
  """The most memory that this process has had so far, in MB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MB


_bars: list[tqdm.tqdm] = []


def interval(seconds: float) -> str:
  """Shows a time as [hours:]minutes:seconds."""
  return tqdm.tqdm.format_interval(seconds)


class Progress:
  """Counts units of work; a context manager.

  On a terminal it draws a bar with rate and remaining time; bars inside of
  others stand below them. Elsewhere it logs a line every half a minute. Long
  work has a line at its end in either place. `--verbosity=-1` has neither.
  """

  def __init__(
    self, description: str, total: int | None, unit: str, *, done: int = 0
  ):
    """Starts counting.

    Args:
      total: units to do; None if nobody knows.
      done: units that were done before.
    """
    self._description = description
    self._total = total
    self._unit = unit
    self._done = self._before = done
    self._notes: dict[str, str] = {}
    self._started = self._last_line = time.monotonic()
    # Time and units after the first advance, which often waits for compilation.
    self._first: tuple[float, int] | None = None
    self._is_terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
      total=total,
      initial=done,
      desc=description,
      unit=unit,
      disable=not self._is_terminal or not logging.level_info(),
      leave=False,
      dynamic_ncols=True,
    )
    _bars.append(self._bar)

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception: Any) -> None:
    _bars.remove(self._bar)
    self._bar.close()
    seconds = time.monotonic() - self._started
    if exception[0] is None and seconds > _SECONDS_WORTH_A_LINE:
      self._line(is_over=True)

  def advance(self, units: int) -> None:
    """Notes that `units` more are done."""
    self._done += units
    self._bar.update(units)
    now = time.monotonic()
    if self._first is None:
      self._first = now, self._done
    is_due = now - self._last_line > _SECONDS_BETWEEN_LINES
    # All that is to be done has its line at the end.
    if not self._is_terminal and is_due and self._done != self._total:
      self._last_line = now
      self._line()

  def note(self, **notes: str) -> None:
    """Shows words behind the numbers from now on, each with its name."""
    self._notes.update(notes)
    self._bar.set_postfix(self._notes, refresh=False)

  def _line(self, is_over: bool = False) -> None:
    now = time.monotonic()
    since, before = self._started, self._before
    if self._first is not None and not is_over:
      since, before = self._first
    rate = (self._done - before) / max(now - since, 1e-9)
    count = f'{self._done:,}'
    if self._total is not None:
      count += f' of {self._total:,}'
    words = [f'{count} {self._unit}s']
    if rate > 0:
      words.append(_rate(rate, self._unit))
    if self._total is not None and rate > 0 and not is_over:
      left = (self._total - self._done) / rate
      words.append(f'{interval(left)} left')
    else:
      taken = 'in all' if is_over else 'so far'
      words.append(f'{interval(now - self._started)} {taken}')
    notes = [f' {name}={value}' for name, value in self._notes.items()]
    logging.info(
      '%s: %s%s', self._description, ', '.join(words), ''.join(notes)
    )


class Stages:
  """Progress of a whole run, by its stages; a context manager.

  On a terminal it draws a bar with the stage that is made; a stage that took
  long, and the run, have a line at their end in either place.
  """

  def __init__(self, total: int):
    """Starts counting.

    Args:
      total: number of stages, those included that are finished already.
    """
    self._total = total
    self._done = 0
    self._started = time.monotonic()
    self._is_any_made = False
    self._bar = tqdm.tqdm(
      total=total,
      desc='run',
      bar_format='{l_bar}{bar}| {n_fmt} of {total_fmt} stages{postfix}',
      disable=not sys.stderr.isatty() or not logging.level_info(),
      leave=False,
      dynamic_ncols=True,
    )
    _bars.append(self._bar)

  def __enter__(self) -> 'Stages':
    return self

  def __exit__(self, *exception: Any) -> None:
    _bars.remove(self._bar)
    self._bar.close()
    seconds = time.monotonic() - self._started
    is_worth = self._is_any_made and seconds > _SECONDS_WORTH_A_LINE
    if exception[0] is None and is_worth:
      logging.info(
        'run: %d of %d stages done, %s in all',
        self._done,
        self._total,
        interval(seconds),
      )

  def begin(self, title: str) -> None:
    """Notes which stage is made next."""
    self._bar.set_postfix_str(title)

  def end(
    self,
    title: str,
    seconds: float | None,
    following: str = '',
    left: str = '',
  ) -> None:
    """Notes that a stage is done.

    Args:
      seconds: that it took; None if it was finished before.
      following: name of the next stage that is not finished; '' for none.
      left: words for the time that is left; '' where nobody knows.
    """
    self._done += 1
    self._bar.update(1)
    if seconds is None:
      return
    self._is_any_made = True
    if seconds <= _SECONDS_WORTH_A_LINE or not following:
      return
    logging.info(
      'run: %s took %s; %d of %d stages done, next %s%s',
      title,
      interval(seconds),
      self._done,
      self._total,
      following,
      f', {left} left' if left else '',
    )


def _rate(rate: float, unit: str) -> str:
  """Shows a rate, by the seconds of a unit where it is slow."""
  if rate >= 1:
    return f'{rate:,.1f} a second'
  seconds = 1 / rate
  if seconds < 60:
    return f'{seconds:.1f} seconds a {unit}'
  return f'{interval(seconds)} a {unit}'


@contextlib.contextmanager
def paused() -> Iterator[None]:
  """Takes bars off the screen while lines are written in their place."""
  for bar in _bars:
    bar.clear()
  try:
    yield
  finally:
    for bar in _bars:
      bar.refresh()
