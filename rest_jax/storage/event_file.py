"""Event files for TensorBoard, written without a background thread.

tensorboardX's `SummaryWriter` writes in a thread, which dies on a full disk,
and then the program waits for it forever.
"""

import os
import time
from typing import Any

import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from rest_jax.runtime import tracking
from rest_jax.storage import files, growing_file

# Its classes are created on import, which type checkers do not see.
_MESSAGES: Any = event_pb2
# As in TensorFlow: each bucket is 1.1 times as wide as the previous one.
_POSITIVE = 1e-12 * 1.1 ** np.arange(773)
_BINS = [*-_POSITIVE[::-1], 0.0, *_POSITIVE]


class EventFile:
  """A new event file in a folder; a context manager."""

  def __init__(
    self, directory: str | os.PathLike[str], *, purge_step: int | None = None
  ):
    """Creates the file.

    Args:
      directory: folder of the file.
      purge_step: hides events of earlier files from this step on.

    Raises:
      DiskError: if the file cannot be written; raised by every method.
    """
    self._folder = growing_file.GrowingFolder(directory)
    self._directory = self._folder.path
    with files.explained(self._directory):
      self._writer = event_file_writer.EventsWriter(
        str(self._folder.local / 'events')
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

  def publish(self) -> None:
    """Uploads the file, if it is for a bucket."""
    with files.explained(self._directory):
      self._writer.flush()
    self._folder.publish()

  def close(self) -> None:
    with files.explained(self._directory):
      self._writer.close()
    self._folder.publish()

  def _add(self, step: int, **what: Any) -> None:
    event = _MESSAGES.Event(step=step, wall_time=time.time(), **what)
    with files.explained(self._directory):
      self._writer.write_event(event)
