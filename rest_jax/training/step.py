"""The train state and the jitted train step, for every model and loss."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rest_jax import types
from rest_jax.losses import base


@flax.struct.dataclass
class TrainState:
  """Everything that a step reads and writes.

  Attributes:
    step: int32 scalar, optimiser steps taken.
    params: the model's parameters.
    auxiliary: the loss's own state.
    optimizer: optax's state for `{'params', 'learned'}`.
  """

  step: jax.Array
  params: types.Params
  auxiliary: base.Auxiliary
  optimizer: Any


TrainStep = Callable[
  [TrainState, types.Batch, jax.Array, jax.Array | None],
  tuple[TrainState, dict[str, Any]],
]


def init_state(
  params: types.Params,
  loss: base.Loss,
  optimizer: optax.GradientTransformation,
  given: Mapping[str, types.Params],
) -> TrainState:
  """Makes the state that training starts from (traceable)."""
  for name in loss.needs:
    if name not in given:
      raise ValueError(
        f'{type(loss).__name__} needs {base.GIVEN[name]}; none was given. It is '
        'for Improve steps: BC itself is trained by the loss BC.'
      )
  auxiliary = loss.init_auxiliary(params, given)
  trained = {'params': params, 'learned': auxiliary.learned}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    auxiliary=auxiliary,
    optimizer=optimizer.init(trained),
  )


def make_train_step(
  *,
  model: Any,
  loss: base.Loss,
  optimizer: optax.GradientTransformation,
  row_filter: base.RowFilter | None = None,
  accumulation_steps: int = 1,
  skip_bad: bool = False,
) -> TrainStep:
  """Returns `step(state, batch, learning_rate, dropout_key)`, to be jitted.

  The gradient is that of sum_m S_m / sum_m Z_m over the micro-batches m, with S
  the loss's weighted sum and Z its normaliser, so that it does not depend on how
  rows are divided among micro-batches or devices.

  Args:
    model: `Policy` or `ScalarModel`.
    loss: the loss.
    optimizer: the optax transformation without its learning rate (see
      `OptimizerConfig.direction`).
    row_filter: applies F(x, y; tau) inside the step (Eq. 2), or None.
    accumulation_steps: number of micro-batches that a batch is cut into; must
      divide the number of its rows.
    skip_bad: whether a step whose loss or gradient is not finite leaves all as it
      was but the number of the step.

  Returns:
    The step, which returns the new state and metrics. Its learning rate is a
    float32 scalar, its dropout key a typed key, which it folds with the number
    of the step, or None for no dropout. Metrics are float32 scalars: the loss's
    own, `loss`, `gradient_norm` and `normalizer`.
  """

  def objective(trained, state, batch, statistics, key):
    auxiliary = state.auxiliary.replace(learned=trained['learned'])
    output = loss(
      model=model,
      params=trained['params'],
      auxiliary=auxiliary,
      batch=batch,
      statistics=statistics,
      dropout_key=key,
    )
    return output.weighted_sum, output

  gradient_of = jax.grad(objective, has_aux=True)

  def accumulate(trained, state, batches, statistics, key):
    def one(micro, batch):
      micro_key = None if key is None else jax.random.fold_in(key, micro)
      return gradient_of(trained, state, batch, statistics, micro_key)

    if accumulation_steps == 1:
      return one(0, jax.tree.map(lambda x: x[0], batches))

    def add(total, numbered):
      return jax.tree.map(jnp.add, total, one(*numbered)), None

    shapes = jax.eval_shape(one, 0, jax.tree.map(lambda x: x[0], batches))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    numbered = (jnp.arange(accumulation_steps), batches)
    return jax.lax.scan(add, zeros, numbered)[0]

  def train_step(state, batch, learning_rate, dropout_key):
    if row_filter is not None:
      batch = row_filter(batch)
    batches = jax.tree.map(
      lambda x: x.reshape((accumulation_steps, -1, *x.shape[1:])), batch
    )
    statistics = None
    if loss.needs_statistics:
      statistics = _statistics(model, loss, state, batches)
    key = None
    if dropout_key is not None:
      key = jax.random.fold_in(dropout_key, state.step)
    trained = {'params': state.params, 'learned': state.auxiliary.learned}
    gradient, output = accumulate(trained, state, batches, statistics, key)

    scale = 1.0 / jnp.where(output.normalizer > 0, output.normalizer, 1.0)
    gradient = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient)
    updates, optimizer_state = optimizer.update(
      gradient, state.optimizer, trained
    )
    updates = jax.tree.map(lambda u: u * learning_rate.astype(u.dtype), updates)
    # Of the same structure, which optax's annotation does not tell.
    trained = cast(dict[str, Any], optax.apply_updates(trained, updates))
    step = state.step + 1
    auxiliary = loss.update_auxiliary(
      state.auxiliary.replace(learned=trained['learned']),
      params=trained['params'],
      step=step,
    )
    metrics = {
      name: total / jnp.where(count > 0, count, 1.0)
      for name, (total, count) in output.metrics.items()
    }
    metrics['loss'] = output.weighted_sum * scale
    metrics['normalizer'] = output.normalizer
    metrics['gradient_norm'] = optax.tree.norm(gradient)
    new = TrainState(step, trained['params'], auxiliary, optimizer_state)
    if skip_bad:
      is_good = jnp.isfinite(metrics['loss'])
      is_good &= jnp.isfinite(metrics['gradient_norm'])
      new = jax.tree.map(
        lambda new, old: jnp.where(is_good, new, old),
        new,
        state.replace(step=step),
      )
    return new, metrics

  return train_step


def _statistics(model, loss, state, batches):
  """The loss's statistics over all micro-batches; no gradient flows."""

  def one(batch):
    return loss.batch_statistics(
      model=model,
      params=state.params,
      auxiliary=state.auxiliary,
      batch=batch,
    )

  stacked = jax.lax.map(one, batches)  # leaves [M, B/M, ...]
  flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), stacked)
  return jax.lax.stop_gradient(loss.reduce_statistics(flat))
