"""Costs of a run's policies, from the manifests of its stages."""

from typing import Any

import jax
import numpy as np

from rest_jax import rest, types
from rest_jax.data import sample_store
from rest_jax.evaluation import costs, policy_names
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.online import cost as online_cost
from rest_jax.stages import base
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import value as value_stage

COSTS_FILE = 'costs.json'


def gather(run: rest.Layout) -> list[costs.Reached]:
  """Returns rewards and costs of the policies of a run with an online baseline.

  Returns:
    The Improve steps in order, then the online baseline; empty unless all are
    finished.
  """
  steps = [step for step in run.policies() if not step.is_bc]
  if not all(step.is_finished for step in steps):
    return []
  [online_stage] = [step for step in steps if step.is_online]
  course = _course(online_stage)
  reached, total = [], costs.Cost()
  for step in steps:
    training = step.manifest()['training']
    reward = 100 * training['best_objective']
    if step.is_online:
      config, cost = run.experiment.online, costs.first_with(reward, course)
      # The run has an online baseline; its best evaluation is in its course.
      assert config is not None and cost is not None
      name, online = config.name.upper(), None
    else:
      if step.improve_step == 1:
        total += _grow(run, step.grow_step)
      total += _trained(step, run.context.policy)
      name = policy_names.of_step('bc', step.grow_step, step.improve_step)
      cost, online = total, costs.first_with(reward, course)
    reached.append(
      costs.Reached(policy=name, reward=reward, cost=cost, online=online)
    )
  return reached


def _course(online: base.Stage) -> list[tuple[float, costs.Cost]]:
  """Returns rewards and costs of the online baseline's evaluations."""
  course = online.manifest()['course']
  return [(100 * entry['objective'], _spent(entry)) for entry in course]


def _spent(entry: dict[str, Any]) -> costs.Cost:
  seconds = entry['seconds']
  return costs.Cost(
    samples=entry['samples'],
    distinct_samples=entry['distinct_samples'],
    sampled_tokens=entry['sampled_tokens'],
    trained_tokens=entry['trained_target_tokens'],
    flops=entry['flops']['total'],
    seconds=seconds['total'] - seconds['evaluate'],
    peak_rss_mb=entry['peak_rss_mb'],
  )


def _grow(run: rest.Layout, grow_step: int) -> costs.Cost:
  """Returns the cost of a Grow step, and of its value function if any."""
  [grown] = [
    s for s in run.of_kind(grow_stage.Grow) if s.grow_step == grow_step
  ]
  manifest = grown.manifest()
  store = sample_store.SampleStore.open(grown.folder)
  is_sample = store.sample_id != sample_store.REFERENCE_SAMPLE_ID
  ids = np.asarray(store.source_id)[is_sample]
  hashes = store.tokens.hashes[is_sample]
  order = np.lexsort((hashes, ids))
  ids, hashes = ids[order], hashes[order]
  is_new = (np.diff(ids) != 0) | (np.diff(hashes) != 0)
  sources = run.data.pairs(manifest['split']).source_tokens.lengths
  sampled = int(store.tokens.lengths[is_sample].sum())
  cost = costs.Cost(
    samples=len(ids),
    distinct_samples=min(len(ids), 1) + int(is_new.sum()),
    sampled_tokens=sampled,
    flops=online_cost.forward_flops(
      _shapes(run.context.policy), int(sources[np.unique(ids)].sum()), sampled
    ),
    seconds=sum(manifest['seconds'].values()),
    peak_rss_mb=manifest['peak_rss_mb'],
  )
  for value in run.of_kind(value_stage.Value):
    if value.grow_step == grow_step:
      model = scalar.ScalarModel(run.context.policy.config)
      cost += _trained(value, model)
  return cost


def _trained(
  stage: base.Stage, model: policy_lib.Policy | scalar.ScalarModel
) -> costs.Cost:
  """Returns a training's cost: three forward passes, as in `online.cost`."""
  manifest = stage.manifest()
  training = manifest['training']
  tokens = training['source_tokens'], training['target_tokens']
  return costs.Cost(
    trained_tokens=training['target_tokens'],
    flops=3 * online_cost.forward_flops(_shapes(model), *tokens),
    seconds=training['seconds'] - training['evaluation_seconds'],
    peak_rss_mb=manifest['peak_rss_mb'],
  )


def _shapes(model: policy_lib.Policy | scalar.ScalarModel) -> types.Params:
  return jax.eval_shape(model.init, jax.random.key(0))
