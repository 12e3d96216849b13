"""Settings of a training."""

import dataclasses

import jax

from rest_jax import settings
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import averaging, loader, optimizers
from rest_jax.training import lora as lora_lib


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
    average: checkpoints whose mean is one more candidate for the best; None for
      none.
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
  average: averaging.AverageConfig | None = settings.added(default=None)

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
  def makes_policy_at_end(self) -> bool:
    """Whether the result is none of the checkpoints of the training."""
    return self.lora is not None or self.average is not None

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
    rows: loader.Rows,
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
      rows,
      tokens_per_batch=self.tokens_per_batch,
      buckets=self.packed_lengths if pack else self.buckets,
      seed=self.seed,
      row_multiple=num_parts * self.accumulation_steps,
      pack=pack,
      rows_here=None if mesh is None else mesh_lib.rows_here(mesh),
    )
