"""Proximal policy optimisation of an encoder-decoder, from the BC policy on."""

import contextlib
import dataclasses
import functools
import math
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.online import cost as cost_lib
from rest_jax.online import distinct, learner, objective, rollout
from rest_jax.online import ppo_config as config_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.runtime import interruption
from rest_jax.storage import remote
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import digests
from rest_jax.training import journal as journal_lib
from rest_jax.training import step as step_lib
from rest_jax.training import trainer as trainer_lib

PPOConfig = config_lib.PPOConfig

HASHES_FILE = 'samples.hashes'


@dataclasses.dataclass
class _Progress:
  """The bookkeeping that a checkpoint's record carries."""

  iteration: int = 0
  best_step: int | None = None
  best_iteration: int = 0
  best_objective: float | None = None
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  cost: cost_lib.Cost = dataclasses.field(default_factory=cost_lib.Cost)
  # For each evaluation its objective and the cost so far.
  course: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  def note(self, step: int, metrics: dict[str, float]) -> None:
    found = metrics[checkpoints_lib.OBJECTIVE]
    # Of equal checkpoints the newest is the best, as in `trainer.train`.
    if self.best_objective is None or found >= self.best_objective:
      self.best_step, self.best_iteration = step, self.iteration
      self.best_objective, self.best_metrics = found, metrics

  @classmethod
  def of(cls, record: dict[str, Any]) -> '_Progress':
    names = {field.name for field in dataclasses.fields(cls)}
    values = {key: value for key, value in record.items() if key in names}
    return cls(**{**values, 'cost': cost_lib.Cost(**values['cost'])})


def train(
  config: config_lib.PPOConfig,
  *,
  policy: policy_lib.Policy,
  bc_params: types.Params,
  environment: rollout.Environment,
  num_samples: int,
  evaluate_fn: trainer_lib.EvaluateFn,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  description: str = 'online',
) -> dict[str, Any]:
  """Trains from the BC policy until `num_samples` are drawn.

  A training that was cut off goes on from its latest checkpoint, with the same
  draws and batches.

  Args:
    config: see `PPOConfig`.
    policy: the network.
    bc_params: where to start from, on the mesh; not changed.
    environment: sources and reward.
    num_samples: hypotheses to draw, `config.num_samples` or what stands for it.
    evaluate_fn: called with parameters and iterations every `evaluate_every`
      iterations and at the end; the checkpoint of highest 'objective' is kept.
    mesh_config: devices and rules.
    directory: the stage's folder; receives `checkpoints/`, `metrics.jsonl`,
      TensorBoard events and a hash of each sample.
    seed: of the order of batches and of the critic's head.
    description: the word before the progress bar.

  Returns:
    For the stage's manifest: `training` (steps, best_step, best_iteration,
    best_objective, evaluation, params_digest, ...), `cost` (see `Cost.report`)
    and `course`, for each evaluation its objective and the cost so far.

  Raises:
    FloatingPointError: if loss, gradient, reward or objective is not finite.
  """
  mesh = mesh_config.build()
  num_draws = config.num_draws(num_samples)
  num_iterations = -(-num_draws // config.sources_per_iteration)
  store = checkpoints_lib.Checkpoints(directory)
  with contextlib.ExitStack() as stack:
    stack.callback(store.close)
    stack.enter_context(mesh_lib.use(mesh, mesh_config.rules))
    state = learner.initial_state(
      config, policy, bc_params, mesh_config, mesh, seed
    )
    progress, fresh = _Progress(), True
    saved = store.restore_latest(state)
    if saved is not None:
      state, record = saved
      progress, fresh = _Progress.of(record), False
      logging.info(
        '%s: resumes at iteration %d of %s',
        description,
        progress.iteration,
        directory,
      )
    journal = stack.enter_context(
      journal_lib.Journal(
        directory,
        first_step=progress.iteration,
        num_steps=num_iterations,
        description=description,
        # A line may be there without the checkpoint that was to follow it.
        is_evaluated=not fresh,
      )
    )
    run = _Run(
      config=config,
      policy=policy,
      bc_params=bc_params,
      environment=environment,
      num_draws=num_draws,
      num_iterations=num_iterations,
      evaluate_fn=evaluate_fn,
      mesh_config=mesh_config,
      mesh=mesh,
      seed=seed,
      store=store,
      journal=journal,
      seen=distinct.SeenSamples(
        pathlib.Path(directory) / HASHES_FILE, progress.cost.samples
      ),
      progress=progress,
    )
    if fresh and config.evaluate_first:
      run.evaluate(state)
    state = run.iterations(state)
    if progress.best_step is None:
      raise FileNotFoundError(f'{directory} has no evaluated checkpoint')
    best = store.restore_params(progress.best_step, state.params)
  return run.summary(state, best)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
  """The plain loop, with what it carries from iteration to iteration."""

  config: config_lib.PPOConfig
  policy: policy_lib.Policy
  bc_params: types.Params
  environment: rollout.Environment
  num_draws: int
  num_iterations: int
  evaluate_fn: trainer_lib.EvaluateFn
  mesh_config: mesh_lib.MeshConfig
  mesh: jax.sharding.Mesh
  seed: int
  store: checkpoints_lib.Checkpoints
  journal: journal_lib.Journal
  seen: distinct.SeenSamples
  progress: _Progress

  def iterations(self, state: step_lib.TrainState) -> step_lib.TrainState:
    """Samples and updates until all is drawn."""
    progress = self.progress
    rates = self.config.optimizer.learning_rates(self.num_iterations)
    with interruption.deferred() as is_interrupted:
      while progress.iteration < self.num_iterations:
        hypotheses, rewards = self._sample(state)
        with progress.cost.timed('train'):
          columns, metrics = self._credit(state, hypotheses, rewards)
          state, updated = self._update(
            state, hypotheses, columns, rates[progress.iteration]
          )
        progress.iteration += 1
        self.journal.write('train', progress.iteration, {**metrics, **updated})
        self.journal.advance(progress.iteration)
        is_last = progress.iteration == self.num_iterations
        if is_last or progress.iteration % self.config.evaluate_every == 0:
          self.evaluate(state)
        if is_interrupted():
          if self.store.latest_step != int(state.step):
            self._save(state)
          break
    return state

  def _sample(
    self, state: step_lib.TrainState
  ) -> tuple[rollout.Hypotheses, np.ndarray]:
    """Draws and scores the hypotheses of one iteration."""
    environment, cost = self.environment, self.progress.cost
    each = self.config.sources_per_iteration
    first = self.progress.iteration * each
    with cost.timed('sample'):
      hypotheses = environment.draw(
        state.params, first, min(each, self.num_draws - first)
      )
      texts = environment.texts(hypotheses)
      self.seen.add(hypotheses.rows, texts)
    with cost.timed('score'):
      rewards = environment.rewards(hypotheses, texts)
    lengths = environment.pairs.source_tokens.lengths[hypotheses.rows]
    paired = int(lengths.sum())
    cost.samples += len(hypotheses)
    cost.sampled_tokens += hypotheses.tokens.num_tokens
    cost.paired_source_tokens += paired
    cost.source_tokens += paired // self.config.decode.num_samples_per_source
    return hypotheses, rewards

  def _credit(
    self,
    state: step_lib.TrainState,
    hypotheses: rollout.Hypotheses,
    rewards: np.ndarray,
  ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns what `ClippedObjective` reads of each token, and metrics."""
    config, environment = self.config, self.environment
    value_model = scalar.ScalarModel(self.policy.config)
    old, bc, values = (
      config.batching(self.mesh).per_token(
        environment.pairs,
        hypotheses,
        functools.partial(function, model, params),
        self.mesh,
      )
      for function, model, params in (
        (rollout.log_probs, self.policy, state.params),
        (rollout.log_probs, self.policy, self.bc_params),
        (rollout.values, value_model, state.auxiliary.learned[objective.VALUE]),
      )
    )
    is_token = hypotheses.is_token(old.shape[1])
    arrays = map(jnp.asarray, (old, bc, values, rewards, is_token))
    credited, returns = jax.device_get(
      learner.credit(
        *arrays,
        kl_coefficient=config.kl_coefficient,
        discount=config.discount,
        gae_lambda=config.gae_lambda,
      )
    )
    columns = {
      'old_log_probs': old,
      'old_values': values,
      'advantages': credited,
      'returns': returns,
    }
    spread = np.var(returns[is_token])
    unexplained = np.var((returns - values)[is_token])
    return columns, {
      'reward': float(rewards.mean(dtype=np.float64)),
      # What the penalty is made of.
      **rollout.mean_kl(old - bc, hypotheses),
      'length': hypotheses.tokens.num_tokens / len(hypotheses),
      'unfinished': 1.0 - float(hypotheses.finished.mean()),
      # Of the critic's targets; 1 is a perfect critic, 0 a constant one.
      'explained_variance': float(1.0 - unexplained / max(spread, 1e-12)),
    }

  def _update(
    self,
    state: step_lib.TrainState,
    hypotheses: rollout.Hypotheses,
    columns: dict[str, np.ndarray],
    learning_rate: np.ndarray,
  ) -> tuple[step_lib.TrainState, dict[str, float]]:
    """Passes `epochs` times over the hypotheses."""
    config, progress = self.config, self.progress
    pairs = self.environment.pairs
    seed = np.random.SeedSequence([self.seed, progress.iteration, 1])
    batches = config.batching(self.mesh).plan(
      pairs, hypotheses, columns, int(seed.generate_state(1)[0])
    )
    step = learner.jitted_step(
      self.policy,
      config.loss,
      config.optimizer.without_schedule(),
      config.value_learning_rate_factor,
      config.accumulation_steps,
      self.mesh_config,
    )
    rate, expected = jax.device_put(
      (learning_rate, np.float32(batches.expected_normalizer)),
      mesh_lib.replicated(self.mesh),
    )
    waiting = []
    for index in range(config.epochs * batches.batches_per_epoch):
      batch = batches[index]
      progress.cost.optimizer_steps += 1
      progress.cost.trained_target_tokens += int(
        np.count_nonzero(batch['decoder_target_tokens'])
      )
      progress.cost.trained_source_tokens += int(
        np.count_nonzero(batch['encoder_input_tokens'])
      )
      state, metrics = step(
        state, mesh_lib.put_batch(batch, self.mesh), rate, None, expected
      )
      waiting.append(metrics)
    fetched = jax.device_get(waiting)
    for metrics in fetched:
      for name in ('loss', 'gradient_norm'):
        if not np.isfinite(metrics[name]):
          raise FloatingPointError(
            f'{name} is {metrics[name]} in iteration {progress.iteration + 1}. '
            'Lower the learning rate; the latest checkpoint is intact.'
          )
    return state, step_lib.mean_metrics(fetched)

  def evaluate(self, state: step_lib.TrainState) -> None:
    """Evaluates, notes the result and saves a checkpoint."""
    progress, step = self.progress, int(state.step)
    with progress.cost.timed('evaluate'):
      metrics = {
        name: float(value)
        for name, value in self.evaluate_fn(
          state.params, progress.iteration
        ).items()
      }
    for name, value in metrics.items():
      if not math.isfinite(value):
        raise FloatingPointError(
          f'evaluation at iteration {progress.iteration}: {name} is {value}. '
          'Nothing was saved; the checkpoint before is intact.'
        )
    metrics['samples'] = float(progress.cost.samples)
    metrics['distinct_samples'] = float(self.seen.count())
    progress.note(step, metrics)
    progress.cost.note_memory()
    progress.course.append(
      {
        'objective': metrics[checkpoints_lib.OBJECTIVE],
        'distinct_samples': self.seen.count(),
        **self._cost(state, state.params),
      }
    )
    self.journal.write('validation', progress.iteration, metrics)
    self._save(state, metrics[checkpoints_lib.OBJECTIVE])

  def _save(
    self, state: step_lib.TrainState, objective: float | None = None
  ) -> None:
    record = dataclasses.asdict(self.progress)
    self.store.save(state, record=record, objective=objective)
    remote.push()

  def summary(
    self, state: step_lib.TrainState, best: types.Params
  ) -> dict[str, Any]:
    progress = self.progress
    cost = self._cost(state, best)
    return {
      'training': {
        'steps': int(state.step),
        'iterations': progress.iteration,
        'best_step': progress.best_step,
        'best_iteration': progress.best_iteration,
        'best_objective': progress.best_objective,
        'evaluation': progress.best_metrics,
        'seconds': cost['seconds']['total'],
        'params_digest': digests.digest(best),
      },
      'cost': {**cost, 'distinct_samples': self.seen.count()},
      'course': progress.course,
    }

  def _cost(
    self, state: step_lib.TrainState, params: types.Params
  ) -> dict[str, Any]:
    critic = state.auxiliary.learned[objective.VALUE]
    return self.progress.cost.report(params, critic)
