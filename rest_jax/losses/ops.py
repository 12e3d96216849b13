"""The maths of the losses: arrays in, arrays out.

All functions are pure, can be compiled and differentiated, and take masks as
arguments. Arrays are per token, [B, T], unless stated otherwise; log is
natural. Nothing here depends on models, batches or columns.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Added to the variance before dividing by it.
_EPSILON = 1e-8


def cross_entropy(
  logits: Float[Array, 'B T V'],
  targets: Int[Array, 'B T'],
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> tuple[Float[Array, 'B T'], Float[Array, 'B T']]:
  """Computes the regularised and the plain cross-entropy of the targets.

  Smoothing replaces the target by (1 - s) one_hot + s / (V - 1) elsewhere, and
  subtracts its entropy, so that a perfect model has loss 0. The z-loss adds
  z (log sum_v exp logit_v)^2.

  Source: T5X, `cross_entropy_with_logits`.

  Args:
    logits: float32.
    targets: token ids.
    label_smoothing: s, in [0, 1).
    z_loss: z, at least 0.

  Returns:
    The loss and - log softmax(logits)[target], in nats.
  """
  # One reduction over the vocabulary is shared by all three terms.
  log_z = jax.nn.logsumexp(logits, axis=-1)  # [B, T]
  # A masked sum: the gradient of a look-up would be a scatter.
  is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
  nll = log_z - jnp.where(is_target, logits, 0.0).sum(-1)
  loss = nll
  if label_smoothing:
    vocabulary = logits.shape[-1]
    confidence = 1.0 - label_smoothing
    low = label_smoothing / (vocabulary - 1)
    target_entropy = -(
      confidence * jnp.log(confidence)
      + (vocabulary - 1) * low * jnp.log(low + 1e-20)
    )
    # -sum_v q_v log p_v with q = low everywhere and confidence at the target.
    uniform = vocabulary * log_z - logits.sum(-1)
    loss = low * uniform + (confidence - low) * nll - target_entropy
  if z_loss:
    loss = loss + z_loss * jnp.square(log_z)
  return loss, nll


def entropy(log_probs: Float[Array, '*R V']) -> Float[Array, '*R']:
  """Returns - sum_v p_v log p_v, in nats; every p_v must be above 0."""
  return -(jnp.exp(log_probs) * log_probs).sum(-1)


def kl_divergence(
  log_p: Float[Array, '*R V'], log_q: Float[Array, '*R V']
) -> Float[Array, '*R']:
  """Returns KL(p || q) = sum_v p_v (log p_v - log q_v), in nats."""
  return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


def tokens_ahead(is_token: Bool[Array, 'B T']) -> Int[Array, 'B T']:
  """Returns T - t, the number of tokens after t; -1 after the last."""
  return jnp.cumsum(is_token[:, ::-1], axis=1)[:, ::-1] - 1


def monte_carlo_returns(
  rewards: Float[Array, ' B'], is_token: Bool[Array, 'B T'], discount: float
) -> Float[Array, 'B T']:
  """Returns G_t = gamma^(T-t) R for every token t of a hypothesis, 0 after it.

  Args:
    rewards: R of each hypothesis.
    is_token: True up to the last token, False after it.
    discount: gamma.
  """
  returns = rewards[:, None] * jnp.power(discount, tokens_ahead(is_token))
  return jnp.where(is_token, returns, 0.0)


def discounted_sums(
  rewards: Float[Array, 'B T'], future_steps: int, discount: float
) -> Float[Array, 'B T']:
  """Returns Q_t = sum_{j=0..k} gamma^j r_{t+j}, r = 0 after the last position.

  Source: GOLD, Pang and He (2021), section 3.2.

  Args:
    rewards: r_t, 0 outside the hypothesis.
    future_steps: k.
    discount: gamma.
  """
  length = rewards.shape[-1]
  total = rewards
  for ahead in range(1, min(future_steps, length - 1) + 1):
    shifted = jnp.pad(rewards[:, ahead:], ((0, 0), (0, ahead)))
    total = total + discount**ahead * shifted
  return total


def gold_credit(
  log_probs: Float[Array, 'B T'],
  returns: Float[Array, 'B T'],
  min_importance: float,
) -> tuple[Float[Array, 'B T'], Float[Array, 'B T']]:
  """Returns clip(pi~(y_t), u, 1) Q_t without gradient, and its first factor.

  Source: GOLD, Pang and He (2021), Eq. 4.

  Args:
    log_probs: log pi~(y_t), in nats.
    returns: Q_t.
    min_importance: u, in [0, 1].
  """
  importance = jnp.clip(jnp.exp(log_probs), min_importance, 1.0)
  return jax.lax.stop_gradient(importance * returns), importance


def last_token_rewards(
  rewards: Float[Array, ' B'], is_token: Bool[Array, 'B T']
) -> Float[Array, 'B T']:
  """Returns r_t = 1[t = T] R: the last token gets the reward."""
  follows = jnp.pad(is_token[:, 1:], ((0, 0), (0, 1)))
  return jnp.where(follows, 0.0, rewards[:, None])


def penalised_rewards(
  rewards: Float[Array, ' B'],
  log_ratios: Float[Array, 'B T'],
  is_token: Bool[Array, 'B T'],
  kl_coefficient: float,
) -> Float[Array, 'B T']:
  """Returns the reward at the last token minus a KL penalty at every token.

  r_t = 1[t = T] R - kl (log pi(y_t | y_<t, x) - log pi_BC(y_t | y_<t, x))

  The sum of the differences over a hypothesis of pi is an unbiased estimate of
  KL(pi || pi_BC).

  Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences
  (arXiv 1909.08593), Eq. 2, with the penalty of each token at that token.

  Args:
    rewards: R(x, y), higher is better.
    log_ratios: log pi - log pi_BC of the sampled tokens, in nats.
    is_token: True up to the last token of a hypothesis, False after it.
    kl_coefficient: reward per nat, at least 0.

  Returns:
    r_t, 0 after the last token.
  """
  earned = last_token_rewards(rewards, is_token)
  return jnp.where(is_token, earned - kl_coefficient * log_ratios, 0.0)


def td_errors(
  rewards: Float[Array, 'B T'],
  values: Float[Array, 'B T'],
  is_token: Bool[Array, 'B T'],
  discount: float,
) -> Float[Array, 'B T']:
  """Returns delta_t = r_t + gamma V(s_{t+1}) - V(s_t), 0 after the hypothesis.

  The value after the last token is 0, also for hypotheses truncated at the
  maximum length, which earn nothing more.

  Source: ReST (arXiv 2308.08998), A.8.3: no V-trace.

  Args:
    rewards: r_t.
    values: V(s_t), where s_t is the source and the tokens before t.
    is_token: True up to the last token of a hypothesis, False after it.
    discount: gamma, in [0, 1].
  """
  one_more = ((0, 0), (0, 1))
  follows = jnp.pad(is_token[:, 1:], one_more)  # another token comes after t
  later = jnp.where(follows, jnp.pad(values[:, 1:], one_more), 0.0)
  return jnp.where(is_token, rewards + discount * later - values, 0.0)


def gae(
  rewards: Float[Array, 'B T'],
  values: Float[Array, 'B T'],
  is_token: Bool[Array, 'B T'],
  discount: float,
  gae_lambda: float,
) -> Float[Array, 'B T']:
  """Returns generalised advantage estimates.

  A_t = sum_{l >= 0} (gamma lambda)^l delta_{t+l}, delta of `td_errors`

  With lambda = 1 this is the discounted return minus V(s_t), with lambda = 0 it
  is delta_t.

  Source: Schulman et al., High-Dimensional Continuous Control Using Generalized
  Advantage Estimation (arXiv 1506.02438), Eq. 16.

  Args:
    rewards: r_t.
    values: V(s_t).
    is_token: as for `td_errors`.
    discount: gamma, in [0, 1].
    gae_lambda: lambda, in [0, 1].

  Returns:
    A_t, 0 after the last token.
  """
  deltas = td_errors(rewards, values, is_token, discount)

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
    values: one per token.
    is_token: positions that count.

  Returns:
    The result, 0 elsewhere.
  """
  count = jnp.maximum(is_token.sum(), 1)
  mean = jnp.where(is_token, values, 0.0).sum() / count
  centred = jnp.where(is_token, values - mean, 0.0)
  variance = jnp.square(centred).sum() / count
  return centred * jax.lax.rsqrt(variance + _EPSILON)


def least_of_top(
  advantages: Float[Array, 'B T'], weights: Float[Array, 'B T'], share: float
) -> Float[Array, '']:
  """Returns the lowest advantage in the top share of the weighted tokens.

  Source: V-MPO, Song et al. (2020), section 3.1.

  Args:
    advantages: A_t.
    weights: a token counts if it is positive.
    share: in (0, 1]; at least one token is kept.
  """
  counts = weights > 0
  ordered = jnp.sort(jnp.where(counts, advantages, -jnp.inf).reshape(-1))
  # The k highest, k at least 1; the order is ascending.
  k = jnp.ceil(share * counts.sum()).astype(jnp.int32)
  return ordered[ordered.size - jnp.maximum(k, 1)]


def weighted_log_sum_exp(
  exponents: Float[Array, '*R'], weights: Float[Array, '*R']
) -> Float[Array, '']:
  """Returns log sum_i w_i exp(e_i), or 0 if no weight is positive."""
  counts = weights > 0
  is_any = counts.any()
  # Without weights one exponent remains, so that no gradient is NaN.
  safe = jnp.where(counts, exponents, jnp.where(is_any, -jnp.inf, 0.0))
  total = jax.nn.logsumexp(safe, b=jnp.where(is_any, weights, 1.0))
  return jnp.where(is_any, total, 0.0)


def vmpo_weights(
  advantages: Float[Array, 'B T'],
  weights: Float[Array, 'B T'],
  is_top: Bool[Array, 'B T'],
  temperature: Float[Array, ''],
  log_sum: Float[Array, ''],
) -> Float[Array, 'B T']:
  """Returns w_t exp(A_t / eta) / sum_s w_s exp(A_s / eta), without gradient.

  Source: V-MPO, Song et al. (2020), Eq. 3.

  Args:
    advantages: A_t.
    weights: w_t.
    is_top: tokens of the sum; psi is 0 elsewhere.
    temperature: eta.
    log_sum: `weighted_log_sum_exp` of A / eta over the top of the global batch.
  """
  exponent = advantages / temperature - log_sum
  # Masked before the exponential, which may overflow.
  psi = weights * jnp.exp(jnp.where(is_top, exponent, -jnp.inf))
  return jax.lax.stop_gradient(psi)


def vmpo_temperature_loss(
  temperature: Float[Array, ''],
  log_sum: Float[Array, ''],
  top_weight: Float[Array, ''],
  target_divergence: float,
) -> Float[Array, '']:
  """Returns eta eps + eta log mean_t exp(A_t / eta).

  Source: V-MPO, Song et al. (2020), Eq. 4.

  Args:
    temperature: eta.
    log_sum: as for `vmpo_weights`.
    top_weight: sum of the weights in `log_sum`; 0 if there is no token.
    target_divergence: eps.
  """
  log_mean = log_sum - jnp.log(jnp.where(top_weight > 0, top_weight, 1.0))
  return temperature * (target_divergence + log_mean)


def preference_margins(
  log_probs: Float[Array, 'B 2'],
  reference_log_probs: Float[Array, 'B 2'],
  beta: float,
) -> Float[Array, ' B']:
  """Returns DPO's logits beta [log pi/pi_ref(y_w) - log pi/pi_ref(y_l)].

  Source: Rafailov et al. (2023), Eq. 7.

  Args:
    log_probs: log pi(y | x) of the better and the worse sample, in nats.
    reference_log_probs: log pi_ref(y | x), in nats; without gradient.
    beta: above 0.
  """
  ratios = log_probs - jax.lax.stop_gradient(reference_log_probs)
  return beta * (ratios[:, 0] - ratios[:, 1])


def graded_preferences(
  rewards: Float[Array, 'B N'],
  scores: Float[Array, 'B N'],
  weights: Float[Array, 'B N'],
  temperature: float,
) -> tuple[Float[Array, ''], tuple[Float[Array, ''], Float[Array, '']]]:
  r"""Compares the order of N hypotheses of a source with their scores.

  sum_b 1 / (n_b - 1) sum_{i != j} h_ij KL(sigma((s_i - s_j) / tau) ||
  sigma((R_i - R_j) / tau)),  h_ij = 2 w_i w_j / (w_i + w_j)

  Source: Bradley and Terry, Rank Analysis of Incomplete Block Designs (1952),
  with graded preferences.

  Args:
    rewards: R, predicted.
    scores: s, the target.
    weights: w; hypotheses with weight 0 do not count.
    temperature: tau, above 0.

  Returns:
    The sum; and, over pairs with different scores, the sum of h for pairs in
    the right order (half for ties) and the sum of all h.
  """

  def differences(values):
    return (values[:, :, None] - values[:, None, :]) / temperature  # [B, N, N]

  def binary_cross_entropy(target, logits):
    return jax.nn.softplus(logits) - jax.nn.sigmoid(target) * logits

  both = weights[:, :, None] + weights[:, None, :]
  precision = 2 * weights[:, :, None] * weights[:, None, :]
  precision /= jnp.where(both > 0, both, 1.0)
  precision *= 1 - jnp.eye(weights.shape[1])
  target, logits = differences(scores), differences(rewards)
  divergence = binary_cross_entropy(target, logits)
  divergence -= binary_cross_entropy(target, target)
  others = jnp.maximum((weights > 0).sum(axis=1) - 1, 1)  # [B]
  pairs = (precision * divergence).sum(axis=(1, 2)) / others
  is_right = (jnp.sign(logits) * jnp.sign(target) + 1) / 2
  ordered = precision * (target != 0)
  return pairs.sum(), ((is_right * ordered).sum(), ordered.sum())


def clipped_surrogate(
  log_ratios: Float[Array, 'B T'],
  advantages: Float[Array, 'B T'],
  clip: float | None,
) -> Float[Array, 'B T']:
  """Returns the objective of PPO's policy per token.

  min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t),  rho_t = pi / pi_old

  Without clipping it is rho_t A_t, whose gradient at rho = 1 is the policy
  gradient A_t grad log pi.

  Source: Schulman et al., Proximal Policy Optimization Algorithms (arXiv
  1707.06347), Eq. 7 and, without clipping, Eq. 6.

  Args:
    log_ratios: log pi - log pi_old of the sampled tokens, in nats.
    advantages: A_t.
    clip: c, above 0; None for no clipping.
  """
  ratios = jnp.exp(log_ratios)
  if clip is None:
    return ratios * advantages
  clipped = jnp.clip(ratios, 1.0 - clip, 1.0 + clip)
  return jnp.minimum(ratios * advantages, clipped * advantages)


def clipped_value_error(
  values: Float[Array, 'B T'],
  old_values: Float[Array, 'B T'],
  returns: Float[Array, 'B T'],
  clip: float | None,
) -> Float[Array, 'B T']:
  """Returns half the squared error of V, optionally clipped.

  1/2 max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2)

  Source: Schulman et al. (arXiv 1707.06347), Eq. 9; the clipping is not in the
  paper but in its authors' code (openai/baselines, ppo2).

  Args:
    values: V(s_t).
    old_values: V(s_t) when the hypotheses were sampled.
    returns: G_t.
    clip: c, above 0, in the unit of the reward; None for no clipping.
  """
  squared = jnp.square(values - returns)
  if clip is not None:
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    squared = jnp.maximum(squared, jnp.square(near - returns))
  return 0.5 * squared
