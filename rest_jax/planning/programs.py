"""The jitted functions of an experiment, with shapes in place of arrays.

Parameters and training states are only shapes, types and shardings; nothing but
the tokens of one batch is allocated.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.models import network as network_lib
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import learned, metricx, scoring_plan
from rest_jax.stages import base
from rest_jax.training import loader, packing, placement
from rest_jax.training import lora as lora_lib
from rest_jax.training import trainer as trainer_lib


@dataclasses.dataclass(frozen=True)
class Program:
  """One compiled program of a run.

  Attributes:
    function: the jitted function.
    arguments: its arguments, as shapes with shardings.
    mesh: mesh to compile for.
    rules: rules from logical to mesh axes; None for a mesh without rules.
    size: size of the batch, in `unit`.
    unit: unit of `size`.
    items: number of rows, candidates or hypotheses per call.
    resized: returns the program for another `size`; None if no size is
      searched.
    keeps_state: whether the first argument is a training state, and the last
      one the models that the training reads.
  """

  name: str
  function: Any
  arguments: tuple
  mesh: jax.sharding.Mesh
  rules: mesh_lib.Rules | None
  size: int
  unit: str
  items: int
  network: network_lib.NetworkConfig
  resized: Callable[[int], 'Program'] | None = None
  keeps_state: bool = False

  @property
  def model_bytes(self) -> int:
    """Bytes of parameters, and in a training of optimiser and other models."""
    arguments = self.arguments[:1]
    if self.keeps_state:
      arguments += self.arguments[-1:]
    return tree_bytes(arguments)

  def trace(self) -> Any:
    """Traces the program, to be lowered and compiled."""
    with contextlib.ExitStack() as stack:
      if self.rules is None:
        stack.enter_context(jax.set_mesh(self.mesh))
      else:
        stack.enter_context(mesh_lib.use(self.mesh, self.rules))
      return self.function.trace(*self.arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
  """Devices and mesh to compile for."""

  devices: Sequence[Any]
  mesh_config: mesh_lib.MeshConfig

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    return self.mesh_config.build(self.devices)

  @functools.cached_property
  def local_mesh(self) -> jax.sharding.Mesh:
    """The mesh of one process, for sampling and scoring."""
    return self.mesh_config.build_local(self.devices)

  def placed(self, tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns the shapes of a tree of arrays with one sharding."""
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      tree,
    )

  def params(
    self, model: mesh_lib.Model, mesh: jax.sharding.Mesh | None = None
  ) -> Any:
    return mesh_lib.abstract_params(
      model, mesh or self.mesh, self.mesh_config.rules
    )

  def local_batch(self, *arrays: np.ndarray) -> list[Any]:
    """Returns shapes of arrays, sharded by rows over `data` of `local_mesh`."""
    sharding = mesh_lib.batch_sharding(self.local_mesh)
    return [self.placed(array, sharding) for array in arrays]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(base.Training):
  """A training to compile a step of.

  Attributes:
    longest: number of tokens of the longest row, for trainers that choose their
      lengths from the data.
  """

  longest: int = 128

  @property
  def packs(self) -> bool:
    return self.loss.packable and bool(self.trainer.packed_lengths)

  @property
  def length(self) -> int:
    """Tokens per side of a row in the longest batches."""
    if self.packs:
      return max(self.trainer.packed_lengths)
    buckets = self.trainer.buckets
    return self.longest if isinstance(buckets, int) else max(buckets)

  def batch(self, row_multiple: int) -> dict[str, np.ndarray]:
    """Returns a batch with the shapes of the stage; all tokens are equal."""
    rows = loader.batch_rows(
      self.trainer.tokens_per_batch,
      self.length,
      row_multiple * self.trainer.accumulation_steps,
    )
    hypotheses = rows * self.loss.layout.hypotheses_per_source
    shape = (hypotheses, self.length)
    ids = self.model.config.special_ids
    tokens = np.full(shape, ids.eos, np.int32)
    batch = loader.decoder_batch(tokens[:rows], tokens, ids)
    for name in dict.fromkeys((*self.columns, *self.loss.columns)):
      dtype = np.int32 if name == 'source_ids' else np.float32
      batch[name] = np.zeros(hypotheses, dtype)
    if self.packs:
      batch = packing.pack(batch, np.arange(rows), self.length, ids.pad)
    return batch

  def program(self, target: Target) -> Program:
    """Returns the training step of `trainer.train`."""
    trainer, mesh = self.trainer, target.mesh
    trained = self.trained
    others = other_models(self.model)
    given = {name: target.params(others[name]) for name in self.loss.needs}
    state = placement.abstract_state(
      self.loss, trainer.optimizer, target.params(trained), given, mesh
    )
    batch = target.placed(
      self.batch(mesh_lib.num_parts(mesh)), mesh_lib.batch_sharding(mesh)
    )
    key = None
    if trainer.dropout and self.model.config.dropout_rate > 0:
      key = abstract_key()
    read = {name: given[name] for name in self.loss.reads}
    if trained is not self.model:
      read[lora_lib.BASE] = target.params(self.model)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    rate, expected, key = target.placed(
      (number, number, key), mesh_lib.replicated(mesh)
    )
    return Program(
      name=self.name,
      function=trainer_lib.step_of(
        trainer,
        self.model,
        self.loss.for_training(trainer.least_steps),
        target.mesh_config,
      ),
      arguments=(state, batch, rate, key, expected, read),
      mesh=mesh,
      rules=target.mesh_config.rules,
      size=batch['encoder_input_tokens'].size,
      unit='tokens a side of a batch',
      items=batch['encoder_input_tokens'].shape[0],
      network=self.model.config,
      resized=lambda size: self.resized(size).program(target),
      keeps_state=True,
    )

  def resized(self, tokens_per_batch: int) -> 'Training':
    trainer = dataclasses.replace(
      self.trainer, tokens_per_batch=tokens_per_batch
    )
    return dataclasses.replace(self, trainer=trainer)


def other_models(model: Any) -> dict[str, Any]:
  """Returns the models that a loss may read besides the trained one."""
  return {
    'bc': policy_lib.Policy(model.config),
    'value': scalar.ScalarModel(model.config),
  }


def learned_scorer(
  model: scalar.ScalarModel, scoring: scoring_plan.ScoringConfig, target: Target
) -> list[Program]:
  """Returns the programs of a learned reward: encoding and scoring."""
  data = mesh_lib.num_parts(target.local_mesh)
  length = scoring.length_buckets[-1]
  rows = scoring_plan.call_rows(scoring.tokens_per_call // length, data)
  chunks = max(1, scoring.held_tokens // length // rows)
  candidates = scoring.candidate_buckets[-1]
  groups = scoring_plan.call_rows(
    scoring.tokens_per_call // length // candidates, data
  )
  params = target.params(model, target.local_mesh)
  config = model.config
  held = jax.ShapeDtypeStruct(
    (chunks * rows, length, config.encoder_stack.emb_dim), config.dtype
  )
  held = target.placed(held, mesh_lib.replicated(target.local_mesh))

  def tokens(*shape):
    return np.zeros(shape, np.int32)

  sources = target.local_batch(tokens(rows, length))[0]
  common = {
    'mesh': target.local_mesh,
    'rules': target.mesh_config.rules,
    'size': scoring.tokens_per_call,
    'unit': 'tokens of a call',
    'network': config,
  }

  def resized(index, size):
    changed = dataclasses.replace(scoring, tokens_per_call=size)
    return learned_scorer(model, changed, target)[index]

  return [
    Program(
      name='scorer sources',
      function=_OfModel(learned.encode, model),
      arguments=(params, held, 0, sources),
      items=rows,
      **common,
    ),
    Program(
      name='scorer candidates',
      function=_OfModel(learned.rewards_of, model),
      arguments=(
        params,
        held,
        *target.local_batch(
          tokens(groups),
          tokens(groups, length),
          tokens(groups * candidates, length),
        ),
      ),
      items=groups * candidates,
      resized=functools.partial(resized, 1),
      **common,
    ),
  ]


def metricx_scorer(
  config: metricx.MetricX, network: network_lib.NetworkConfig, target: Target
) -> Program:
  """Returns the program of MetricX for its longest inputs.

  Args:
    config: settings of the reward.
    network: sizes of the checkpoint's network.
    target: devices of one process; the model may be sharded over all of them.
  """
  model = scalar.ScalarModel(dataclasses.replace(network, dtype=config.dtype))
  length = config.length_buckets[-1]
  rows = scoring_plan.call_rows(
    config.tokens_per_call // length, mesh_lib.num_parts(target.mesh)
  )
  # The type of the parameters is that of `huggingface.load_scalar_model`.
  params = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, config.dtype, sharding=leaf.sharding
    ),
    target.params(model),
  )

  inputs = target.placed(
    np.zeros((rows, length), np.int32), mesh_lib.batch_sharding(target.mesh)
  )

  def resized(size):
    changed = dataclasses.replace(config, tokens_per_call=size)
    return metricx_scorer(changed, network, target)

  return Program(
    name=f'scorer {config.name}',
    function=_OfModel(metricx.first_values, model),
    arguments=(params, inputs),
    mesh=target.mesh,
    rules=target.mesh_config.rules,
    size=config.tokens_per_call,
    unit='tokens of a call',
    items=rows,
    network=model.config,
    resized=resized,
  )


class _OfModel:
  """A jitted function of (model, ...) with a fixed model."""

  def __init__(self, function: Any, model: Any):
    self._function = function
    self._model = model

  def trace(self, *arguments: Any) -> Any:
    return self._function.trace(self._model, *arguments)


def abstract_key() -> Any:
  return jax.eval_shape(lambda: jax.random.key(0))


def tree_bytes(tree: Any) -> int:
  """Returns the bytes of a tree of arrays or shapes."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
