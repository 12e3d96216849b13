"""Traces of chosen steps for `--profile`, off by default.

A trace is written to `<model_dir>/profiles/<stage>`, outside the stage's
folder, for XProf or TensorBoard's profiler. It does not change results.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import pathlib
import re
import shutil
import tempfile
from typing import Any

from absl import logging
import jax

FOLDER = 'profiles'
_TEXT = re.compile(r'(?P<first>\d+)(:(?P<last>\d+))?')


@dataclasses.dataclass(frozen=True)
class Steps:
  """Which steps of each stage are traced.

  Attributes:
    first: first traced step, from 1.
    last: last traced step.
  """

  first: int
  last: int

  def __post_init__(self):
    if not 1 <= self.first <= self.last:
      raise ValueError(
        'the steps to profile must be counted from 1, and the first not come '
        f'after the last; got {self.first}:{self.last}.'
      )

  @classmethod
  def parse(cls, text: str) -> 'Steps':
    """Parses `10:15`, steps 10 to 15, or `10`, a single step."""
    match = _TEXT.fullmatch(text)
    if match is None:
      raise ValueError(
        '--profile must be the numbers of the first and the last step, such as '
        f'10:15, or of one; got {text!r}.'
      )
    first = int(match['first'])
    return cls(first, int(match['last'] or first))


@dataclasses.dataclass(frozen=True)
class _Asked:
  """The steps to trace, and the destination.

  Attributes:
    part: subfolder per process; '' for none.
  """

  steps: Steps
  model_dir: pathlib.Path
  part: str

  def folder(self, directory: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a stage's trace, from the stage's folder."""
    root, stage = self.model_dir.resolve(), directory.resolve()
    inside = stage.is_relative_to(root)
    name = stage.relative_to(root).as_posix() if inside else stage.name
    return root / FOLDER / name / self.part


# Per process, as is JAX's profiler.
_asked: _Asked | None = None


@contextlib.contextmanager
def asked(steps: Steps, model_dir: pathlib.Path, part: str) -> Iterator[None]:
  """Traces every stage made inside the block; for arguments see `_Asked`."""
  global _asked
  _asked = _Asked(steps, model_dir, part)
  try:
    yield
  finally:
    _asked = None


class Trace:
  """The trace of one stage; a context manager."""

  def __init__(self, directory: str | pathlib.Path, unit: str):
    """Stores the arguments; the trace starts later.

    Args:
      directory: folder of the stage.
      unit: name of the steps in the trace.
    """
    self._steps = self._folder = None
    if _asked is not None:
      self._steps = _asked.steps
      if isinstance(directory, str):
        directory = pathlib.Path(directory)
      self._folder = _asked.folder(directory)
    self._unit = unit
    self._number = 0
    self._is_on = self._is_traced = False

  def __enter__(self) -> 'Trace':
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._is_on:
      self._stop()
    elif self._steps and self._number and not self._is_traced:
      logging.warning(
        'profile: %s has no trace, since none of its steps from %d to %d was '
        'taken now; the last was %d',
        self._unit,
        self._steps.first,
        self._steps.last,
        self._number,
      )

  def step(
    self,
    function: Callable[..., Any],
    *arguments: Any,
    before: Any,
    number: int | None = None,
  ) -> Any:
    """Calls a function as one step.

    Args:
      function: the step; its result contains arrays.
      *arguments: arguments of the function.
      before: arrays of previous steps, awaited before the trace starts, so that
        it does not contain their work.
      number: number of the step, from 1; None for the next.
    """
    if self._steps is None:
      return function(*arguments)
    number = self._number = self._number + 1 if number is None else number
    if not self._steps.first <= number <= self._steps.last:
      return function(*arguments)
    if not self._is_on:
      jax.block_until_ready(before)
      self._start()
    with jax.profiler.StepTraceAnnotation(self._unit, step_num=number):
      result = function(*arguments)
    if number == self._steps.last:
      jax.block_until_ready(result)
      self._stop()
    return result

  def _start(self) -> None:
    options = jax.profiler.ProfileOptions()
    # Otherwise it would contain every Python call, which costs time.
    options.python_tracer_level = 0
    # JAX writes traces to local folders alone.
    self._local = str(self._folder)
    if not isinstance(self._folder, pathlib.Path):
      self._local = tempfile.mkdtemp()
    jax.profiler.start_trace(self._local, profiler_options=options)
    self._is_on = self._is_traced = True

  def _stop(self) -> None:
    self._is_on = False
    jax.profiler.stop_trace()
    if self._folder and not isinstance(self._folder, pathlib.Path):
      root = pathlib.Path(self._local)
      for path in root.rglob('*'):
        if path.is_file():
          target = self._folder / path.relative_to(root).as_posix()
          target.write_bytes(path.read_bytes())
      shutil.rmtree(root)
    logging.info(
      'profile: %s up to %d is in %s; to look at it: pip install xprof '
      'tensorboard, then tensorboard --logdir=%s or xprof --logdir=%s',
      self._unit,
      self._number,
      *[self._folder] * 3,
    )
