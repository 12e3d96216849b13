"""The common part of all trainings: resume, evaluate, save, stop."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import math
import pathlib
import time
from typing import Any, ClassVar, Generic, Self, TypeVar

from absl import logging
import jax

from rest_jax import types
from rest_jax.parallel import processes
from rest_jax.runtime import interruption, time_spent
from rest_jax.storage import paths
from rest_jax.training import bad_steps, loader
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import journal as journal_lib
from rest_jax.training import step as step_lib

# Evaluates parameters at a step; the result contains 'objective', higher is
# better.
EvaluateFn = Callable[[types.Params, int], dict[str, float]]

# What the time of a training goes to, beside compiling.
STEPS, EVALUATION, SAVING, READING = 'steps', 'evaluation', 'saving', 'reading'


@dataclasses.dataclass
class Progress:
  """The bookkeeping in a checkpoint's record.

  Attributes:
    evaluations_since_best: consecutive evaluations without a new best.
    awaits_evaluation: whether the evaluation of this step was interrupted.
    parts: seconds of the training by what they went to; see `time_spent.counted`.
  """

  best_step: int | None = None
  best_objective: float | None = None
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  evaluations_since_best: int = 0
  awaits_evaluation: bool = False
  bad_steps: int = 0
  parts: dict[str, float] = dataclasses.field(default_factory=dict)

  def note(self, step: int, metrics: dict[str, float]) -> bool:
    """Records an evaluation; returns whether its checkpoint is the best."""
    found, best = metrics[checkpoints_lib.OBJECTIVE], self.best_objective
    self.evaluations_since_best += 1
    if best is None or found > best:
      self.evaluations_since_best = 0
    # Among equal checkpoints Orbax keeps the newest, so the newest is the best.
    if best is not None and found < best:
      return False
    self.best_step, self.best_objective = step, found
    self.best_metrics = metrics
    return True

  @classmethod
  def of(cls, record: Mapping[str, Any]) -> Self:
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{key: record[key] for key in record if key in names})


P = TypeVar('P', bound=Progress)


class Loop(Generic[P]):
  """The common part of all trainings; a context manager.

  An interrupted training resumes from its latest checkpoint. A signal (see
  `interruption`) stops an evaluation, which is then repeated; several processes
  finish an evaluation before they stop.

  Class attributes:
    unit: unit of `number`, for messages.
  """

  unit: ClassVar[str] = 'step'

  def __init__(
    self,
    directory: str | pathlib.Path,
    progress: P,
    *,
    evaluate_fn: EvaluateFn,
    num_steps: int,
    max_bad_steps: int,
    description: str,
  ):
    """Stores the settings of the training.

    Args:
      directory: folder of the stage; gets `checkpoints/`, `metrics.jsonl` and
        TensorBoard events.
      evaluate_fn: evaluates parameters; the checkpoint with the highest
        'objective' is kept.
    """
    self.directory = paths.of(directory)
    self.checkpoints_folder = self.directory
    self.progress = progress
    self._evaluate_fn = evaluate_fn
    self._num_steps = num_steps
    self._max_bad_steps = max_bad_steps
    self._description = description
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> Self:
    self.store = checkpoints_lib.Checkpoints(self.checkpoints_folder)
    self._stack.callback(self.store.close)
    return self

  def __exit__(self, *exception: Any) -> None:
    self._stack.__exit__(*exception)

  def number(self, state: step_lib.TrainState) -> int:
    """Returns the unit of journal and evaluations: optimiser steps."""
    return int(state.step)

  def resume(
    self,
    state: step_lib.TrainState,
    given: Mapping[str, types.Params] | None = None,
  ) -> step_lib.TrainState:
    """Returns the latest saved state, or `state`; opens the journal."""
    saved = self.store.restore_latest(state, given)
    self.is_fresh = saved is None
    if saved is not None:
      state, record = saved
      self.progress = type(self.progress).of(record)
      logging.info(
        '%s: resumes at %s %d of %s',
        self._description,
        self.unit,
        self.number(state),
        self.directory,
      )
    self.journal = self._stack.enter_context(
      journal_lib.Journal(
        self.directory,
        first_step=self.number(state),
        num_steps=self._num_steps,
        description=self._description,
        # A line may exist without the checkpoint that should follow it.
        is_evaluated=not (self.is_fresh or self.progress.awaits_evaluation),
      )
    )
    return state

  def evaluate_first(
    self,
    state: step_lib.TrainState,
    is_wanted: bool,
    known: dict[str, float] | None = None,
  ) -> None:
    """Makes an interrupted evaluation, and one before the first step.

    Args:
      is_wanted: whether to evaluate before the first step.
      known: the metrics of that evaluation; None to measure them.
    """
    if self.progress.awaits_evaluation:
      self.evaluate(state)
    elif self.is_fresh and is_wanted:
      self.evaluate(state, known)

  def evaluate(
    self, state: step_lib.TrainState, known: dict[str, float] | None = None
  ) -> None:
    """Evaluates unless metrics are known, records them, saves a checkpoint."""
    progress, number = self.progress, self.number(state)
    is_saved = progress.awaits_evaluation
    began = time.monotonic()
    try:
      metrics = known or self.measured(self._evaluate_fn, state.params, number)
    except interruption.Interrupted:
      progress.awaits_evaluation = True
      if not is_saved:
        self.save(state)
      raise
    progress.awaits_evaluation = False
    self.noted(state, metrics, time.monotonic() - began)
    self.journal.write('validation', number, metrics)
    # An interruption has saved this step; the next save records the result.
    if not is_saved:
      self.save(state, metrics[checkpoints_lib.OBJECTIVE])

  def measured(
    self, evaluate_fn: EvaluateFn, params: types.Params, number: int
  ) -> dict[str, float]:
    """Returns the metrics of an evaluation, the same in all processes.

    Raises:
      FloatingPointError: one is not finite.
    """
    with self.counted(EVALUATION), _interruptible():
      found = evaluate_fn(params, number)
    metrics = {name: float(value) for name, value in found.items()}
    # They decide the next action, so all processes use the same bits.
    metrics = processes.by_main('metrics', lambda: metrics)
    for name, value in metrics.items():
      if not math.isfinite(value):
        raise FloatingPointError(
          f'evaluation at {self.unit} {number}: {name} is {value}. Nothing was '
          'saved; the checkpoint before is intact.'
        )
    return metrics

  def noted(
    self, state: step_lib.TrainState, metrics: dict[str, float], seconds: float
  ) -> None:
    """Records an evaluation in the bookkeeping; may add metrics."""
    del seconds
    self.progress.note(int(state.step), metrics)

  def save(
    self, state: step_lib.TrainState, objective: float | None = None
  ) -> None:
    # Before the checkpoint: what is beyond it is dropped when it is resumed.
    with self.counted(SAVING):
      self.journal.publish()
      record = dataclasses.asdict(self.progress)
      self.store.save(state, record=record, objective=objective)

  def counted(self, part: str) -> contextlib.AbstractContextManager[None]:
    """Counts the time inside as a part of the training's."""
    return time_spent.counted(self.progress.parts, part)

  def stop(self, state: step_lib.TrainState, signal: int) -> None:
    """Saves an unsaved state, and ends the program."""
    if self.store.latest_step != int(state.step):
      self.save(state)
    # The signal may have been sent to another process.
    interruption.request(signal)

  def good_steps(
    self,
    waiting: Sequence[Any],
    batches: loader.BucketedBatches,
    first: int,
    where: str = '',
  ) -> list[dict[str, float]]:
    """Fetches the metrics of steps, and counts and leaves out bad ones.

    Args:
      waiting: metrics of some steps, on devices.
      first: number of the first step among the batches, from 1.

    Raises:
      FloatingPointError: more steps are not finite than may be skipped.
    """
    good = []
    for number, metrics in enumerate(floats(waiting), first):
      if not bad_steps.is_bad(metrics):
        good.append(metrics)
        continue
      self.progress.bad_steps += 1
      if self.progress.bad_steps > self._max_bad_steps:
        raise bad_steps.error(self.directory, number, metrics, batches, where)
      logging.warning('step %d%s is passed over: %s', number, where, metrics)
    return good

  def best(self, like: types.Params) -> types.Params:
    """Returns the parameters of the best checkpoint."""
    if self.progress.best_step is None:
      raise FileNotFoundError(f'{self.directory} has no evaluated checkpoint')
    return self.store.restore_params(self.progress.best_step, like)


def floats(waiting: Sequence[Any]) -> list[dict[str, float]]:
  """Fetches the metrics of some steps."""
  return [
    {name: float(value) for name, value in metrics.items()}
    for metrics in jax.device_get(waiting)
  ]


def _interruptible() -> contextlib.AbstractContextManager:
  """Lets a signal stop an evaluation, unless other processes take part."""
  if processes.count() > 1:
    return contextlib.nullcontext()
  return interruption.immediate()
