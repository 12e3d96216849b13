"""A tiny copying task, and a loss that uses all of the loss interface."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import base, bc
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import loader, optimizers, trainer
from tests.models import tiny

LENGTH = 6
VOCAB = 24


def make_policy(**sizes) -> policy_lib.Policy:
  config = dict(
    vocab_size=VOCAB,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=32,
    dropout_rate=0.1,
  )
  return policy_lib.Policy(network.NetworkConfig(**{**config, **sizes}))


def make_config(**settings) -> trainer.TrainerConfig:
  config = dict(
    optimizer=optimizers.OptimizerConfig(learning_rate=3e-3, warmup_steps=4),
    max_steps=12,
    evaluate_every=4,
    tokens_per_batch=64,
    buckets=(8,),
    log_every=2,
  )
  return trainer.TrainerConfig(**{**config, **settings})


def make_tokens(num_rows=40, seed=0) -> np.ndarray:
  """Rows of random tokens and EOS, int32 [n, LENGTH]."""
  random = np.random.default_rng(seed)
  tokens = random.integers(3, VOCAB, (num_rows, LENGTH)).astype(np.int32)
  tokens[:, -1] = 1
  return tokens


def make_rows(tokens: np.ndarray) -> loader.Rows:
  """Rows to train on: each is to be copied."""

  def padded(rows, length):
    result = np.zeros((len(rows), length), np.int32)
    result[:, :LENGTH] = tokens[rows]
    return result

  lengths = np.full(len(tokens), LENGTH, np.int32)
  return loader.Rows(
    source_lengths=lengths,
    target_lengths=lengths,
    load=lambda rows, s, t: loader.decoder_batch(
      padded(rows, s), padded(rows, t)
    ),
  )


def train(
  directory,
  config=None,
  *,
  policy=None,
  params=None,
  loss=None,
  batches=None,
  **arguments,
) -> trainer.TrainResult:
  """Trains a policy to copy; by default, the objective is the step."""
  config, policy = config or make_config(), policy or make_policy()
  return trainer.train(
    config,
    trainer.Learner(
      model=policy,
      params=tiny.init(policy) if params is None else params,
      loss=loss or bc.BC(),
    ),
    batches=batches or config.batches(make_rows(make_tokens())),
    directory=directory,
    **{
      'mesh_config': mesh_lib.MeshConfig(),
      'evaluate_fn': lambda _, step: {'objective': float(step)},
      **arguments,
    },
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EverythingLoss(base.Loss):
  """A made-up loss that needs all that a loss may ask for.

  - sum over rows of log pi(y) * softmax over the global batch of the margin
  between rewards and the lagged policy's log-probabilities, at a learned
  temperature.
  """

  name: ClassVar[str] = 'everything'
  columns: ClassVar[tuple[str, ...]] = ('rewards', 'sample_log_probs')
  layout: ClassVar[base.Layout] = base.Layout.BEST_WORST
  needs_statistics: ClassVar[bool] = True

  lag: int = 3

  def init_auxiliary(self, params, given):
    return base.Auxiliary(
      learned={'log_temperature': jnp.zeros(())},
      carried={'lagged': jax.tree.map(jnp.array, params)},
    )

  def update_auxiliary(self, auxiliary, *, params, step):
    is_due = step % self.lag == 0
    lagged = jax.tree.map(
      lambda new, old: jnp.where(is_due, new, old),
      params,
      auxiliary.carried['lagged'],
    )
    return auxiliary.replace(carried={'lagged': lagged})

  def batch_statistics(self, inputs):
    batch = inputs.batch
    lagged = inputs.model.sequence_log_probs(
      inputs.auxiliary.carried['lagged'], batch
    )
    margin = batch['rewards'] - 0.1 * (lagged - batch['sample_log_probs'])
    has_weight = batch['decoder_loss_weights'].max(-1) > 0
    return {'margin': margin, 'has_weight': has_weight}

  def reduce_statistics(self, statistics):
    margin = jnp.where(statistics['has_weight'], statistics['margin'], -jnp.inf)
    return {'largest': margin.max()}

  def __call__(self, inputs):
    own = self.batch_statistics(inputs)
    temperature = jnp.exp(inputs.auxiliary.learned['log_temperature'])
    margin = jax.lax.stop_gradient(own['margin']) - inputs.statistics['largest']
    # Before the exponential: a masked row's may be infinite, its gradient NaN.
    margin = jnp.where(own['has_weight'], margin, 0.0)
    psi = jnp.where(own['has_weight'], jnp.exp(margin / temperature), 0.0)
    log_probs = inputs.model.sequence_log_probs(
      inputs.params, inputs.batch, dropout_key=inputs.dropout_key
    )
    total = -(psi * log_probs).sum()
    return base.LossOutput(
      total, own['has_weight'].sum() * 1.0, {'psi': (psi.sum(), psi.size * 1.0)}
    )
