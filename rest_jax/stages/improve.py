"""Stage `improve`: fine-tunes offline on the rows of D_g that pass F."""

from collections.abc import Callable
import dataclasses
import pathlib
from typing import Any

from absl import logging
import numpy as np

from rest_jax import settings
from rest_jax.data import sample_store, special_ids
from rest_jax.filters import base as filters_base
from rest_jax.losses import base as losses_base
from rest_jax.losses import bc as bc_loss
from rest_jax.models import policy as policy_lib
from rest_jax.stages import base, improve_rows, policies, prepare
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import selection as selection_lib
from rest_jax.stages import value as value_stage
from rest_jax.training import trainer as trainer_lib

INITS = ('previous', 'initial')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImproveConfig:
  """Settings of the Improve steps.

  Attributes:
    loss: L(x, y; theta) of Eq. 2.
    filter: F(x, y; tau), with a value for each Improve step.
    trainer: settings of the first Improve step; the objective is the mean
      reward of sampled validation outputs.
    learning_rate_factor: Improve step i trains at learning_rate * factor^(i-1);
      in (0, 1]. The paper fine-tunes "with a lower learning rate".
    init: 'previous' starts each Improve step from the policy before it (the
      paper), 'initial' from the first policy of the run (ReST-EM).
    include_references: whether D's own pairs, scored and filtered like samples,
      are part of D_g (the paper: yes).
    reference_weight: weight of a reference's loss; with N samples per source
      and one reference, (1 - lambda) / lambda of Eq. 3 is reference_weight / N.
    balance_sources: give the kept samples of each source the same total weight;
      False gives all samples the same weight (Eq. 2). Losses over pairs always
      have one pair per source.
    include_unfinished: whether samples without EOS may be trained on.
  """

  loss: losses_base.Loss = bc_loss.BC()
  filter: filters_base.Filter
  trainer: trainer_lib.TrainerConfig
  learning_rate_factor: float = 0.5
  init: str = 'previous'
  include_references: bool = True
  reference_weight: float = 1.0
  balance_sources: bool = False
  include_unfinished: bool = False

  def __post_init__(self):
    settings.inside(self, '(0, 1]', 'learning_rate_factor')
    settings.one_of(self, INITS, 'init')
    settings.at_least(self, 0, 'reference_weight')

  def trainer_at(
    self, improve_step: int, seed: int
  ) -> trainer_lib.TrainerConfig:
    """Returns the trainer's settings for one Improve step."""
    optimizer = self.trainer.optimizer
    factor = self.learning_rate_factor ** (improve_step - 1)
    return dataclasses.replace(
      self.trainer,
      seed=seed,
      optimizer=dataclasses.replace(
        optimizer, learning_rate=optimizer.learning_rate * factor
      ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Improve(base.PolicyStage):
  """Maximises Eq. 2 from a given policy while sampled reward improves.

  With the loss BC, its gradient is that of Eq. 3,

  - lambda E_{y ~ pi'}[F grad log pi(y|x)] - (1 - lambda) E_{y ~ p}[F grad log
  pi(y|x)],

  with pi' the policy that made D_g and p the text of D. While pi = pi', this is
  an online policy gradient with F in place of a return, plus a term that keeps
  pi near the text. With infinitely many sources and samples, the step minimises
  KL(pi^tau || pi) for the distribution pi^tau(x, y) ~ {(1 - lambda) p(x, y) +
  lambda pi'(x, y)} 1[R(x, y) > tau] of text and samples above the threshold
  (A.9). Rows are weighted so that (1 - lambda) / lambda is `reference_weight` /
  N.

  Source: ReST (arXiv 2308.08998), section 3 "Improve", Eq. 2 and 3, A.9.

  Attributes:
    start: the initial policy of the training.
    bc: finished BC, for losses that need it.
    value: the value function of D_g, for losses that need it; None for others.
    grow: the finished Grow: D_g and its rewards.
    reward_name: name of the reward of D_g to filter by.
    selection: chooses the checkpoint.
    seed: seed for batch order and dropout.
  """

  config: ImproveConfig
  start: base.PolicyStage
  bc: base.PolicyStage
  value: base.Stage | None
  grow: base.Stage
  reward_name: str
  selection: selection_lib.Selection
  seed: int

  run_mode = 'improve'
  help = (
    'Fine-tunes on the rows of D_g that pass the filter; see --grow_step and '
    '--improve_step.'
  )
  pattern = r'improve_(?P<grow_step>\d+)_(?P<improve_step>\d+)'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    value = {} if self.value is None else {'value': self.value}
    return {
      'init': self.start,
      'grow': self.grow,
      'bc': self.bc,
      **value,
      **self.selection.inputs,
    }

  @property
  def trainer(self) -> trainer_lib.TrainerConfig:
    return self.config.trainer_at(self.improve_step, self.seed)

  def network(self, context: context_lib.Context) -> policy_lib.Policy:
    return context.improved_policy

  def needed(self) -> dict[str, pathlib.Path]:
    """Returns the folders of the models that the loss needs, by name."""
    folders = {'bc': self.bc.policy_folder}
    if self.value is not None:
      folders['value'] = self.value.folder
    loss = self.config.loss
    for name in loss.needs:
      if name not in folders:
        raise ValueError(
          f'the loss {loss.name} needs {losses_base.GIVEN[name]}; its folder '
          'is missing'
        )
    return {name: folders[name] for name in loss.needs}

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    grown = self.grow.manifest()
    return {
      **{name: policies.digest(path) for name, path in self.needed().items()},
      'improve': dataclasses.replace(self.config, trainer=self.trainer),
      'grow_step': self.grow_step,
      'improve_step': self.improve_step,
      'network': self.network(context).config,
      'init': policies.digest(self.start.policy_folder),
      'grow': folder_lib.content_digest(grown),
      'reward': self.reward_name,
      'evaluation': self.selection.settings(context),
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    rows = select_rows(
      self.config,
      grow_step=self.grow_step,
      improve_step=self.improve_step,
      grow_directory=self.grow.folder,
      reward_name=self.reward_name,
      data=context.data,
      ids=context.policy.config.special_ids,
      warn=output.warn,
    )
    _report(self.grow_step, self.improve_step, rows.statistics)
    config, trainer, mesh_config = self.config, self.trainer, context.mesh
    policy = self.network(context)
    result = trainer_lib.train(
      trainer,
      trainer_lib.Learner(
        model=policy,
        params=policies.load(self.start.policy_folder, policy, mesh_config),
        loss=config.loss,
        given={
          name: _LOADERS[name](folder, policy, mesh_config)
          for name, folder in self.needed().items()
        },
      ),
      batches=trainer.batches(
        rows, mesh_config.build(), packable=config.loss.packable
      ),
      mesh_config=mesh_config,
      directory=output.path,
      evaluate_fn=self.selection.evaluate_fn(context, policy),
      start_metrics=_start_metrics(self, context),
      description=self.title,
    )
    return {
      'training': result.summary,
      'kept': rows.statistics,
      'vocabulary': context.data.described_vocabulary,
    }

  def lines(self) -> list[str]:
    kind = self.config.filter.kind
    value = self.config.filter.at(self.improve_step, self.grow_step)
    rate = self.trainer.optimizer.learning_rate
    return [
      f'  improve   loss {self.config.loss.name}, filter {kind}',
      f'    {self.grow_step}.{self.improve_step}       {kind} {value:g}, '
      f'learning rate {rate:g}',
    ]

  def trainings(self, policy: policy_lib.Policy) -> list[base.Training]:
    config = self.config
    start = config.loss.decoder_start(policy.config.vocab_size)
    return [
      base.Training(
        name='improve',
        trainer=config.trainer,
        model=policy.starting_with(start),
        loss=config.loss,
      )
    ]


def _start_metrics(
  stage: Improve, context: context_lib.Context
) -> dict[str, float] | None:
  """Returns metrics of the start, if the step before measured the same."""
  if not isinstance(stage.start, Improve):
    return None
  made = stage.start.manifest()
  before = made['settings']
  # The loss decides the first input of the decoder.
  is_same = settings.describe(
    [stage.selection.settings(context), stage.config.loss]
  ) == [before.get('evaluation'), before.get('improve', {}).get('loss')]
  return made['training'].get('evaluation') if is_same else None


def _load_bc(directory, policy, mesh_config) -> trainer_lib.Given:
  policy = policy.unconditioned()
  params = policies.load(directory, policy, mesh_config)
  return trainer_lib.Given(policy, params)


_LOADERS = {'bc': _load_bc, 'value': value_stage.load}


def select_rows(
  config: ImproveConfig,
  *,
  grow_step: int = 1,
  improve_step: int,
  grow_directory: str | pathlib.Path,
  reward_name: str,
  data: prepare.PreparedData,
  ids: special_ids.SpecialIds = special_ids.T5,
  warn: Callable[[str], None] = logging.warning,
) -> improve_rows.ImproveRows:
  """Opens D_g and selects the rows that pass, with weights by F and Eq. 3.

  Args:
    warn: called with a message if the first threshold is not above the mean
      reward of the eligible rows: Algorithm 1 requires tau_1 > V.
  """
  store = sample_store.SampleStore.open(grow_directory)
  raw, rewards = store.rewards(reward_name)
  samples = samples_of(config, store, reward_name, raw, rewards)
  rules = improve_rows.Rules(
    row_filter=config.filter,
    loss=config.loss,
    reference_weight=config.reference_weight,
    balance_sources=config.balance_sources,
  )
  rows = improve_rows.select(
    rules,
    store=store,
    sources=data.pairs(store.manifest['split']),
    samples=samples,
    improve_step=improve_step,
    grow_step=grow_step,
    ids=ids,
  )
  threshold = rows.statistics['threshold']
  mean = float(samples.rewards[samples.is_eligible].mean(dtype='float64'))
  rows.statistics['mean_reward_eligible'] = mean
  value = config.filter.at(improve_step, grow_step)
  if (
    improve_step == 1
    and threshold is not None
    and threshold <= mean
    and not config.filter.asks_for_all(value, samples)
  ):
    warn(
      f'tau_1 = {threshold:.3f} is not above {mean:.3f}, the mean reward of the '
      f'rows of D_{grow_step} that may be trained on; Algorithm 1 requires '
      f'tau_1 > V. Raise the first value of the {config.filter.kind} filter, '
      'whose values may be a tuple for each Grow step.'
    )
  load = improve_rows.masked(
    rows.load, config.filter.is_inclusive, config.loss.columns
  )
  return dataclasses.replace(rows, load=load)


def samples_of(
  config: ImproveConfig,
  store: sample_store.SampleStore,
  reward_name: str,
  raw: np.ndarray,
  rewards: np.ndarray,
  *,
  with_hashes: bool = True,
) -> filters_base.Samples:
  """Returns the columns of D_g, or of some of its shards, that F reads.

  Args:
    config: determines which rows may be trained on.
    raw: float32 [n], raw rewards of the rows.
    rewards: float32 [n], normalised rewards of the rows.
    with_hashes: whether to hash tokens if F or L compares them.
  """
  samples = improve_rows.samples_of(
    store,
    rewards,
    include_references=config.include_references,
    include_unfinished=config.include_unfinished,
    with_hashes=with_hashes
    and improve_rows.compares_tokens(config.filter, config.loss),
  )
  floor = store.manifest.get('rewards', {}).get(reward_name, {}).get('floor')
  if floor is not None:
    # A vetoed sample is never trained on, even if it is the best of its source.
    samples = samples._replace(
      is_eligible=samples.is_eligible & (raw > np.float32(floor))
    )
  return samples


def _report(grow_step: int, improve_step: int, kept: dict) -> None:
  logging.info(
    'improve %d.%d: keeps %d samples (%.1f %%); sources with no kept sample: '
    '%d; mean length %.1f -> %.1f, mean reward %.3f -> %.3f',
    grow_step,
    improve_step,
    kept['samples'],
    100 * kept['fraction'],
    kept['sources_without_samples'],
    kept['mean_length_before'],
    kept['mean_length_after'],
    kept['mean_reward_before'],
    kept['mean_reward_after'],
  )
