"""The train state and the train step, for every model and loss.

`trainer.jitted_step` compiles it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rest_jax import types
from rest_jax.losses import base
from rest_jax.training import lora as lora_lib


@flax.struct.dataclass
class TrainState:
  """Everything that a step reads and writes.

  Attributes:
    step: int32 scalar, optimiser steps taken.
    auxiliary: the loss's own state; models that it only reads are no part of
      it, see `Loss.reads`.
    optimizer: optax's states, of 'params' and, where the loss learns something
      beside them, of 'learned'.
  """

  step: jax.Array
  params: types.Params
  auxiliary: base.Auxiliary
  optimizer: Any


class TrainStep(Protocol):
  """A step of training, which `make_train_step` returns.

  The gradient is that of sum_m S_m / Z over the micro-batches m, with S the
  loss's weighted sum, so that it does not depend on how rows are divided among
  micro-batches or devices. Z is the same for all batches of an epoch: the mean
  of their normalisers. The mean gradient of the epoch's batches is then that of
  all its rows at once.
  """

  def __call__(
    self,
    state: TrainState,
    batch: types.Batch,
    learning_rate: jax.Array,
    dropout_key: jax.Array | None,
    expected_normalizer: jax.Array | None = None,
    given: Mapping[str, types.Params] | None = None,
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """Returns the new state and metrics.

    Args:
      state: what the step changes.
      batch: arrays whose first axis is that of the rows.
      learning_rate: float32 scalar.
      dropout_key: typed key, folded with the number of the step; None for no
        dropout.
      expected_normalizer: Z, float32 scalar; None for the batch's own
        normaliser, where there is but one batch.
      given: parameters of the models that the loss reads, by name.

    Returns:
      The state, and float32 scalars: the loss's own metrics and `loss`, over
      the batch's own counts, `gradient_norm` and `normalizer`.
    """
    ...


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
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    auxiliary=auxiliary,
    optimizer=init_optimizer(loss, optimizer, params, auxiliary.learned),
  )


def init_optimizer(
  loss: base.Loss,
  optimizer: optax.GradientTransformation,
  params: types.Params,
  learned: Any,
) -> dict[str, Any]:
  """Makes the optimiser's states: `TrainState.optimizer`."""
  states = {'params': optimizer.init(params)}
  if jax.tree.leaves(learned):
    own = loss.learned_optimizer() or optimizer
    states['learned'] = own.init(learned)
  return states


def make_train_step(
  *,
  model: Any,
  loss: base.Loss,
  optimizer: optax.GradientTransformation,
  learned_rate_factor: float = 1.0,
  accumulation_steps: int = 1,
  skip_bad: bool = False,
  lora: lora_lib.LoraConfig | None = None,
) -> TrainStep:
  """Returns the step, to be jitted.

  Args:
    optimizer: the optax transformation without its learning rate (see
      `OptimizerConfig.direction`). What the loss learns beside the parameters
      is updated apart, see `Loss.learned_optimizer`.
    learned_rate_factor: the learning rate of that over the parameters', where
      the loss does not give it one.
    accumulation_steps: number of micro-batches that a batch is cut into; must
      divide the number of its rows.
    skip_bad: whether a step whose loss or gradient is not finite leaves all as it
      was but the number of the step.
    lora: says how the parameters of the state, which are adapters then, and
      those of `given` at `lora.BASE` make the model's; None where the state has
      the model's.
  """
  update = _updater(optimizer, loss, learned_rate_factor)

  def whole(inputs: base.Inputs) -> base.Inputs:
    return inputs if lora is None else _merged(lora, inputs)

  def train_step(
    state,
    batch,
    learning_rate,
    dropout_key,
    expected_normalizer=None,
    given=None,
  ):
    batches = jax.tree.map(
      lambda x: x.reshape((accumulation_steps, -1, *x.shape[1:])), batch
    )
    inputs = base.Inputs(
      model=model,
      params=state.params,
      batch={},  # Of each micro-batch in turn.
      auxiliary=state.auxiliary,
      given=given or {},
    )
    if loss.needs_statistics:
      statistics = _statistics(loss, whole(inputs), batches)
      inputs = dataclasses.replace(inputs, statistics=statistics)
    key = None
    if dropout_key is not None:
      key = jax.random.fold_in(dropout_key, state.step)
    trained = {'params': state.params, 'learned': state.auxiliary.learned}
    gradient, output = _accumulate(
      lambda inputs: loss(whole(inputs)),
      trained,
      inputs,
      batches,
      key,
      accumulation_steps,
    )
    gradient, metrics = _normalized(gradient, output, expected_normalizer)
    trained, states = update(gradient, state.optimizer, trained, learning_rate)
    step = state.step + 1
    auxiliary = loss.update_auxiliary(
      state.auxiliary.replace(learned=trained['learned']),
      params=trained['params'],
      step=step,
    )
    new = TrainState(step, trained['params'], auxiliary, states)
    if skip_bad:
      new = _if_finite(metrics, new, state.replace(step=step))
    return new, metrics

  return train_step


def _normalized(
  gradient: Any, output: base.LossOutput, expected: jax.Array | None
) -> tuple[Any, dict[str, jax.Array]]:
  """Returns the gradient over its normaliser, and the metrics of the step."""
  own = 1.0 / jnp.where(output.normalizer > 0, output.normalizer, 1.0)
  scale = own
  if expected is not None:
    scale = 1.0 / jnp.asarray(expected, jnp.float32)
  gradient = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient)
  metrics = {
    name: total / jnp.where(count > 0, count, 1.0)
    for name, (total, count) in output.metrics.items()
  }
  metrics['loss'] = output.weighted_sum * own
  metrics['normalizer'] = output.normalizer
  metrics['gradient_norm'] = optax.tree.norm(gradient)
  return gradient, metrics


def _merged(lora: lora_lib.LoraConfig, inputs: base.Inputs) -> base.Inputs:
  """Inputs with the model's parameters in place of adapters."""
  given = dict(inputs.given)
  merge = functools.partial(lora.merge, given.pop(lora_lib.BASE))
  auxiliary = inputs.auxiliary
  if base.LAGGED in auxiliary.carried:
    lagged = merge(auxiliary.carried[base.LAGGED])
    carried = {**auxiliary.carried, base.LAGGED: lagged}
    auxiliary = dataclasses.replace(auxiliary, carried=carried)
  return dataclasses.replace(
    inputs, params=merge(inputs.params), auxiliary=auxiliary, given=given
  )


def _accumulate(loss, trained, inputs, batches, key, num_micro):
  """The gradient and the loss's output, summed over micro-batches."""

  def objective(trained, inputs):
    auxiliary = inputs.auxiliary.replace(learned=trained['learned'])
    output = loss(
      dataclasses.replace(inputs, params=trained['params'], auxiliary=auxiliary)
    )
    return output.weighted_sum, output

  def one(micro, batch):
    micro_key = None if key is None else jax.random.fold_in(key, micro)
    return jax.grad(objective, has_aux=True)(
      trained, dataclasses.replace(inputs, batch=batch, dropout_key=micro_key)
    )

  if num_micro == 1:
    return one(0, jax.tree.map(lambda x: x[0], batches))

  def add(total, numbered):
    return jax.tree.map(jnp.add, total, one(*numbered)), None

  shapes = jax.eval_shape(one, 0, jax.tree.map(lambda x: x[0], batches))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.lax.scan(add, zeros, (jnp.arange(num_micro), batches))[0]


def _if_finite(metrics, new: TrainState, old: TrainState) -> TrainState:
  """The new state, or the old one if loss or gradient is not finite."""
  is_good = jnp.isfinite(metrics['loss'])
  is_good &= jnp.isfinite(metrics['gradient_norm'])
  return jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, old)


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Means over steps, those of the loss weighted by each batch's normaliser."""
  weights = np.array([of_step['normalizer'] for of_step in metrics])
  if not weights.sum() > 0:
    weights = np.ones(len(metrics))
  means = {}
  for name in metrics[0] if metrics else ():
    values = [float(of_step[name]) for of_step in metrics]
    is_of_step = name in ('normalizer', 'gradient_norm')
    mean = np.average(values, weights=None if is_of_step else weights)
    means[name] = float(mean)
  return means


def _updater(
  optimizer: optax.GradientTransformation,
  loss: base.Loss,
  learned_rate_factor: float,
) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
  """Returns what updates the parameters and, apart, what the loss learns."""
  learned_optimizer = loss.learned_optimizer()

  def update(gradient, states, trained, learning_rate):
    updated, new_states = dict(trained), {}
    for name, state in states.items():
      rule, rate = optimizer, learning_rate
      if name == 'learned' and learned_optimizer is not None:
        rule, rate = learned_optimizer, jnp.ones_like(learning_rate)
      elif name == 'learned':
        rate = learning_rate * learned_rate_factor
      moved, new_states[name] = rule.update(
        gradient[name], state, trained[name]
      )
      moved = jax.tree.map(lambda u, by=rate: u * by.astype(u.dtype), moved)
      updated[name] = optax.apply_updates(trained[name], moved)
    return updated, new_states

  return update


def _statistics(loss, inputs, batches):
  """The loss's statistics over all micro-batches; no gradient flows."""

  def one(batch):
    return loss.batch_statistics(dataclasses.replace(inputs, batch=batch))

  stacked = jax.lax.map(one, batches)  # leaves [M, B/M, ...]
  flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), stacked)
  return jax.lax.stop_gradient(loss.reduce_statistics(flat))
