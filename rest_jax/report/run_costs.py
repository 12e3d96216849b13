"""What a run has spent, from the manifests of its stages."""

import pathlib
from typing import Any

import jax
import numpy as np

from rest_jax import types
from rest_jax.data import sample_store
from rest_jax.evaluation import costs
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.online import cost as online_cost
from rest_jax.stages import folder as folder_lib

COSTS_FILE = 'costs.json'


def gather(run: Any) -> list[costs.Reached]:
  """Compares what the finished policies of a run have cost.

  Args:
    run: an `run.Run` with an online baseline.

  Returns:
    The Improve steps in their order and the online baseline last; empty unless
    all are finished.
  """
  steps = [step for step in run.policies() if not step.is_bc]
  if not all((s.directory / folder_lib.MANIFEST).exists() for s in steps):
    return []
  course = _course(run.online_directory())
  reached, total = [], costs.Cost()
  for step in steps:
    training = folder_lib.read_manifest(step.directory)['training']
    reward = 100 * training['best_objective']
    if step.is_online:
      name, cost, online = (
        _online_name(run),
        costs.first_with(reward, course),
        None,
      )
      assert cost is not None  # Its best evaluation is one of its course.
    else:
      if step.improve == 1:
        total += _grow(run, step.grow)
      total += _trained(step.directory, run.policy)
      name = f'G={step.grow}, I={step.improve}'
      cost, online = total, costs.first_with(reward, course)
    reached.append(
      costs.Reached(policy=name, reward=reward, cost=cost, online=online)
    )
  return reached


def _online_name(run: Any) -> str:
  return run.experiment.online.name.upper()


def _course(directory: pathlib.Path) -> list[tuple[float, costs.Cost]]:
  """Rewards and costs of the online baseline's evaluations."""
  course = folder_lib.read_manifest(directory)['course']
  return [(100 * found['objective'], _spent(found)) for found in course]


def _spent(found: dict[str, Any]) -> costs.Cost:
  seconds = found['seconds']
  return costs.Cost(
    samples=found['samples'],
    distinct_samples=found['distinct_samples'],
    sampled_tokens=found['sampled_tokens'],
    trained_tokens=found['trained_target_tokens'],
    flops=found['flops']['total'],
    seconds=seconds['total'] - seconds['evaluate'],
    peak_rss_mb=found['peak_rss_mb'],
  )


def _grow(run: Any, grow_step: int) -> costs.Cost:
  """A Grow step, and its value function where there is one."""
  directory = run.grow_directory(grow_step)
  manifest = folder_lib.read_manifest(directory)
  store = sample_store.SampleStore.open(directory)
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
      _shapes(run.policy), int(sources[np.unique(ids)].sum()), sampled
    ),
    seconds=sum(manifest['seconds'].values()),
    peak_rss_mb=manifest['peak_rss_mb'],
  )
  if run.experiment.needs_value:
    value = scalar.ScalarModel(run.policy.config)
    cost += _trained(run.value_directory(grow_step), value)
  return cost


def _trained(
  directory: pathlib.Path, model: policy_lib.Policy | scalar.ScalarModel
) -> costs.Cost:
  """A training: three times its forward passes, as in `online.cost`."""
  manifest = folder_lib.read_manifest(directory)
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
