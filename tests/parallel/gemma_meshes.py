"""Run by `eight`: 20 steps of a tiny T5Gemma on several meshes.

Finds the largest differences to one device.
"""

import dataclasses
import pathlib
import tempfile

import jax

from rest_jax.interop import huggingface_config
from rest_jax.losses import bc
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import processes
from rest_jax.training import loader, trainer
from tests.models import families
from tests.parallel import twenty_steps
from tests.training import toy

MESHES = {
  'one device': None,
  'data parallel': ['data_parallel'],
  'fully sharded': ['fsdp'],
  'tensor parallel': ['tensor_parallel'],
  'both': ['fsdp', 'tensor_parallel'],
}


def _policy(family: str) -> policy_lib.Policy:
  described = dict(families.DESCRIBED[family])
  if family == 't5gemma':
    # Encoder and decoder of different widths, each of which 8 devices divide.
    described['encoder'] = {**described['encoder'], 'hidden_size': 24}
  return policy_lib.Policy(huggingface_config.network_config(described))


def _rows(policy: policy_lib.Policy) -> loader.Rows:
  """Rows to train on, with the family's first input."""
  rows = toy.make_rows(toy.make_tokens())

  def load(*shape):
    batch = rows.load(*shape)
    start = policy.config.special_ids.decoder_start
    batch['decoder_input_tokens'][:, 0] = start
    return batch

  return dataclasses.replace(rows, load=load)


def train(policy, config, start):
  with tempfile.TemporaryDirectory() as folder:
    result = trainer.train(
      twenty_steps.TRAINER,
      trainer.Learner(model=policy, params=start, loss=bc.BC()),
      batches=twenty_steps.TRAINER.batches(_rows(policy), config.build()),
      mesh_config=config,
      directory=pathlib.Path(folder),
      evaluate_fn=lambda params, step: {'objective': float(step)},
    )
  return processes.fetch(result.params)


def found(family: str) -> dict:
  policy = _policy(family)
  start = processes.fetch(jax.jit(policy.init)(jax.random.key(0)))
  result, expected = {}, None
  for name, files in MESHES.items():
    params = train(policy, twenty_steps.mesh_config(files), start)
    expected = expected or params
    result[name] = {
      'difference': twenty_steps.largest(params, expected),
      'movement': twenty_steps.largest(params, start),
    }
  return result
