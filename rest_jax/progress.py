"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import resource
import sys
import time
from typing import Any

from absl import logging
import tqdm

_SECONDS_BETWEEN_LINES = 30.0
# Of `ru_maxrss`: kilobytes on Linux, bytes on macOS.
_UNITS_PER_MB = 2**20 if sys.platform == 'darwin' else 2**10


def peak_rss_mb() -> float:
  """The most memory that this process has had so far, in MB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MB


class Progress:
  """Counts units of work; a context manager.

  On a terminal it draws a bar with rate and remaining time. Elsewhere it logs a
  line every half a minute and one at the end.
  """

  def __init__(self, description: str, total: int, unit: str):
    """Starts counting.

    Args:
      description: the words before the numbers.
      total: units to do.
      unit: the word for one unit.
    """
    self._description = description
    self._total = total
    self._unit = unit
    self._done = 0
    self._started = self._last_line = time.monotonic()
    self._is_terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
      total=total,
      desc=description,
      unit=unit,
      disable=not self._is_terminal,
      leave=False,
    )

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception: Any) -> None:
    self._bar.close()
    if exception[0] is None and not self._is_terminal and self._done:
      self._line()

  def advance(self, units: int) -> None:
    """Notes that `units` more are done."""
    self._done += units
    self._bar.update(units)
    now = time.monotonic()
    if not self._is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
      self._last_line = now
      self._line()

  def _line(self) -> None:
    seconds = max(time.monotonic() - self._started, 1e-9)
    logging.info(
      '%s: %d of %d %ss, %.1f a second',
      self._description,
      self._done,
      self._total,
      self._unit,
      self._done / seconds,
    )
