"""Settings of PPO."""

import dataclasses

import jax

from rest_jax import settings
from rest_jax.data import special_ids
from rest_jax.online import objective, rollout
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import optimizers


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOConfig:
  """Settings of training on the policy's own samples.

  An iteration samples, scores, and makes `epochs` passes over its samples:

  - y ~ pi for `sources_per_iteration` sources, N outputs each (`decode`); - r_t
  = 1[t = T] R - kl_coefficient (log pi - log pi_BC); from it and the critic
    V the advantages (see `ops.gae`), whitened over all tokens of the iteration,
    and the critic's targets G_t = A_t + V(s_t);
  - updates of policy and critic on batches of similar length (see `objective`).

  The critic is a separate network that starts from the BC policy's weights.
  With one epoch and no clipping this is advantage actor-critic (A2C).

  Source: Schulman et al., Proximal Policy Optimization Algorithms (arXiv
  1707.06347), Algorithm 1; A2C: Mnih et al. (arXiv 1602.01783). ReST (arXiv
  2308.08998), section 4 and Table 1, gives results of PPO but no settings; all
  numbers here are ours.

  Attributes:
    decode: settings of sampling. pi is the untempered model, so temperature 1,
      all tokens and float32 weights sample the trained policy (except for PAD
      and UNK, which are never drawn).
    optimizer: optimiser of the policy, and separately of the critic. Its
      schedule counts iterations.
    value_learning_rate_factor: the critic's learning rate over the policy's.
    loss: clipping and entropy bonus.
    num_samples: total number of hypotheses; None for as many as in a Grow step.
    sources_per_iteration: number of sources per iteration.
    epochs: passes over the samples of an iteration.
    kl_coefficient: penalty for the divergence from BC, reward per nat, at least
      0.
    discount: gamma, in [0, 1].
    gae_lambda: lambda, in [0, 1].
    evaluate_every: iterations between evaluations; each saves a checkpoint.
    evaluate_first: also evaluate the BC policy, which is then a candidate for
      the best checkpoint.
    tokens_per_batch: tokens per side of a batch, including padding.
    buckets: ascending lengths that batches are padded to.
    accumulation_steps: micro-batches per update.
    max_bad_steps: as in `TrainerConfig`.
  """

  decode: sampler_lib.DecodeConfig
  optimizer: optimizers.OptimizerConfig
  value_learning_rate_factor: float = 1.0
  loss: objective.ClippedObjective = objective.ClippedObjective()
  num_samples: int | None = None
  sources_per_iteration: int = 64
  epochs: int = 4
  kl_coefficient: float = 0.05
  discount: float = 1.0
  gae_lambda: float = 0.95
  evaluate_every: int = 10
  evaluate_first: bool = True
  tokens_per_batch: int = 4096
  buckets: tuple[int, ...] = (16, 32, 64, 128)
  accumulation_steps: int = 1
  # Not recorded in settings: older folders were made without this field.
  max_bad_steps: int = settings.recorded(default=0)

  def __post_init__(self):
    if isinstance(self.buckets, int):
      raise ValueError(
        'buckets must be rising lengths, such as (16, 32, 64); got '
        f'{self.buckets}. PPO cannot choose them from the data: each iteration '
        'has other hypotheses, and would compile other shapes.'
      )
    settings.make_tuples(self, 'buckets')
    settings.rising(self, 'buckets')
    settings.at_least(
      self,
      1,
      'sources_per_iteration',
      'epochs',
      'evaluate_every',
      'tokens_per_batch',
      'accumulation_steps',
    )
    settings.inside(self, '[0, 1]', 'discount', 'gae_lambda')
    settings.at_least(self, 0, 'kl_coefficient', 'max_bad_steps')
    settings.positive(self, 'value_learning_rate_factor')
    if self.decode.temperature <= 0:
      raise ValueError(
        'decode.temperature must be positive for PPO, usually 1; got '
        f'{self.decode.temperature}'
      )
    if self.buckets[-1] < self.decode.max_target_length:
      raise ValueError(
        'the last of buckets must be at least decode.max_target_length='
        f'{self.decode.max_target_length}; got {self.buckets}'
      )

  @property
  def name(self) -> str:
    """Name in results and file names."""
    is_a2c = self.epochs == 1 and self.loss.clip is None
    return 'a2c' if is_a2c else 'ppo'

  def num_draws(self, num_samples: int) -> int:
    """Returns the number of draws of N samples for a source."""
    num_draws = num_samples // self.decode.num_samples_per_source
    if num_draws < 1:
      raise ValueError(
        'num_samples must be at least the number of samples per source, '
        f'{self.decode.num_samples_per_source}; got {num_samples}'
      )
    return num_draws

  def batching(
    self,
    mesh: jax.sharding.Mesh,
    ids: special_ids.SpecialIds = special_ids.T5,
  ) -> rollout.Batching:
    return rollout.Batching(
      tokens_per_batch=self.tokens_per_batch,
      buckets=self.buckets,
      row_multiple=mesh_lib.num_parts(mesh) * self.accumulation_steps,
      rows_here=mesh_lib.rows_here(mesh),
      ids=ids,
    )
