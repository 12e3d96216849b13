"""Event files for TensorBoard, written by the thread that has the numbers.

tensorboardX's own `SummaryWriter` hands events to a thread of its own. On a full
disk that thread dies, and the program waits for it for ever.
"""

import os
import pathlib
import time
from typing import Any

import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from rest_jax.runtime import tracking
from rest_jax.storage import files

# Its classes are made as it is imported, unseen by type checkers.
_MESSAGES: Any = event_pb2
# TensorFlow's own: each is 1.1 times as wide as the one before.
_POSITIVE = 1e-12 * 1.1 ** np.arange(773)
_BINS = [*-_POSITIVE[::-1], 0.0, *_POSITIVE]


class EventFile:
  """A new event file in a folder; a context manager."""

  def __init__(
    self, directory: str | os.PathLike[str], *, purge_step: int | None = None
  ):
    """Makes the file.

    Args:
      directory: of the file.
      purge_step: hide what earlier files say of this step and of later ones.

    Raises:
      DiskError: as every method, if the file cannot be written.
    """
    self._directory = pathlib.Path(directory)
    with files.explained(self._directory):
      self._writer = event_file_writer.EventsWriter(
        str(self._directory / 'events')
      )
      if purge_step is not None:
        start = _MESSAGES.SessionLog(status=_MESSAGES.SessionLog.START)
        self._add(purge_step, session_log=start)

  def __enter__(self) -> 'EventFile':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()

  def add_scalar(self, name: str, value: float, step: int) -> None:
    """Adds a number."""
    tracking.log(self._directory, name, value, step)
    self._add(step, summary=summary.scalar(name, value))

  def add_histogram(self, name: str, values: np.ndarray, step: int) -> None:
    """Adds the distribution of numbers."""
    tracking.log(self._directory, name, values, step)
    self._add(step, summary=summary.histogram(name, values, _BINS))

  def add_text(self, name: str, text: str, step: int) -> None:
    """Adds text, which TensorBoard reads as Markdown."""
    self._add(step, summary=summary.text(name, text))

  def close(self) -> None:
    with files.explained(self._directory):
      self._writer.close()

  def _add(self, step: int, **what: Any) -> None:
    event = _MESSAGES.Event(step=step, wall_time=time.time(), **what)
    with files.explained(self._directory):
      self._writer.write_event(event)
