"""One trainer for policies, reward models and value functions.

It is handed a model, a loss, batches and a function that evaluates parameters;
it imports none of them.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from rest_jax import settings, types
from rest_jax.losses import base
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes, stopping
from rest_jax.runtime import interruption, profiling, time_spent
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import (
  digests,
  loader,
  optimizers,
  placement,
)
from rest_jax.training import loop as loop_lib
from rest_jax.training import lora as lora_lib
from rest_jax.training import step as step_lib

EvaluateFn = loop_lib.EvaluateFn

# The folder, in a stage's, with the checkpoints of a training that ends with
# parameters which are none of its own.
TRAINING = 'training'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerConfig:
  """How long, how fast and on how much at a time to train.

  Attributes:
    optimizer: the optimiser.
    max_steps: optimiser steps at most.
    evaluate_every: steps between evaluations; each saves a checkpoint.
    evaluate_first: also evaluate what training starts from, which is then a
      candidate for the best checkpoint.
    patience: stop after this many evaluations in a row without a new best; None
      for never.
    tokens_per_batch: tokens a side of a batch, padding included. Its rows are a
      multiple of the devices that share them: the same on any number of devices
      if all of these divide tokens_per_batch / length.
    buckets: lengths that batches are padded to, or a number: how many of them
      to choose from the data. Each is a shape to compile.
    packed_lengths: if given and the loss allows it, several pairs share a row
      of a batch, which has one of these lengths in place of `buckets`.
    accumulation_steps: micro-batches a step.
    dropout: whether dropout is on (its rate is the network's).
    seed: of batch order and dropout.
    log_every: steps between lines of metrics.
    max_bad_steps: steps whose loss or gradient is not finite that are passed over,
      with nothing learned from them, before training stops.
    lora: adapters to train in place of all parameters; None for none.
  """

  optimizer: optimizers.OptimizerConfig
  max_steps: int
  evaluate_every: int
  evaluate_first: bool = False
  patience: int | None = None
  tokens_per_batch: int = 4096
  buckets: tuple[int, ...] | int = (16, 32, 64, 128)
  packed_lengths: tuple[int, ...] = ()
  accumulation_steps: int = 1
  dropout: bool = True
  seed: int = 0
  log_every: int = settings.recorded(default=50)
  max_bad_steps: int = 0
  lora: lora_lib.LoraConfig | None = settings.added(default=None)

  def __post_init__(self):
    if self.lora is not None and self.optimizer.parameter_scale:
      raise ValueError(
        'OptimizerConfig.parameter_scale must be False with LoraConfig, as an '
        "adapter's B starts at 0 and its updates would be scaled by its size; "
        'got True. gin_configs/training/lora.gin sets it.'
      )
    if isinstance(self.buckets, int):
      hint = 'A number says how many lengths to choose from the data.'
      settings.at_least(self, 1, 'buckets', hint=hint)
    else:
      settings.make_tuples(self, 'buckets')
      settings.rising(self, 'buckets')
    settings.make_tuples(self, 'packed_lengths')
    settings.rising(self, 'packed_lengths', may_be_empty=True)
    settings.at_least(
      self,
      1,
      'max_steps',
      'evaluate_every',
      'tokens_per_batch',
      'accumulation_steps',
      'log_every',
    )
    settings.at_least(self, 0, 'max_bad_steps')
    settings.at_least(self, 1, 'patience', none='no early stop')

  @property
  def least_steps(self) -> int:
    """Optimiser steps that are taken however early patience stops."""
    if self.patience is None:
      return self.max_steps
    # The first evaluation is the best so far.
    evaluations = self.patience + (0 if self.evaluate_first else 1)
    return min(self.max_steps, evaluations * self.evaluate_every)

  def batches(
    self,
    *,
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    load: loader.Load,
    normalizers: np.ndarray | None = None,
    mesh: jax.sharding.Mesh | None = None,
    packable: bool = False,
  ) -> loader.BucketedBatches:
    """Plans batches with these settings; see `loader.BucketedBatches`.

    `mesh` is what the batches are put on; None for one device.
    `packable` says whether what reads the batches allows `packed_lengths`, see
    `losses.base.Loss.packable`.
    """
    pack = packable and bool(self.packed_lengths)
    num_parts = 1 if mesh is None else mesh_lib.num_parts(mesh)
    return loader.BucketedBatches(
      source_lengths=source_lengths,
      target_lengths=target_lengths,
      load=load,
      normalizers=normalizers,
      tokens_per_batch=self.tokens_per_batch,
      buckets=self.packed_lengths if pack else self.buckets,
      seed=self.seed,
      row_multiple=num_parts * self.accumulation_steps,
      pack=pack,
      rows_here=None if mesh is None else mesh_lib.rows_here(mesh),
    )


class Given(NamedTuple):
  """A model beside the one that is trained, which its loss reads."""

  model: Any
  params: types.Params


class TrainResult(NamedTuple):
  """What a training ends with.

  Attributes:
    params: those of the best checkpoint.
    summary: for the stage's manifest: steps, best_step, best_objective,
      stopped_early, bad_steps (passed over), trained_params (a number), real_token_share, seconds, evaluation_seconds (of those),
      target_tokens and source_tokens (real ones, of all steps),
      target_tokens_per_second, params_digest, evaluation (metrics of the best checkpoint).
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
  # Of a training that was interrupted: metrics of steps since the last line of
  # the journal.
  unlogged: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train(
  config: TrainerConfig,
  *,
  model: Any,
  loss: base.Loss,
  batches: loader.BucketedBatches,
  mesh_config: mesh_lib.MeshConfig,
  params: types.Params,
  directory: str | pathlib.Path,
  evaluate_fn: EvaluateFn,
  row_filter: base.RowFilter | None = None,
  given: Mapping[str, Given] | None = None,
  description: str = 'train',
) -> TrainResult:
  """Trains until `max_steps` or until the objective stops rising.

  A training that was cut off goes on from its latest checkpoint, with the same
  batches, randomness and early-stopping state. A signal (see `interruption`) saves
  one more after the step at hand, and stops an evaluation, which is made again. Of
  several processes all save, after the same step some seconds later, and an
  evaluation is finished before.

  Args:
    config: see `TrainerConfig`.
    model: `Policy` or `ScalarModel`.
    loss: any `losses.base.Loss`.
    batches: what to train on.
    mesh_config: devices and rules.
    params: where to start from, on any device; not changed.
    directory: the stage's folder; receives `checkpoints/`, `metrics.jsonl` and
      TensorBoard events. With `config.lora` the checkpoints of the training are
      in `training/checkpoints/` and hold adapters alone; at the end the best
      of them, merged, is the one of `checkpoints/`.
    evaluate_fn: called with parameters and step every `evaluate_every` steps and
      at the end; the checkpoint of highest 'objective' is kept.
    row_filter: applies F of Eq. 2 inside the step.
    given: other models, by the names in the loss's `needs`.
    description: the word before the progress bar.

  Returns:
    The best checkpoint's parameters and a summary.

  Raises:
    FloatingPointError: if loss, gradient or objective is not finite.
  """
  loss = loss.for_training(config.least_steps)
  mesh = mesh_config.build()
  trained, start, adaptation = model, params, None
  if config.lora is not None:
    adaptation = lora_lib.Training(model, config.lora, params, mesh_config)
    trained, start = adaptation.model, adaptation.init(config.seed)
    evaluate_fn = _evaluates_merged(evaluate_fn, adaptation)
  has_dropout = config.dropout and model.config.dropout_rate > 0
  with (
    _Steps(
      config,
      batches,
      directory=directory,
      evaluate_fn=evaluate_fn,
      description=description,
    ) as loop,
    profiling.Trace(directory, 'train') as trace,
    mesh_lib.use(mesh, mesh_config.rules),
  ):
    state, others = placement.sharded_state(
      trained, loss, config.optimizer, start, given, mesh_config, mesh
    )
    if adaptation is not None:
      others[lora_lib.BASE] = adaptation.base
    state = loop.resume(state, others)
    step = jitted_step(
      model,
      loss,
      config.optimizer.without_schedule(),
      row_filter,
      config.accumulation_steps,
      mesh_config,
      config.max_bad_steps > 0,
      1.0,
      config.lora,
    )
    take = functools.partial(trace.step, step)
    with interruption.deferred():
      loop.evaluate_first(state, config.evaluate_first)
      state = loop.steps(take, state, others, mesh, has_dropout)
    best = loop.best(state.params)
    if adaptation is not None:
      best = adaptation.merged(best)
      loop.publish(best)
  return TrainResult(best, loop.summary(state, best))


def _evaluates_merged(
  evaluate_fn: EvaluateFn, adaptation: lora_lib.Training
) -> EvaluateFn:
  """An evaluation of adapters: that of the policy which they make."""
  return lambda adapters, step: evaluate_fn(adaptation.merged(adapters), step)


@functools.lru_cache(maxsize=16)
def jitted_step(
  model,
  loss,
  optimizer_config,
  row_filter,
  accumulation_steps,
  mesh_config,
  skip_bad,
  learned_rate_factor=1.0,
  lora=None,
):
  """One jitted step for all trainings alike: Improve steps compile once."""
  del mesh_config  # Of the key alone: tracing reads its rules from the context.
  train_step = step_lib.make_train_step(
    model=model,
    loss=loss,
    optimizer=optimizer_config.direction(),
    learned_rate_factor=learned_rate_factor,
    row_filter=row_filter,
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
    if config.lora is not None:
      self.checkpoints_folder = self.directory / TRAINING
    # Tokens since the last checkpoint, of this process's rows.
    self._read = dict.fromkeys(_SIDES, 0)
    self._num_readers = 1

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
      with time_spent.waiting():
        batch = next(iterator)
      for side, name in _SIDES.items():
        self._read[side] += int(np.count_nonzero(batch[name]))
      rate = processes.place(learning_rates[step], everywhere)
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

  def publish(self, params) -> None:
    """Saves the stage's policy, which is none of this training's checkpoints."""
    step = self.progress.best_step
    assert step is not None
    checkpoints_lib.save_params(self.directory, step, params)

  def noted(self, state, metrics, seconds) -> None:
    super().noted(state, metrics, seconds)
    self.progress.evaluation_seconds += seconds

  def save(self, state, objective: float | None = None) -> None:
    self.progress.seconds = time.monotonic() - self._started
    self._count_tokens()
    super().save(state, objective)

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
      'params_digest': digests.digest(best),
    }


def _dropout_key(seed) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), 1)


def nll_evaluation(
  model: Any, batches: loader.BucketedBatches, mesh_config: mesh_lib.MeshConfig
) -> EvaluateFn:
  """Returns an evaluation by validation NLL; its objective is minus that.

  Args:
    model: the policy.
    batches: of the validation pairs; each is read once.
    mesh_config: devices and rules.

  Returns:
    A function (params, step) -> {'objective', 'nll', 'perplexity'}, nll in nats
    per token.
  """

  @jax.jit
  def sums(params, batch):
    weights = batch['decoder_loss_weights']
    log_probs = model.log_probs(params, batch)
    return (log_probs * weights).sum(), weights.sum()

  def evaluate(params, step):
    del step
    mesh = mesh_config.build()
    totals = [
      sums(params, mesh_lib.put_batch(batches[i], mesh))
      for i in range(batches.batches_per_epoch)
    ]
    sums_of = np.asarray(jax.device_get(totals), np.float64)
    log_prob, count = sums_of.sum(axis=0)
    nll = -float(log_prob / count)
    return {'objective': -nll, 'nll': nll, 'perplexity': math.exp(min(nll, 80))}

  return evaluate
