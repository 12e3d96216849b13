"""Policy and critic in one train state, and what updates them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rest_jax import types
from rest_jax.losses import base as losses_base
from rest_jax.losses import ops
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.online import objective
from rest_jax.online import ppo_config as config_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import optimizers
from rest_jax.training import step as step_lib


@functools.partial(
  jax.jit, static_argnames=('kl_coefficient', 'discount', 'gae_lambda')
)
def credit(
  log_probs: Float[Array, 'n T'],
  bc_log_probs: Float[Array, 'n T'],
  values: Float[Array, 'n T'],
  rewards: Float[Array, ' n'],
  is_token: Bool[Array, 'n T'],
  *,
  kl_coefficient: float,
  discount: float,
  gae_lambda: float,
) -> tuple[Float[Array, 'n T'], Float[Array, 'n T']]:
  """Returns whitened advantages and the critic's targets G_t = A_t + V(s_t).

  See `ops.penalised_rewards` and `ops.gae` for the arguments; numbers after the last token are 0.
  """
  token_rewards = ops.penalised_rewards(
    rewards, log_probs - bc_log_probs, is_token, kl_coefficient
  )
  found = ops.gae(token_rewards, values, is_token, discount, gae_lambda)
  return ops.whiten(found, is_token), found + values


def initial_state(
  config: config_lib.PPOConfig,
  policy: policy_lib.Policy,
  bc_params: types.Params,
  mesh_config: mesh_lib.MeshConfig,
  mesh: jax.sharding.Mesh,
  seed: int,
) -> step_lib.TrainState:
  """The BC policy and a critic that starts from it, placed by the rules."""

  def place(model, params):
    # A copy: the step donates its state, and the caller keeps its parameters.
    return mesh_lib.put_params(
      jax.tree.map(lambda x: jnp.array(x, copy=True), params),
      model.logical_axes(),
      mesh,
      mesh_config.rules,
    )

  critic = scalar.ScalarModel(policy.config)
  params = place(policy, bc_params)
  learned = {
    objective.VALUE: place(
      critic, critic.init_from_policy(bc_params, jax.random.key(seed))
    )
  }
  state = step_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    auxiliary=losses_base.Auxiliary(learned=learned),
    optimizer=step_lib.init_optimizer(
      config.loss, config.optimizer.direction(), params, learned
    ),
  )
  # Moments lie as the parameters that they are made from; counters do not yet.
  return jax.tree.map(
    lambda x: (
      x
      if isinstance(x.sharding, jax.sharding.NamedSharding)
      else jax.device_put(x, mesh_lib.replicated(mesh))
    ),
    state,
  )


@functools.lru_cache(maxsize=4)
def jitted_step(
  policy: policy_lib.Policy,
  loss: objective.ClippedObjective,
  optimizer_config: optimizers.OptimizerConfig,
  value_factor: float,
  accumulation_steps: int,
  mesh_config: mesh_lib.MeshConfig,
) -> step_lib.TrainStep:
  """Returns one step for all trainings alike; see `step.make_train_step`.

  Args:
    policy: the network.
    loss: the loss.
    optimizer_config: without its schedule.
    value_factor: the critic's learning rate over the policy's.
    accumulation_steps: micro-batches a step.
    mesh_config: what the rules that are read while tracing come from.
  """
  del mesh_config  # Of the key alone.
  train_step = step_lib.make_train_step(
    model=policy,
    loss=loss,
    optimizer=optimizer_config.direction(),
    learned_rate_factor=value_factor,
    accumulation_steps=accumulation_steps,
  )
  return jax.jit(train_step, donate_argnums=0)
