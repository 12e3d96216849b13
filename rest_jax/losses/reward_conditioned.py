"""Behavioural cloning of a policy conditioned on the reward to reach."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax import settings
from rest_jax.losses import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConditionedBC(base.Loss):
  """Negative log-likelihood given the source and a class of reward.

  L(x, y; theta) = - sum_t log pi_theta(y_t | y_<t, x, c(R))
  c(R) = floor(K R), at least 0 and at most K - 1

  The class replaces the decoder's start token. Its ids are the last K ids of
  the network, where the vocabulary has its rarest pieces or none. The reward
  comes with the last token, so the return-to-go of a decision transformer is R
  at every token, and one class suffices. Sampling uses the class `target`.

  Source: Chen et al., Decision Transformer (2021); ReST (arXiv 2308.08998),
  A.2, which reports no gain over BC and gives no detail. Classes are ours.

  Attributes:
    num_classes: K, at least 2. Normalised rewards of D_1 are mostly in [0, 1].
    target: class to sample with, in [0, K); None for the highest.
  """

  name: ClassVar[str] = 'reward_conditioned'
  columns: ClassVar[tuple[str, ...]] = ('rewards',)

  num_classes: int = 10
  target: int | None = None

  def __post_init__(self):
    settings.at_least(self, 2, 'num_classes')
    classes = f'[0, {self.num_classes})'
    settings.inside(self, classes, 'target', none='the highest')

  def decoder_start(self, vocab_size: int) -> int:
    target = self.num_classes - 1 if self.target is None else self.target
    return vocab_size - self.num_classes + target

  def starts(
    self, rewards: Float[Array, ' B'], vocab_size: int
  ) -> Int[Array, ' B']:
    """Returns the decoder's first input of each hypothesis."""
    classes = jnp.floor(self.num_classes * rewards).astype(jnp.int32)
    classes = jnp.clip(classes, 0, self.num_classes - 1)
    return vocab_size - self.num_classes + classes

  def __call__(self, inputs: base.Inputs) -> base.LossOutput:
    """See `Loss.__call__`; the normaliser is the number of weighted tokens."""
    weights, batch = inputs.weights, inputs.batch
    starts = self.starts(batch['rewards'], inputs.model.config.vocab_size)
    tokens = batch['decoder_input_tokens'].at[:, 0].set(starts)
    log_probs = inputs.model.unconditioned().log_probs(
      inputs.params,
      {**batch, 'decoder_input_tokens': tokens},
      dropout_key=inputs.dropout_key,
    )
    count = weights.sum()
    nll = jnp.where(weights > 0, -log_probs * weights, 0.0).sum()
    return base.LossOutput(nll, count, {'nll': (nll, count)})
