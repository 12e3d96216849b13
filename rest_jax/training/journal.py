"""Metrics of a training: metrics.jsonl, TensorBoard, progress bar."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
from typing import Any

from absl import logging

from rest_jax.parallel import processes
from rest_jax.runtime import progress as progress_lib
from rest_jax.storage import event_file, files, growing_file, paths

METRICS_FILE = 'metrics.jsonl'


class Journal:
  """Writes the metrics of one training; a context manager.

  When a training resumes, lines of `metrics.jsonl` after its first step are
  removed, so the file looks as if the training had not been interrupted. Only
  the main process writes.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    *,
    first_step: int,
    num_steps: int,
    description: str,
    is_evaluated: bool = True,
  ):
    """Opens the files.

    Args:
      first_step: number of steps already taken.
      is_evaluated: False if the evaluation of `first_step` will be repeated.
    """
    self._is_evaluated = is_evaluated
    self._directory = paths.of(directory)
    self._description = description
    self._num_steps = num_steps
    self._first_step = first_step

  def __enter__(self) -> 'Journal':
    self._is_writer = processes.is_main()
    if self._is_writer:
      self._file = growing_file.GrowingFile(self._directory / METRICS_FILE)
      path = self._file.local
      if path.exists():
        _drop_after(path, self._first_step, self._is_evaluated)
      self._lines = open(path, 'a', encoding='utf-8')
      self._events = event_file.EventFile(
        self._directory, purge_step=self._first_step + 1
      )
    self._step = self._first_step
    self._progress = progress_lib.Progress(
      self._description, self._num_steps, 'step', done=self._first_step
    )
    return self

  def __exit__(self, *exception: Any) -> None:
    self._progress.__exit__(*exception)
    if self._is_writer:
      # The error in flight is more informative than a disk that is still full.
      hidden = (OSError,) if exception[0] is not None else ()
      with (
        contextlib.suppress(*hidden),
        files.explained(self._directory / METRICS_FILE),
      ):
        self._lines.close()
        self._file.publish()
      with contextlib.suppress(*hidden):
        self._events.close()

  def publish(self) -> None:
    """Uploads what was written, if the files are in a bucket."""
    if self._is_writer:
      self._file.publish()
      self._events.publish()

  def advance(self, step: int) -> None:
    self._progress.advance(step - self._step)
    self._step = step

  def write(self, split: str, step: int, metrics: dict[str, float]) -> None:
    """Writes one line of metrics.

    Args:
      metrics: finite numbers by name.
    """
    if self._is_writer:
      line = json.dumps(
        {'step': step, 'split': split, **metrics}, allow_nan=False
      )
      with files.explained(self._directory / METRICS_FILE):
        self._lines.write(line + '\n')
        self._lines.flush()
      for name, value in metrics.items():
        self._events.add_scalar(f'{split}/{name}', value, step)
    shown = {
      name: f'{value:.4g}'
      for name, value in metrics.items()
      if name in ('loss', 'nll', 'objective', 'reward')
    }
    self._progress.note(**shown)
    if split != 'train':
      words = ' '.join(f'{name} {value}' for name, value in shown.items())
      logging.info(
        '%s: step %d of %d, %s', self._description, step, self._num_steps, words
      )


def _drop_after(path: pathlib.Path, step: int, is_evaluated: bool) -> None:
  """Keeps complete lines up to `step`; the last one may be truncated."""
  kept = []
  for line, entry in _entries(path):
    if entry is None:
      break
    place = (entry['step'], entry['split'] != 'train')
    if place > (step, is_evaluated):
      break
    kept.append(line + '\n')
  with files.atomic_write(path) as temporary:
    temporary.write_text(''.join(kept), encoding='utf-8')


def read_metrics(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads `metrics.jsonl` of a stage's folder, one dict per line.

  Damaged lines are skipped with a warning.
  """
  path = paths.of(directory) / METRICS_FILE
  entries = [entry for _, entry in _entries(path)]
  if None in entries:
    logging.warning(
      '%s: %d of %d lines are damaged and left out',
      path,
      entries.count(None),
      len(entries),
    )
  return [entry for entry in entries if entry is not None]


def _entries(
  path: pathlib.Path,
) -> Iterator[tuple[str, dict[str, Any] | None]]:
  """Yields each line and its content, None for a damaged one."""
  for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
    try:
      entry = json.loads(line)
    except ValueError:
      entry = None
    is_whole = isinstance(entry, dict) and {'step', 'split'} <= entry.keys()
    yield line, entry if is_whole else None
