"""The log-probability of a text under a policy, as a reward.

What a translation model finds unlikely is often wrong, whoever wrote it.

Source: Prism (arXiv 2004.14564), which scores any text by a translation model's
log-probability per token; Fomicheva et al. (arXiv 2005.10608), who score a
system's outputs by its own.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax import types
from rest_jax.models import network
from rest_jax.models import policy as policy_lib


@dataclasses.dataclass(frozen=True)
class MeanLogProb:
  """Returns log pi(y | x) / |y| of a policy, in nats; |y| includes EOS.

  A forced first token, such as the target's language, is no part of y: the
  policy does not draw it, and long texts would hide it in the mean.

  Attributes:
    policy: the network.
  """

  policy: policy_lib.Policy

  @property
  def config(self) -> network.NetworkConfig:
    return self.policy.config

  @property
  def module(self) -> network.Transformer:
    return self.policy.module

  def logical_axes(self) -> types.Params:
    return self.policy.logical_axes()

  def of_hypotheses(
    self,
    params: types.Params,
    hidden: Float[Array, 'R T D'],
    targets: Int[Array, 'R T'],
  ) -> Float[Array, ' R']:
    """Returns numbers of at most 0; see `learned.TextModel`."""
    logits = self.module.apply({'params': params}, hidden, method='logits')
    log_probs = policy_lib.target_log_probs(jnp.asarray(logits), targets)
    ids = self.config.special_ids
    real = targets != ids.pad
    if ids.forced_first is not None:
      is_forced = targets[:, :1] == ids.forced_first
      real = real.at[:, :1].set(real[:, :1] & ~is_forced)
    total = jnp.sum(jnp.where(real, log_probs, 0.0), axis=1)
    return total / jnp.maximum(real.sum(axis=1), 1)
