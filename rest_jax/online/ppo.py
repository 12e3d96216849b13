"""Proximal policy optimisation of an encoder-decoder, starting from BC."""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
from typing import Any

import jax
from jaxtyping import Array, Bool, Float
import numpy as np

from rest_jax import types
from rest_jax.losses import ops
from rest_jax.models import scalar
from rest_jax.online import cost as cost_lib
from rest_jax.online import distinct, objective, rollout
from rest_jax.online import ppo_config as config_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes, stopping
from rest_jax.runtime import interruption
from rest_jax.training import checkpoints as checkpoints_lib
from rest_jax.training import digests, placement
from rest_jax.training import loop as loop_lib
from rest_jax.training import step as step_lib
from rest_jax.training import trainer as trainer_lib

PPOConfig = config_lib.PPOConfig

HASHES_FILE = 'samples.hashes'


@dataclasses.dataclass
class _Progress(loop_lib.Progress):
  """Progress of a training, stored with its checkpoints."""

  iteration: int = 0
  best_iteration: int = 0
  cost: cost_lib.Cost = dataclasses.field(default_factory=cost_lib.Cost)
  # Objective and cost so far, one entry per evaluation.
  course: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  def note(self, step: int, metrics: dict[str, float]) -> bool:
    is_best = super().note(step, metrics)
    if is_best:
      self.best_iteration = self.iteration
    return is_best

  @classmethod
  def of(cls, record: Mapping[str, Any]) -> '_Progress':
    return super().of({**record, 'cost': cost_lib.Cost(**record['cost'])})


def train(
  config: config_lib.PPOConfig,
  bc: trainer_lib.Given,
  environment: rollout.Environment,
  *,
  num_samples: int,
  evaluate_fn: trainer_lib.EvaluateFn,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
) -> dict[str, Any]:
  """Trains from the BC policy until `num_samples` are sampled.

  An interrupted training resumes from its latest checkpoint, with the same
  samples and batches.

  Args:
    bc: the network and its initial parameters, on the mesh; not changed.
    environment: sources and reward.
    num_samples: number of hypotheses to sample.
    evaluate_fn: called with parameters and iteration every `evaluate_every`
      iterations and at the end; the checkpoint with the highest 'objective' is
      kept.
    mesh_config: devices and sharding rules.
    directory: folder of the stage; gets `checkpoints/`, `metrics.jsonl`,
      TensorBoard events and a hash of each sample.
    seed: seed of the order of batches and of the critic's head.

  Returns:
    For the stage's manifest: `training` (steps, best_step, best_iteration,
    best_objective, evaluation, params_digest, ...), `cost` (see `Cost.report`)
    and `course`, the objective and the cost so far per evaluation.

  Raises:
    FloatingPointError: if loss, gradient, reward or objective is not finite.
  """
  mesh = mesh_config.build()
  critic = scalar.ScalarModel(bc.model.config)
  with (
    _Iterations(
      config,
      bc,
      environment,
      mesh_config,
      num_samples=num_samples,
      seed=seed,
      directory=directory,
      evaluate_fn=evaluate_fn,
      description=f'online {config.name}',
    ) as loop,
    mesh_lib.use(mesh, mesh_config.rules),
  ):
    start = critic.init_from_policy(bc.params, jax.random.key(seed))
    state, _ = placement.sharded_state(
      bc.model,
      config.loss,
      config.optimizer,
      bc.params,
      {objective.VALUE: (critic, start)},
      mesh_config,
      mesh,
    )
    state = loop.resume(state)
    with interruption.deferred():
      loop.evaluate_first(state, config.evaluate_first)
      state = loop.iterations(state)
    best = loop.best(state.params)
  return loop.summary(state, best)


class _Iterations(loop_lib.Loop[_Progress]):
  """The training loop."""

  unit = 'iteration'

  def __init__(
    self,
    config: config_lib.PPOConfig,
    bc: trainer_lib.Given,
    environment: rollout.Environment,
    mesh_config: mesh_lib.MeshConfig,
    *,
    num_samples: int,
    seed: int,
    **arguments: Any,
  ):
    self._num_draws = config.num_draws(num_samples)
    self._num_iterations = -(-self._num_draws // config.sources_per_iteration)
    super().__init__(
      progress=_Progress(),
      num_steps=self._num_iterations,
      max_bad_steps=config.max_bad_steps,
      **arguments,
    )
    self._config = config
    self._policy, self._bc_params = bc
    self._environment = environment
    self._mesh_config = mesh_config
    self._mesh = mesh_config.build()
    self._batching = config.batching(self._mesh, bc.model.config.special_ids)
    self._seed = seed

  def number(self, state: step_lib.TrainState) -> int:
    del state
    return self.progress.iteration

  def resume(
    self,
    state: step_lib.TrainState,
    given: Mapping[str, types.Params] | None = None,
  ) -> step_lib.TrainState:
    state = super().resume(state, given)
    self._seen = None  # Only the main process counts samples.
    if processes.is_main():
      self._seen = distinct.SeenSamples(
        self.directory / HASHES_FILE, self.progress.cost.samples
      )
    return state

  def save(
    self, state: step_lib.TrainState, objective: float | None = None
  ) -> None:
    if self._seen is not None:
      self._seen.publish()
    super().save(state, objective)

  def iterations(self, state: step_lib.TrainState) -> step_lib.TrainState:
    """Samples and updates until all samples are drawn."""
    progress = self.progress
    rates = self._config.optimizer.learning_rates(self._num_iterations)
    agreement = stopping.Agreement(progress.iteration)
    while progress.iteration < self._num_iterations:
      hypotheses, rewards = self._sample(state)
      with progress.cost.timed('train'):
        columns, metrics = self._credit(state, hypotheses, rewards)
        state, updated = self._update(
          state, hypotheses, columns, rates[progress.iteration]
        )
      progress.iteration += 1
      self.journal.write('train', progress.iteration, {**metrics, **updated})
      self.journal.advance(progress.iteration)
      is_last = progress.iteration == self._num_iterations
      if is_last or progress.iteration % self._config.evaluate_every == 0:
        self.evaluate(state)
      signal = agreement.number(
        progress.iteration, interruption.number(), (), is_meeting=True
      )
      if signal is not None:
        self.stop(state, signal)
        break
    return state

  def _sample(
    self, state: step_lib.TrainState
  ) -> tuple[rollout.Hypotheses, np.ndarray]:
    """Samples and scores the hypotheses of one iteration."""
    environment, cost = self._environment, self.progress.cost
    each = self._config.sources_per_iteration
    first = self.progress.iteration * each
    with cost.timed('sample'):
      hypotheses = environment.draw(
        state.params, first, min(each, self._num_draws - first)
      )
      texts = environment.texts(hypotheses)
      if self._seen is not None:
        self._seen.add(hypotheses.rows, texts)
    with cost.timed('score'):
      rewards = processes.by_main(
        'rewards', lambda: environment.rewards(hypotheses, texts).tolist()
      )
    rewards = np.asarray(rewards, np.float32)
    if not np.isfinite(rewards).all():
      raise FloatingPointError(
        f'a reward of {environment.reward.name} is not finite in iteration '
        f'{self.progress.iteration + 1}. The latest checkpoint is intact.'
      )
    paired = hypotheses.num_source_tokens(environment.pairs)
    cost.samples += len(hypotheses)
    cost.sampled_tokens += hypotheses.tokens.num_tokens
    cost.paired_source_tokens += paired
    cost.source_tokens += paired // self._config.decode.num_samples_per_source
    return hypotheses, rewards

  def _credit(
    self,
    state: step_lib.TrainState,
    hypotheses: rollout.Hypotheses,
    rewards: np.ndarray,
  ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the token columns for `ClippedObjective`, and metrics."""
    config, environment = self._config, self._environment
    value_model = scalar.ScalarModel(self._policy.config)
    old, bc, values = (
      self._batching.per_token(
        environment.pairs,
        hypotheses,
        functools.partial(function, model, params),
        self._mesh,
      )
      for function, model, params in (
        (rollout.log_probs, self._policy, state.params),
        (rollout.log_probs, self._policy, self._bc_params),
        (rollout.values, value_model, state.auxiliary.learned[objective.VALUE]),
      )
    )
    is_token = hypotheses.is_token(old.shape[1])
    credited, returns = processes.fetch(
      credit(
        *(old, bc, values, rewards, is_token),
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
      # The terms of the KL penalty.
      **rollout.mean_kl(old - bc, hypotheses),
      'length': hypotheses.tokens.num_tokens / len(hypotheses),
      'unfinished': 1.0 - float(hypotheses.finished.mean()),
      # 1 for a perfect critic, 0 for a constant one.
      'explained_variance': float(1.0 - unexplained / max(spread, 1e-12)),
    }

  def _update(
    self,
    state: step_lib.TrainState,
    hypotheses: rollout.Hypotheses,
    columns: dict[str, np.ndarray],
    learning_rate: np.ndarray,
  ) -> tuple[step_lib.TrainState, dict[str, float]]:
    """Updates in `epochs` passes over the hypotheses."""
    config, cost = self._config, self.progress.cost
    iteration = self.progress.iteration
    pairs = self._environment.pairs
    seed = np.random.SeedSequence([self._seed, iteration, 1])
    batches = self._batching.plan(
      pairs, hypotheses, columns, int(seed.generate_state(1)[0])
    )
    step = trainer_lib.jitted_step(
      self._policy,
      config.loss,
      config.optimizer.without_schedule(),
      config.accumulation_steps,
      self._mesh_config,
      config.max_bad_steps > 0,
      config.value_learning_rate_factor,
    )
    everywhere = mesh_lib.replicated(self._mesh)
    rate = processes.place(learning_rate, everywhere)
    expected = processes.place(
      np.float32(batches.expected_normalizer), everywhere
    )
    waiting = []
    for index in range(config.epochs * batches.batches_per_epoch):
      batch = mesh_lib.put_batch(batches[index], self._mesh)
      state, metrics = step(state, batch, rate, None, expected)
      waiting.append(metrics)
    cost.optimizer_steps += len(waiting)
    cost.trained_target_tokens += config.epochs * hypotheses.tokens.num_tokens
    cost.trained_source_tokens += config.epochs * hypotheses.num_source_tokens(
      pairs
    )
    where = f' of iteration {iteration + 1}'
    updated = step_lib.mean_metrics(self.good_steps(waiting, batches, 1, where))
    if config.max_bad_steps:
      updated['bad_steps'] = self.progress.bad_steps
    return state, updated

  def noted(
    self, state: step_lib.TrainState, metrics: dict[str, float], seconds: float
  ) -> None:
    progress, num_distinct = self.progress, self._num_distinct()
    progress.cost.add_seconds('evaluate', seconds)
    metrics['samples'] = float(progress.cost.samples)
    metrics['distinct_samples'] = float(num_distinct)
    super().noted(state, metrics, seconds)
    progress.cost.note_memory()
    progress.course.append(
      {
        'objective': metrics[checkpoints_lib.OBJECTIVE],
        'distinct_samples': num_distinct,
        **self._cost(state, state.params),
      }
    )

  def _num_distinct(self) -> int:
    seen = self._seen
    return processes.by_main('distinct', lambda: seen.count() if seen else 0)

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
      'cost': {**cost, 'distinct_samples': self._num_distinct()},
      'course': progress.course,
    }

  def _cost(
    self, state: step_lib.TrainState, params: types.Params
  ) -> dict[str, Any]:
    critic = state.auxiliary.learned[objective.VALUE]
    return self.progress.cost.report(params, critic)


@functools.partial(
  jax.jit, static_argnames=('kl_coefficient', 'discount', 'gae_lambda')
)
def credit(
  log_probs: Float[Array, 'n T'],
  bc_log_probs: Float[Array, 'n T'],
  values: Float[Array, 'n T'],
  rewards: Float[Array, ' n'],
  is_token: Bool[Array, 'n T'],
  *,
  kl_coefficient: float,
  discount: float,
  gae_lambda: float,
) -> tuple[Float[Array, 'n T'], Float[Array, 'n T']]:
  """Returns whitened advantages and the critic's targets G_t = A_t + V(s_t).

  See `ops.penalised_rewards` and `ops.gae` for the arguments; values after the
  last token are 0.
  """
  token_rewards = ops.penalised_rewards(
    rewards, log_probs - bc_log_probs, is_token, kl_coefficient
  )
  advantages = ops.gae(token_rewards, values, is_token, discount, gae_lambda)
  return ops.whiten(advantages, is_token), advantages + values
