"""The interface of every loss, made for those that need more than a batch.

Eq. 2 is J(theta) = E_{(x,y)~D_g}[F(x,y;tau) L(x,y;theta)]. A loss computes L for
a batch to which F has been applied already (rows that fail have weight 0). It
declares up front

  columns    which stored columns it reads beside the tokens
  needs      which other models it is given beside the policy, and of these
  reads      those that every step reads and none changes
  layout     how D_g's rows are grouped into a batch
  auxiliary  state that lives in the train state beside the policy: `learned`
             leaves are optimised with it, `carried` ones are updated by rule
  statistics quantities of the *global* batch, gathered in a first pass

so that a new loss needs no change in the trainer.
"""

from collections.abc import Callable, Mapping
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
  """What a loss returns for one micro-batch.

  Attributes:
    weighted_sum: scalar, the sum whose gradient is taken. The step divides it
      by the normaliser that a batch has on average over an epoch, not by its
      own: a token, or whatever the normaliser counts, then weighs alike in
      every batch, whatever its bucket and number of rows.
    normalizer: scalar, the batch's own: reported losses are divided by it.
      Summing both before dividing makes micro-batches, padding and hosts add up
      exactly.
    metrics: name -> (sum, count); reported as sum / count over the global batch.
  """

  weighted_sum: Float[Array, '']
  normalizer: Float[Array, '']
  metrics: dict[str, Metric]


class Layout(enum.Enum):
  """How rows of D_g are grouped.

  ROWS: every sample is a row of its own; decoder arrays are [B, T].
  BEST_WORST: a row is a source with its best and its worst kept sample; decoder
    arrays and row columns are [2 * B, ...], best before worst, encoder arrays
    [B, S].
  """

  ROWS = 'rows'
  BEST_WORST = 'best_worst'

  @property
  def hypotheses_per_source(self) -> int:
    return {Layout.ROWS: 1, Layout.BEST_WORST: 2}[self]


@flax.struct.dataclass
class Auxiliary:
  """A loss's own state in the train state.

  Attributes:
    learned: a tree of arrays that the optimiser updates with the policy.
    carried: a tree that `update_auxiliary` changes by rule after each step,
      such as a lagged policy.
  """

  learned: Any = flax.struct.field(default_factory=dict)
  carried: Any = flax.struct.field(default_factory=dict)


LAGGED = 'lagged'  # The key of a lagged policy in `Auxiliary.carried`.


def with_lagged(params: types.Params) -> Auxiliary:
  """Returns a state that holds a copy of the parameters as the lagged policy."""
  return Auxiliary(carried={LAGGED: jax.tree.map(jnp.array, params)})


def renew_lagged(
  auxiliary: Auxiliary, *, params: types.Params, step: jax.Array, lag: int
) -> Auxiliary:
  """Makes the parameters the lagged policy in every `lag`th step."""
  is_due = step % lag == 0
  lagged = jax.tree.map(
    lambda new, old: jnp.where(is_due, new, old),
    params,
    auxiliary.carried[LAGGED],
  )
  return dataclasses.replace(auxiliary, carried={LAGGED: lagged})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
  """What a loss computes from: one micro-batch and the models it reads.

  Attributes:
    model: the model that is trained (`Policy`, or `ScalarModel` for a
      regression).
    params: its parameters; the gradient is taken with respect to them and to
      `auxiliary.learned`.
    batch: T5X's keys and the declared columns, F applied: the
      `decoder_loss_weights` of rows that fail are 0.
    auxiliary: the loss's state.
    given: parameters of the models named in `Loss.reads`, which no step changes.
    statistics: what `reduce_statistics` returned, if the loss needs it.
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
    return self.targets != types.PAD_ID

  def logits(self) -> Float[Array, 'B T V']:
    """Logits of the model that is trained, with its dropout."""
    return self.model.logits(
      self.params, self.batch, dropout_key=self.dropout_key
    )

  def log_probs(self) -> Float[Array, 'B T']:
    """log pi(y_t | y_<t, x) of the model that is trained, with its dropout."""
    return self.model.log_probs(
      self.params, self.batch, dropout_key=self.dropout_key
    )

  def values(self, params: types.Params) -> Float[Array, 'B T']:
    """V(s_t), s_t being the source and the tokens before t, of a value function.

    Args:
      params: its parameters; it has the sizes of the model that is trained.
    """
    return scalar.ScalarModel(self.model.config).values(params, self.batch)


# The columns of D_g that a loss may declare, and what they hold.
COLUMNS = {
  'rewards': 'float32 [B*N], normalised reward R(x, y)',
  'sample_log_probs': 'float32 [B*N], nats, of the policy that sampled y',
  'source_ids': 'int32 [B*N], row of x in the store of its sources',
}

# The models that a loss may ask for, and whose parameters it is given. All have
# the sizes of the policy that is trained.
GIVEN = {
  'bc': 'the BC policy, a `Policy`',
  'value': 'the value function of D_g, a `ScalarModel`',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
  """Base of all losses; see the module's docstring.

  Class attributes:
    name: the word for it in results and file names.
    columns: the stored columns it reads, keys of `COLUMNS`.
    layout: how rows are grouped.
    needs_statistics: whether `batch_statistics` must be called first.
    needs: the models that it must be given, keys of `GIVEN`.
    packable: whether several rows of D_g may share a row of the batch: true of
      a sum over tokens that looks at each of them alone.
  """

  name: ClassVar[str] = ''
  columns: ClassVar[tuple[str, ...]] = ()
  layout: ClassVar[Layout] = Layout.ROWS
  needs_statistics: ClassVar[bool] = False
  needs: ClassVar[tuple[str, ...]] = ()
  packable: ClassVar[bool] = False

  @property
  def reads(self) -> tuple[str, ...]:
    """The models of `needs` that a step reads: `Inputs.given`."""
    return self.needs

  def decoder_start(self, vocab_size: int) -> int:
    """The decoder's first input when the policy it trains is used.

    Args:
      vocab_size: of the network.
    """
    del vocab_size
    return types.DECODER_START_ID

  def for_training(self, least_steps: int) -> 'Loss':
    """Returns the loss with the settings that depend on the training's length.

    Args:
      least_steps: optimiser steps that are taken however early training stops.
    """
    del least_steps
    return self

  def row_normalizers(
    self, *, lengths: np.ndarray, weights: np.ndarray, rewards: np.ndarray
  ) -> np.ndarray:
    """What each row of the data adds to the normaliser of a batch.

    Their sum over the batches of an epoch is that of `LossOutput.normalizer`.

    Args:
      lengths: int [n, N], target tokens of the N hypotheses of a row.
      weights: float32 [n, N], of the hypotheses.
      rewards: float32 [n, N], of the hypotheses.

    Returns:
      Float [n]; by default the number of weighted tokens.
    """
    del rewards
    return (lengths * weights).sum(axis=1)

  def learned_optimizer(self) -> optax.GradientTransformation | None:
    """How `auxiliary.learned` is updated, learning rate included.

    Returns:
      None for the optimiser and learning rate of the model's parameters, with
      moments and clipping apart from theirs: right for a network. Scalars want
      an optimiser of their own.
    """
    return None

  def init_auxiliary(
    self, params: types.Params, given: Mapping[str, types.Params]
  ) -> Auxiliary:
    """Makes the auxiliary state.

    Args:
      params: parameters that training starts from.
      given: those of the models that the loss declares in `needs`, by name.

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
      auxiliary: the state, `learned` already updated by the optimiser.
      params: the updated parameters.
      step: int32 scalar, number of optimiser steps taken.

    Returns:
      The new state, of the same structure.
    """
    del params, step
    return auxiliary

  def batch_statistics(self, inputs: Inputs) -> Any:
    """Computes row-wise quantities of one micro-batch (no gradient flows).

    Args:
      inputs: without statistics.

    Returns:
      A tree of arrays whose first axis is that of the decoder arrays; the
      trainer concatenates those of all micro-batches.
    """
    raise NotImplementedError(f'{type(self).__name__} declares no statistics')

  def reduce_statistics(self, statistics: Any) -> Any:
    """Reduces the concatenated row-wise quantities of the global batch.

    Args:
      statistics: the tree of `batch_statistics`, over the whole global batch.

    Returns:
      What every micro-batch's call of the loss receives as `statistics`.
    """
    return statistics

  def __call__(self, inputs: Inputs) -> LossOutput:
    """Computes the loss of one micro-batch."""
    raise NotImplementedError


RowFilter = Callable[[types.Batch], types.Batch]
