"""How PPO is carried out: settings that gin may name."""

import dataclasses

import jax

from rest_jax import settings
from rest_jax.online import objective, rollout
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import optimizers


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOConfig:
  """How a policy is trained on samples of its own.

  An iteration samples, scores, and passes `epochs` times over what it sampled:

  - y ~ pi for `sources_per_iteration` sources, N outputs each (`decode`);
  - r_t = 1[t = T] R - kl_coefficient (log pi - log pi_BC), and from it and the
    critic V the advantages (see `ops.gae`), whitened over all tokens of the
    iteration, and the critic's targets G_t = A_t + V(s_t);
  - updates of policy and critic on batches of similar length (see `objective`).

  The critic is a network of its own that starts from the BC policy's weights.
  With one epoch and no clipping it is advantage actor-critic (A2C).

  Source: Schulman et al., Proximal Policy Optimization Algorithms (arXiv
  1707.06347), Algorithm 1; A2C: Mnih et al. (arXiv 1602.01783). ReST (arXiv
  2308.08998), section 4 and Table 1, gives PPO's results and none of its
  settings; every number here is ours.

  Attributes:
    decode: how hypotheses are sampled. pi is the untempered model, so that
      temperature 1, all tokens and float32 weights sample what is trained (PAD
      and UNK, which are never drawn, aside).
    optimizer: of the policy and, apart, of the critic. Its schedule counts
      iterations.
    value_learning_rate_factor: the critic's learning rate over the policy's.
    loss: clipping and entropy bonus.
    num_samples: hypotheses to draw in all; None for as many as a Grow has.
    sources_per_iteration: sources drawn for before each round of updates.
    epochs: passes over what was drawn.
    kl_coefficient: reward a nat, at least 0, that leaving BC costs.
    discount: gamma, in [0, 1].
    gae_lambda: lambda, in [0, 1].
    evaluate_every: iterations between evaluations; each saves a checkpoint.
    evaluate_first: also evaluate the BC policy, which is then a candidate for
      the best checkpoint.
    tokens_per_batch: tokens a side of a batch, padding included.
    buckets: rising lengths that batches are padded to.
    accumulation_steps: micro-batches an update.
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
  # Not a difference to folders that were made without it.
  max_bad_steps: int = settings.recorded(default=0)

  def __post_init__(self):
    if isinstance(self.buckets, int):
      raise ValueError(
        'buckets must be rising lengths, such as (16, 32, 64); got '
        f'{self.buckets}. They are not chosen from the data here: every '
        'iteration has other hypotheses, and would compile other shapes.'
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
        'PPO samples at a positive temperature, usually 1; got '
        f'{self.decode.temperature}'
      )
    if self.buckets[-1] < self.decode.max_target_length:
      raise ValueError(
        'buckets must hold a hypothesis of decode.max_target_length='
        f'{self.decode.max_target_length} tokens; got {self.buckets}'
      )

  @property
  def name(self) -> str:
    """The word for it in results and file names."""
    is_a2c = self.epochs == 1 and self.loss.clip is None
    return 'a2c' if is_a2c else 'ppo'

  def num_draws(self, num_samples: int) -> int:
    """Returns how many sources are drawn for, of N samples each."""
    num_draws = num_samples // self.decode.num_samples_per_source
    if num_draws < 1:
      raise ValueError(
        f'num_samples must be at least the '
        f'{self.decode.num_samples_per_source} of one source; got {num_samples}'
      )
    return num_draws

  def batching(self, mesh: jax.sharding.Mesh) -> rollout.Batching:
    return rollout.Batching(
      tokens_per_batch=self.tokens_per_batch,
      buckets=self.buckets,
      row_multiple=mesh_lib.num_parts(mesh) * self.accumulation_steps,
      rows_here=mesh_lib.rows_here(mesh),
    )
