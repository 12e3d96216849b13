"""One trainer for policies, reward models and value functions.

It is handed a model, a loss, batches and a function that evaluates parameters;
it imports none of them.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from rest_jax import types
from rest_jax.losses import base
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes, stopping
from rest_jax.runtime import interruption, profiling, time_spent
from rest_jax.training import averaging, digests, loader, placement
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import loop as loop_lib
from rest_jax.training import lora as lora_lib
from rest_jax.training import step as step_lib
from rest_jax.training import trainer_config as config_lib

EvaluateFn = loop_lib.EvaluateFn
# From trained parameters, which may be adapters, to the model's.
WholeFn = Callable[[types.Params], types.Params]

# The folder, in a stage's, with the checkpoints of a training that ends with
# parameters which are none of its own.
TRAINING = 'training'

TrainerConfig = config_lib.TrainerConfig


class Given(NamedTuple):
  """A model beside the one that is trained, which its loss reads."""

  model: Any
  params: types.Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
  """What is trained.

  Attributes:
    model: `Policy` or `ScalarModel`.
    params: where to start from, on any device; not changed.
    loss: any `losses.base.Loss`.
    given: other models, by the names in the loss's `needs`.
  """

  model: Any
  params: types.Params
  loss: base.Loss
  given: Mapping[str, Given] | None = None


class TrainResult(NamedTuple):
  """What a training ends with.

  Attributes:
    params: those of the best checkpoint.
    summary: for the stage's manifest: steps, best_step, best_objective,
      stopped_early, bad_steps (passed over), trained_params (a number),
      real_token_share, seconds, evaluation_seconds (of those),
      target_tokens and source_tokens (real ones, of all steps),
      target_tokens_per_second, seconds_by_part (see `loop.Progress.parts`),
      params_digest, evaluation (metrics of the best checkpoint), and with `average` averaged_steps (none if a single checkpoint was better).
  """

  params: types.Params
  summary: dict[str, Any]


_SIDES = {
  'target_tokens': 'decoder_target_tokens',
  'source_tokens': 'encoder_input_tokens',
}


@dataclasses.dataclass
class _Progress(loop_lib.Progress):
  """What a checkpoint's record carries beside the evaluations."""

  seconds: float = 0.0
  target_tokens: int = 0
  source_tokens: int = 0
  evaluation_seconds: float = 0.0
  # Step and objective of the checkpoints that an average would be of now.
  averaged: list[tuple[int, float]] = dataclasses.field(default_factory=list)
  # Of a training that was interrupted: metrics of steps since the last line of
  # the journal.
  unlogged: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train(
  config: config_lib.TrainerConfig,
  learner: Learner,
  *,
  batches: loader.BucketedBatches,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  evaluate_fn: EvaluateFn,
  start_metrics: dict[str, float] | None = None,
  description: str = 'train',
) -> TrainResult:
  """Trains until `max_steps` or until the objective stops rising.

  A training that was cut off goes on from its latest checkpoint, with the same
  batches, randomness and early-stopping state. A signal (see `interruption`) saves
  one more after the step at hand, and stops an evaluation, which is made again. Of
  several processes all save, after the same step some seconds later, and an
  evaluation is finished before.

  Args:
    directory: the stage's folder; receives `checkpoints/`, `metrics.jsonl` and
      TensorBoard events. With `config.lora` or `config.average` the checkpoints
      of the training are in `training/checkpoints/`, those of the former with
      adapters alone, and `checkpoints/` holds the policy made of them.
    evaluate_fn: called with parameters and step every `evaluate_every` steps and
      at the end; the checkpoint of highest 'objective' is kept.
    start_metrics: what `evaluate_fn` returns at the start, where it is known;
      for `config.evaluate_first`.
    description: the word before the progress bar.

  Raises:
    FloatingPointError: if loss, gradient or objective is not finite.
  """
  mesh, loss = (
    mesh_config.build(),
    learner.loss.for_training(config.least_steps),
  )
  trained, whole, base_params = _adapted(config, learner, mesh_config)
  with (
    _Steps(
      config,
      batches,
      directory=directory,
      evaluate_fn=lambda params, step: evaluate_fn(whole(params), step),
      description=description,
    ) as loop,
    profiling.Trace(directory, 'train') as trace,
    mesh_lib.use(mesh, mesh_config.rules),
  ):
    state, others = placement.sharded_state(
      trained.model,
      loss,
      config.optimizer,
      trained.params,
      learner.given,
      mesh_config,
      mesh,
    )
    others |= base_params
    state = loop.resume(state, others)
    step = step_of(config, learner.model, loss, mesh_config)
    take = functools.partial(trace.step, step)
    with interruption.deferred():
      loop.evaluate_first(state, config.evaluate_first, start_metrics)
      has_dropout = config.dropout and learner.model.config.dropout_rate > 0
      state = loop.steps(take, state, others, mesh, has_dropout)
    best = whole(loop.best(state.params))
    if config.average is not None:
      best = loop.averaged(best, state.params, whole, evaluate_fn)
    if config.makes_policy_at_end:
      loop.publish(best)
  return TrainResult(best, loop.summary(state, best))


def _adapted(
  config: config_lib.TrainerConfig,
  learner: Learner,
  mesh_config: mesh_lib.MeshConfig,
) -> tuple[Learner, WholeFn, dict[str, types.Params]]:
  """Returns what the optimiser changes: the learner, or its adapters.

  Besides, a function from its parameters to the model's, and what the step
  reads for it, by name.
  """
  if config.lora is None:
    return learner, lambda params: params, {}
  adaptation = lora_lib.Training(
    learner.model, config.lora, learner.params, mesh_config
  )
  adapters = dataclasses.replace(
    learner, model=adaptation.model, params=adaptation.init(config.seed)
  )
  return adapters, adaptation.merged, {lora_lib.BASE: adaptation.base}


def step_of(
  config: config_lib.TrainerConfig,
  model: Any,
  loss: base.Loss,
  mesh_config: mesh_lib.MeshConfig,
) -> step_lib.TrainStep:
  """Returns the jitted step of a training with these settings."""
  return jitted_step(
    model,
    loss,
    config.optimizer.without_schedule(),
    config.accumulation_steps,
    mesh_config,
    config.max_bad_steps > 0,
    1.0,
    config.lora,
  )


@functools.lru_cache(maxsize=16)
def jitted_step(
  model,
  loss,
  optimizer_config,
  accumulation_steps,
  mesh_config,
  skip_bad,
  learned_rate_factor=1.0,
  lora=None,
):
  """One jitted step for all trainings alike: BC and Improve steps share it."""
  del mesh_config  # Of the key alone: tracing reads its rules from the context.
  train_step = step_lib.make_train_step(
    model=model,
    loss=loss,
    optimizer=optimizer_config.direction(),
    learned_rate_factor=learned_rate_factor,
    accumulation_steps=accumulation_steps,
    skip_bad=skip_bad,
    lora=lora,
  )
  return jax.jit(train_step, donate_argnums=0)


class _Steps(loop_lib.Loop[_Progress]):
  """The plain loop, with what it carries from step to step."""

  def __init__(self, config, batches, **arguments):
    super().__init__(
      progress=_Progress(),
      num_steps=config.max_steps,
      max_bad_steps=config.max_bad_steps,
      **arguments,
    )
    self._config = config
    self._batches = batches
    if config.makes_policy_at_end:
      self.checkpoints_folder = self.directory / TRAINING
    # Tokens since the last checkpoint, of this process's rows.
    self._read = dict.fromkeys(_SIDES, 0)
    self._num_readers = 1
    self._averaged_steps: list[int] = []

  def resume(self, state, given=None):
    state = super().resume(state, given)
    self._started = time.monotonic() - self.progress.seconds
    return state

  def steps(self, take, state, given, mesh, has_dropout):
    config, progress = self._config, self.progress
    learning_rates = config.optimizer.learning_rates(config.max_steps)
    everywhere = mesh_lib.replicated(mesh)
    expected = processes.place(
      np.float32(self._batches.expected_normalizer), everywhere
    )
    self._num_readers = mesh_lib.num_readers(mesh)
    dropout_key = None
    if has_dropout:
      dropout_key = jax.jit(_dropout_key, out_shardings=everywhere)(
        np.uint32(config.seed)
      )
    step = int(state.step)
    waiting, progress.unlogged = progress.unlogged, []
    iterator = self._batches.iterate(step)
    agreement = stopping.Agreement(step)
    while step < config.max_steps and not self._is_stopped():
      with self.counted(loop_lib.READING), time_spent.waiting():
        batch = next(iterator)
      for side, name in _SIDES.items():
        self._read[side] += int(np.count_nonzero(batch[name]))
      rate = processes.place(learning_rates[step], everywhere)
      with self.counted(loop_lib.STEPS):
        state, metrics = take(
          state,
          mesh_lib.put_batch(batch, mesh),
          rate,
          dropout_key,
          expected,
          given,
          before=state,
          number=step + 1,
        )
      step += 1
      waiting.append(metrics)
      is_due = step % config.evaluate_every == 0 or step == config.max_steps
      is_logged = is_due or step % config.log_every == 0
      if is_logged:
        self._log(step, waiting)
        waiting = []
      self.journal.advance(step)
      if is_due:
        self.evaluate(state)
      signal = agreement.number(
        step, interruption.number(), metrics, is_meeting=is_logged
      )
      if signal is not None:
        progress.unlogged = loop_lib.floats(waiting)
        self.stop(state, signal)
        break
    return state

  def averaged(self, best, like, whole, evaluate_fn) -> types.Params:
    """Returns the mean of checkpoints, or `best` if its objective is higher.

    Args:
      best: parameters of the best checkpoint.
      like: shapes and shardings of what checkpoints hold.
      whole: makes a model's parameters of that.
      evaluate_fn: evaluates a model's parameters.
    """
    progress = self.progress
    self._averaged_steps = []
    steps = [int(step) for step, _ in progress.averaged]
    if len(steps) < 2:
      return best
    began = time.monotonic()
    mean = averaging.mean(
      whole(self.store.restore_params(step, like)) for step in steps
    )
    metrics = self.measured(evaluate_fn, mean, steps[-1])
    progress.evaluation_seconds += time.monotonic() - began
    progress.seconds = time.monotonic() - self._started
    found = metrics[checkpoints_lib.OBJECTIVE]
    logging.info(
      '%s: mean of the checkpoints %s: objective %.4g; best of one %.4g',
      self._description,
      steps,
      found,
      progress.best_objective,
    )
    if progress.best_objective is not None and found < progress.best_objective:
      return best
    self._averaged_steps = steps
    progress.best_step, progress.best_objective = steps[-1], found
    progress.best_metrics = metrics
    return mean

  def publish(self, params) -> None:
    """Saves the stage's policy, which is none of this training's checkpoints."""
    step = self.progress.best_step
    assert step is not None
    checkpoints_lib.save_params(self.directory, step, params)

  def noted(self, state, metrics, seconds) -> None:
    super().noted(state, metrics, seconds)
    progress, average = self.progress, self._config.average
    progress.evaluation_seconds += seconds
    if average is not None:
      pair = int(state.step), metrics[checkpoints_lib.OBJECTIVE]
      progress.averaged = average.chosen([*progress.averaged, pair])

  def save(self, state, objective: float | None = None) -> None:
    self.progress.seconds = time.monotonic() - self._started
    self._count_tokens()
    super().save(state, objective)
    self.progress.seconds = time.monotonic() - self._started

  def _count_tokens(self) -> None:
    """Adds what all processes have read since the last checkpoint."""
    parts = processes.gather(
      'tokens', {side: np.asarray(n) for side, n in self._read.items()}
    )
    for side in _SIDES:
      read = sum(int(part[side]) for part in parts) // self._num_readers
      total = getattr(self.progress, side) + read
      setattr(self.progress, side, total)
    self._read = dict.fromkeys(_SIDES, 0)

  def _is_stopped(self) -> bool:
    patience = self._config.patience
    return (
      patience is not None and self.progress.evaluations_since_best >= patience
    )

  def _log(self, step, waiting) -> None:
    """Writes the mean metrics of the last steps, `step` being the last."""
    good = self.good_steps(waiting, self._batches, step - len(waiting) + 1)
    mean = step_lib.mean_metrics(good)
    if self._config.max_bad_steps:
      mean['bad_steps'] = self.progress.bad_steps
    self.journal.write('train', step, mean)

  def summary(self, state, best) -> dict[str, Any]:
    progress = self.progress
    training = max(progress.seconds - progress.evaluation_seconds, 1e-9)
    averaged = {'averaged_steps': self._averaged_steps}
    return {
      'steps': int(state.step),
      'best_step': progress.best_step,
      'best_objective': progress.best_objective,
      'evaluation': progress.best_metrics,
      'stopped_early': int(state.step) < self._config.max_steps,
      'bad_steps': progress.bad_steps,
      'trained_params': sum(x.size for x in jax.tree.leaves(state.params)),
      'rows': self._batches.num_rows,
      'real_token_share': self._batches.real_token_share,
      'seconds': progress.seconds,
      'evaluation_seconds': progress.evaluation_seconds,
      **{side: getattr(progress, side) for side in _SIDES},
      'target_tokens_per_second': progress.target_tokens / training,
      'seconds_by_part': self._parts(),
      'params_digest': digests.digest(best),
      **(averaged if self._config.average is not None else {}),
    }

  def _parts(self) -> dict[str, float]:
    """Seconds of the training by part; steps end while others begin."""
    parts = {**self.progress.parts, loop_lib.STEPS: 0.0}
    parts[loop_lib.STEPS] = max(
      self.progress.seconds - sum(parts.values()), 0.0
    )
    return parts


def _dropout_key(seed) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), 1)
