"""Run by `eight`: training of adapters on several meshes.

Finds the largest differences to one device, and how A and B are split.
"""

import pathlib
import tempfile

import jax

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.training import lora, optimizers
from tests.parallel import twenty_steps
from tests.training import toy

LORA = lora.LoraConfig(rank=2, matrices=('query', 'out', 'wi_0', 'wo'))
TRAINER = toy.make_config(
  max_steps=8,
  evaluate_every=8,
  dropout=False,
  lora=LORA,
  optimizer=optimizers.OptimizerConfig(
    learning_rate=1e-2, parameter_scale=False
  ),
)
POLICY = twenty_steps.POLICY
MESHES = {
  'one device': None,
  'both': ['fsdp', 'tensor_parallel'],
}


def train(config, start):
  with tempfile.TemporaryDirectory() as folder:
    result = toy.train(
      pathlib.Path(folder),
      TRAINER,
      policy=POLICY,
      params=start,
      batches=TRAINER.batches(toy.make_rows(toy.make_tokens()), config.build()),
      mesh_config=config,
    )
  return processes.fetch(result.params)


def specs(config) -> dict[str, list[str]]:
  """How A and B of a feed-forward kernel are split."""
  found = mesh_lib.abstract_params(
    lora.Adapters(POLICY, LORA), config.build(), config.rules
  )
  kernel = found['decoder']['layers_0']['mlp']['wi_0']['kernel']
  return {name: [str(x) for x in kernel[name].sharding.spec] for name in kernel}


def found() -> dict:
  start = processes.fetch(POLICY.init(jax.random.key(0)))
  result, expected = {}, None
  for name, files in MESHES.items():
    config = twenty_steps.mesh_config(files)
    params = train(config, start)
    expected = expected or params
    result[name] = {
      'difference': twenty_steps.largest(params, expected),
      'movement': twenty_steps.largest(params, start),
      'specs': specs(config),
    }
  return result
