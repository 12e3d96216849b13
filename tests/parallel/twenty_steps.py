"""Run by `eight`: 20 steps of training on several meshes.

On meshes that the arguments do not name, the state is placed and nothing is trained.
"""

import contextlib
import pathlib
import tempfile

import jax
import numpy as np

from rest_jax.config import gin_files, registry
from rest_jax.losses import bc
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.planning import programs
from rest_jax.training import (
  checkpoints,
  optimizers,
  placement,
  validation_nll,
)
from tests.parallel import hlo_groups
from tests.training import toy

STEPS = 20
MESHES = {
  'one device': None,
  'data parallel': ['data_parallel'],
  'fully sharded': ['fsdp'],
  'tensor parallel': ['tensor_parallel'],
  'both': ['fsdp', 'tensor_parallel'],
  'two slices': ['multislice'],
  'two slices, both': ['multislice', 'tensor_parallel'],
}
POLICY = toy.make_policy(dropout_rate=0.0)


def mesh_config(names) -> mesh_lib.MeshConfig:
  """The mesh that files of gin_configs/meshes/ describe."""
  if names is None:
    return _OneDevice()
  files = [f'gin_configs/meshes/{name}.gin' for name in names]
  experiment = 'gin_configs/experiments/smoke.gin'
  registry.register()
  return gin_files.parse_and_build(
    [experiment, *files], [], root=registry.ROOT
  ).mesh


class _OneDevice(mesh_lib.MeshConfig):
  def build(self, devices=None):
    return super().build(devices or jax.devices()[:1])


def own_bytes(tree) -> int:
  """Bytes of a tree on the first device."""
  first = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(tree)
    for shard in leaf.addressable_shards
    if shard.device == first
  )


def held(state) -> dict[str, int]:
  """What a device holds of a state."""
  return {
    'params': own_bytes(state.params),
    'optimizer': own_bytes(state.optimizer),
  }


class _Watched(checkpoints.Checkpoints):
  """Notes what a device holds of the state when it is saved."""

  found: dict

  def save(self, state, **arguments):
    _Watched.found = held(state)
    super().save(state, **arguments)


TRAINER = toy.make_config(
  max_steps=STEPS,
  evaluate_every=STEPS,
  dropout=False,
  optimizer=optimizers.OptimizerConfig(
    kind='adamw', learning_rate=3e-3, warmup_steps=4
  ),
)


def train(config, start, directory) -> tuple[dict, dict]:
  batches = TRAINER.batches(toy.make_rows(toy.make_tokens()), config.build())
  result = toy.train(
    directory,
    TRAINER,
    policy=POLICY,
    params=start,
    batches=batches,
    mesh_config=config,
    evaluate_fn=validation_nll.evaluation(POLICY, batches, config),
  )
  return processes.fetch(result.params), _Watched.found


def gathers(config) -> list[tuple[int, int]]:
  """Elements and slices of each all-gather in the compiled step."""
  target = programs.Target(devices=jax.devices(), mesh_config=config)
  program = programs.Training(
    name='bc', trainer=TRAINER, model=POLICY, loss=bc.BC()
  ).program(target)
  text = program.trace().lower().compile().as_text()
  of_slice = len(jax.devices()) // config.slices
  return [
    (size, max(len({each // of_slice for each in group}) for group in groups))
    for size, groups in hlo_groups.collectives(text, 'all-gather')
  ]


def placed(config, start) -> dict[str, int]:
  """What a device holds before the first step."""
  state, _ = placement.sharded_state(
    POLICY, bc.BC(), TRAINER.optimizer, start, None, config, config.build()
  )
  return held(state)


def found(*trained: str) -> dict:
  checkpoints.Checkpoints = _Watched
  result, expected = {}, None
  start = processes.fetch(jax.jit(POLICY.init)(jax.random.key(0)))
  with contextlib.ExitStack() as stack:
    for name, files in MESHES.items():
      config = mesh_config(files)
      if name not in trained:
        result[name] = placed(config, start)
        continue
      folder = stack.enter_context(tempfile.TemporaryDirectory())
      params, of_device = train(config, start, pathlib.Path(folder))
      expected = expected or params
      result[name] = {
        'difference': largest(params, expected),
        'movement': largest(params, start),
        **of_device,
      }
  slices = mesh_config(MESHES['two slices'])
  result['two slices']['gathers'] = gathers(slices)
  return result


def largest(a, b) -> float:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(np.abs(x - y).max()) for x, y in pairs)
