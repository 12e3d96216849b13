"""The interface of all losses.

Eq. 2 is J(theta) = E_{(x,y)~D_g}[F(x,y;tau) L(x,y;theta)]. A loss computes L
for a batch to which F has already been applied (rows that fail have weight 0).
It declares

  columns    stored columns that it reads besides the tokens
  needs      models that it needs besides the policy
  reads      models of `needs` that every step reads and no step changes
  layout     how rows of D_g are grouped into a batch
  auxiliary  its own state in the train state: `learned` leaves are optimised
             with the policy, `carried` leaves are updated by rule
  statistics quantities of the *global* batch, computed in a first pass

so that a new loss needs no change in the trainer.
"""

from collections.abc import Mapping
import dataclasses
import enum
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np
import optax

from rest_jax import types
from rest_jax.models import scalar

Metric = tuple[jax.Array, jax.Array]


class LossOutput(NamedTuple):
  """Result of a loss for one micro-batch.

  Attributes:
    weighted_sum: scalar to differentiate. The step divides it by the mean
      normaliser over the batches of an epoch, not by that of the batch, so that
      every token (or pair, or row) has the same weight in every batch, for any
      bucket and number of rows.
    normalizer: scalar of this batch; reported losses are divided by it. Both
      are summed before dividing, so results do not depend on micro-batches,
      padding or hosts.
    metrics: name -> (sum, count); reported as sum / count over the global
      batch.
  """

  weighted_sum: Float[Array, '']
  normalizer: Float[Array, '']
  metrics: dict[str, Metric]


class Layout(enum.Enum):
  """How rows of D_g are grouped into rows of a batch.

  ROWS: every sample is a row; decoder arrays are [B, T].
  BEST_WORST: a row is a source with its best kept and its worst eligible
    sample; decoder arrays and row columns are [2 * B, ...], best before worst,
    encoder arrays [B, S].
  """

  ROWS = 'rows'
  BEST_WORST = 'best_worst'

  @property
  def hypotheses_per_source(self) -> int:
    return {Layout.ROWS: 1, Layout.BEST_WORST: 2}[self]


@flax.struct.dataclass
class Auxiliary:
  """The part of the train state that belongs to a loss.

  Attributes:
    learned: tree of arrays that the optimiser updates with the policy.
    carried: tree of arrays that `update_auxiliary` changes after each step,
      such as a lagged policy.
  """

  learned: Any = flax.struct.field(default_factory=dict)
  carried: Any = flax.struct.field(default_factory=dict)


LAGGED = 'lagged'  # The key of a lagged policy in `Auxiliary.carried`.


def with_lagged(params: types.Params) -> Auxiliary:
  """Returns a state whose lagged policy is a copy of the parameters."""
  return Auxiliary(carried={LAGGED: jax.tree.map(jnp.array, params)})


def renew_lagged(
  auxiliary: Auxiliary, *, params: types.Params, step: jax.Array, lag: int
) -> Auxiliary:
  """Replaces the lagged policy by the parameters in every `lag`th step."""
  is_due = step % lag == 0
  lagged = jax.tree.map(
    lambda new, old: jnp.where(is_due, new, old),
    params,
    auxiliary.carried[LAGGED],
  )
  return dataclasses.replace(auxiliary, carried={LAGGED: lagged})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
  """Inputs of a loss: one micro-batch and the models that it reads.

  Attributes:
    model: the trained model (`Policy`, or `ScalarModel` for a regression).
    params: parameters of the model; gradients are taken with respect to them
      and to `auxiliary.learned`.
    batch: T5X's keys and the declared columns, with F applied: rows that fail
      have `decoder_loss_weights` 0.
    auxiliary: state of the loss.
    given: parameters of the models named in `Loss.reads`.
    statistics: result of `reduce_statistics`, if the loss needs it.
    dropout_key: typed key, or None for no dropout.
  """

  model: Any
  params: types.Params
  batch: types.Batch
  auxiliary: Auxiliary = dataclasses.field(default_factory=Auxiliary)
  given: Mapping[str, types.Params] = dataclasses.field(default_factory=dict)
  statistics: Any = None
  dropout_key: jax.Array | None = None

  @property
  def targets(self) -> Int[Array, 'B T']:
    return jnp.asarray(self.batch['decoder_target_tokens'])

  @property
  def weights(self) -> Float[Array, 'B T']:
    return jnp.asarray(self.batch['decoder_loss_weights'])

  @property
  def is_token(self) -> Bool[Array, 'B T']:
    """True up to the last token of a hypothesis, False after it."""
    return self.targets != self.model.config.special_ids.pad

  def logits(self) -> Float[Array, 'B T V']:
    """Logits of the trained model, with dropout."""
    return self.model.logits(
      self.params, self.batch, dropout_key=self.dropout_key
    )

  def log_probs(self) -> Float[Array, 'B T']:
    """log pi(y_t | y_<t, x) of the trained model, with dropout."""
    return self.model.log_probs(
      self.params, self.batch, dropout_key=self.dropout_key
    )

  def values(self, params: types.Params) -> Float[Array, 'B T']:
    """V(s_t) of a value function; s_t is the source and the tokens before t.

    Args:
      params: parameters of the value function, which has the sizes of the
        model.
    """
    return scalar.ScalarModel(self.model.config).values(params, self.batch)


# The columns of D_g that a loss may declare.
COLUMNS = {
  'rewards': 'float32 [B*N], normalised reward R(x, y)',
  'sample_log_probs': 'float32 [B*N], nats, of the policy that sampled y',
  'source_ids': 'int32 [B*N], row of x in the store of its sources',
}

# The models that a loss may need. All have the sizes of the trained policy.
GIVEN = {
  'bc': 'the BC policy, a `Policy`',
  'value': 'the value function of D_g, a `ScalarModel`',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
  """Base of all losses; see the module's docstring.

  Class attributes:
    name: name of the loss in results and file names.
    columns: stored columns that it reads, keys of `COLUMNS`.
    layout: how rows are grouped.
    needs_statistics: whether `batch_statistics` must be called first.
    needs: models that it needs, keys of `GIVEN`.
    packable: whether several rows of D_g may share a row of the batch: true for
      a sum of independent token losses.
  """

  name: ClassVar[str] = ''
  columns: ClassVar[tuple[str, ...]] = ()
  layout: ClassVar[Layout] = Layout.ROWS
  needs_statistics: ClassVar[bool] = False
  needs: ClassVar[tuple[str, ...]] = ()
  packable: ClassVar[bool] = False

  @property
  def reads(self) -> tuple[str, ...]:
    """The models of `needs` that every step reads (`Inputs.given`)."""
    return self.needs

  def decoder_start(self, vocab_size: int) -> int | None:
    """Returns the decoder's first input for sampling from the trained policy.

    Args:
      vocab_size: vocabulary size of the network.

    Returns:
      Token id, or None for that of the network.
    """
    del vocab_size
    return None

  def for_training(self, least_steps: int) -> 'Loss':
    """Returns the loss with settings that depend on the length of training.

    Args:
      least_steps: minimum number of optimiser steps of the training.
    """
    del least_steps
    return self

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    """Returns the contribution of each row to the normaliser of its batch.

    The sum over an epoch equals the sum of `LossOutput.normalizer`.

    Args:
      lengths: int [n, N], target tokens of the N hypotheses of a row.
      weights: float32 [n, N], weights of the hypotheses.
      rewards: float32 [n, N], rewards of the hypotheses.

    Returns:
      Float [n]; by default the number of weighted tokens.
    """
    del rewards
    return (lengths * weights).sum(axis=1)

  def learned_optimizer(self) -> optax.GradientTransformation | None:
    """Returns the optimiser of `auxiliary.learned`, with its learning rate.

    Returns:
      None for the optimiser and learning rate of the model's parameters, with
      separate moments and clipping, which suits a network. Scalars need their
      own optimiser.
    """
    return None

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> Auxiliary:
    """Returns the initial auxiliary state.

    Args:
      params: initial parameters of training.
      given: parameters of the models in `needs`, by name.

    Returns:
      The state; empty by default.
    """
    del params, given
    return Auxiliary()

  def update_auxiliary(
    self, auxiliary: Auxiliary, *, params: types.Params, step: jax.Array
  ) -> Auxiliary:
    """Updates `carried` after an optimiser step.

    Args:
      auxiliary: the state; the optimiser has already updated `learned`.
      params: the updated parameters.
      step: int32 scalar, number of optimiser steps so far.

    Returns:
      The new state, of the same structure.
    """
    del params, step
    return auxiliary

  def batch_statistics(self, inputs: Inputs) -> Any:
    """Computes quantities per row of one micro-batch, without gradients.

    Args:
      inputs: inputs without statistics.

    Returns:
      A tree of arrays with the first axis of the decoder arrays. The trainer
      concatenates the trees of all micro-batches.
    """
    raise NotImplementedError(f'{type(self).__name__} has no statistics')

  def reduce_statistics(self, statistics: Any) -> Any:
    """Reduces the quantities of the global batch.

    Args:
      statistics: tree of `batch_statistics`, for the whole global batch.

    Returns:
      `Inputs.statistics` of every micro-batch.
    """
    return statistics

  def __call__(self, inputs: Inputs) -> LossOutput:
    """Computes the loss of one micro-batch."""
    raise NotImplementedError
