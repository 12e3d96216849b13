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
      description: the words before the numbers.
      total: units to do; None if nobody knows.
      unit: the word for one unit.
      done: units that were done before.
    """
    self._description = description
    self._total = total
    self._unit = unit
    self._done = self._before = done
    self._notes: dict[str, str] = {}
    self._started = self._last_line = time.monotonic()
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
      self._line()

  def advance(self, units: int) -> None:
    """Notes that `units` more are done."""
    self._done += units
    self._bar.update(units)
    now = time.monotonic()
    if not self._is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
      self._last_line = now
      self._line()

  def note(self, **notes: str) -> None:
    """Shows words behind the numbers from now on, each with its name."""
    self._notes.update(notes)
    self._bar.set_postfix(self._notes, refresh=False)

  def _line(self) -> None:
    seconds = max(time.monotonic() - self._started, 1e-9)
    rate = (self._done - self._before) / seconds
    words = [f'{self._done:,}']
    if self._total is not None:
      words.append(f'of {self._total:,}')
    words.append(f'{self._unit}s, {rate:.1f} a second')
    if self._total is not None and rate > 0 and self._done < self._total:
      left = tqdm.tqdm.format_interval((self._total - self._done) / rate)
      words[-1] += f', {left} left'
    else:
      words[-1] += f', {tqdm.tqdm.format_interval(seconds)} in all'
    words += [f'{name}={value}' for name, value in self._notes.items()]
    logging.info('%s: %s', self._description, ' '.join(words))


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
