"""What each token of a sampled hypothesis is credited with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Added to the variance before it divides.
_EPSILON = 1e-8


def token_rewards(
  log_probs: Float[Array, 'B T'],
  bc_log_probs: Float[Array, 'B T'],
  rewards: Float[Array, ' B'],
  is_token: Bool[Array, 'B T'],
  kl_coefficient: float,
) -> Float[Array, 'B T']:
  """The reward at the last token, less a penalty for leaving BC at each.

  r_t = 1[t = T] R - kl (log pi(y_t | y_<t, x) - log pi_BC(y_t | y_<t, x))

  The sum of the differences over a hypothesis of pi is an unbiased estimate of
  KL(pi || pi_BC).

  Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences
  (arXiv 1909.08593), Eq. 2, with the penalty of each token at that token.

  Args:
    log_probs: of the policy that sampled, in nats.
    bc_log_probs: of the BC policy, in nats.
    rewards: R(x, y), higher is better.
    is_token: True up to the last token of a hypothesis, False after it.
    kl_coefficient: reward a nat, at least 0.

  Returns:
    r_t, 0 after the last token.
  """
  follows = jnp.pad(is_token[:, 1:], ((0, 0), (0, 1)))
  earned = jnp.where(follows, 0.0, rewards[:, None])
  penalty = kl_coefficient * (log_probs - bc_log_probs)
  return jnp.where(is_token, earned - penalty, 0.0)


def gae(
  rewards: Float[Array, 'B T'],
  values: Float[Array, 'B T'],
  is_token: Bool[Array, 'B T'],
  discount: float,
  gae_lambda: float,
) -> Float[Array, 'B T']:
  """Generalised advantage estimates.

  A_t = sum_{l >= 0} (gamma lambda)^l delta_{t+l}
  delta_t = r_t + gamma V(s_{t+1}) - V(s_t)

  The value after the last token is 0, also where a hypothesis was cut at the
  maximum length: nothing more is earned. With lambda = 1 it is the discounted
  return less V(s_t), with lambda = 0 it is delta_t.

  Source: Schulman et al., High-Dimensional Continuous Control Using Generalized
  Advantage Estimation (arXiv 1506.02438), Eq. 16.

  Args:
    rewards: r_t.
    values: V(s_t), of the source and the tokens before t.
    is_token: True up to the last token of a hypothesis, False after it.
    discount: gamma, in [0, 1].
    gae_lambda: lambda, in [0, 1].

  Returns:
    A_t, 0 after the last token.
  """
  one_more = ((0, 0), (0, 1))
  follows = jnp.pad(is_token[:, 1:], one_more)  # another token comes after t
  later = jnp.where(follows, jnp.pad(values[:, 1:], one_more), 0.0)
  deltas = jnp.where(is_token, rewards + discount * later - values, 0.0)

  def add(after: Array, delta: Array) -> tuple[Array, Array]:
    advantage = delta + discount * gae_lambda * after
    return advantage, advantage

  _, advantages = jax.lax.scan(
    add, jnp.zeros_like(deltas[:, 0]), deltas.T, reverse=True
  )
  return jnp.where(is_token, advantages.T, 0.0)


def whiten(
  values: Float[Array, 'B T'], is_token: Bool[Array, 'B T']
) -> Float[Array, 'B T']:
  """Shifts and scales to mean 0 and variance 1 over all real tokens.

  Args:
    values: one a token.
    is_token: which positions count.

  Returns:
    The result, 0 elsewhere.
  """
  count = jnp.maximum(is_token.sum(), 1)
  mean = jnp.where(is_token, values, 0.0).sum() / count
  centred = jnp.where(is_token, values - mean, 0.0)
  variance = jnp.square(centred).sum() / count
  return centred * jax.lax.rsqrt(variance + _EPSILON)
