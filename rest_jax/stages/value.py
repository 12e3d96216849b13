"""Stage `value`: the value function of D_g, for losses that need one."""

import dataclasses
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from rest_jax import settings, types
from rest_jax.data import pair_store, sample_store, special_ids
from rest_jax.evaluation import correlations
from rest_jax.filters import base as filters_base
from rest_jax.filters import for_all_sources
from rest_jax.losses import base as losses_base
from rest_jax.losses import value as value_loss
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.stages import base, improve_rows, policies, prepare, run_reward
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import loader
from rest_jax.training import trainer as trainer_lib

INITS = ('reward', 'policy')
TRAIN, HELDOUT = 'train', 'heldout'

_EVERYTHING = for_all_sources.Fixed(values=(-np.inf,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueStage:
  """Settings of the value function and its training.

  Attributes:
    trainer: steps, optimiser, batches; the objective is minus the squared error
      on the rows of `choose_by`.
    discount: gamma of the Monte-Carlo returns; equal to that of the loss that
      uses them.
    remaining_power: p of `ValueRegression`.
    init: initial weights: 'reward' for the reward model, which has learned to
      judge whole hypotheses; 'policy' for BC with a new head.
    choose_by: rows for choosing the checkpoint: 'train', because the value
      function is only used on its training data (the paper), or 'heldout'.
    num_heldout_sources: number of sources of D_g without training, at most a
      tenth of all.
    max_measured_rows: number of training rows for measuring rank correlations.
  """

  trainer: trainer_lib.TrainerConfig
  discount: float = 1.0
  remaining_power: float = 0.0
  init: str = 'reward'
  choose_by: str = TRAIN
  num_heldout_sources: int = 200
  max_measured_rows: int = 5_000

  def __post_init__(self):
    self.loss()  # Refuses a wrong value now, not after a Grow.
    settings.one_of(self, INITS, 'init')
    settings.one_of(self, (TRAIN, HELDOUT), 'choose_by')
    settings.at_least(self, 1, 'num_heldout_sources', 'max_measured_rows')

  def loss(self) -> value_loss.ValueRegression:
    return value_loss.ValueRegression(
      discount=self.discount, remaining_power=self.remaining_power
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Value(base.Stage):
  """Fits V(x, y_<t) to the Monte-Carlo returns of all finished samples of D_g.

  V(x, y_<t) estimates the normalised reward that the policy of D_g still earns
  after the prefix y_<t.

  Source: ReST (arXiv 2308.08998), A.8.4, where Kendall's tau with the reward is
  92.4 % and Spearman's rho above 99 % on the training set.

  Note: the paper does not say at which position V is compared with R. Two
  positions are reported: before the last token (EOS), where V has read all of
  y, and before the first, where it has read only x.

  The manifest has, under 'agreement', for the rows of 'train' and 'heldout':
  the number of rows, the Kendall and Spearman correlations of V with R at the
  'last' and 'first' position, and the mean squared error.

  Attributes:
    reward: the reward that D_g was scored with.
    reward_name: name of the reward of D_g to predict.
    grow: the finished Grow: D_g and its rewards.
  """

  config: ValueStage
  bc: base.PolicyStage
  reward: run_reward.RunReward
  reward_name: str
  grow: base.Stage
  seed: int

  run_mode = 'value'
  help = 'Trains the value function of D_g, for losses that read one.'
  pattern = r'value_(?P<grow_step>\d+)'
  missing = (
    'the loss reads no value function; add one that does: '
    '--gin_file=gin_configs/losses/oac.gin or bvmpo.gin'
  )

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {'grow': self.grow, 'bc': self.bc, **self.reward.inputs}

  @property
  def start(self) -> pathlib.Path:
    """Folder of the initial weights."""
    if self.config.init == 'policy':
      return self.bc.policy_folder
    return self.reward.trained

  @property
  def _trainer(self) -> trainer_lib.TrainerConfig:
    return dataclasses.replace(self.config.trainer, seed=self.seed)

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    grown = self.grow.manifest()
    return {
      'value': dataclasses.replace(self.config, trainer=self._trainer),
      'network': context.policy.config,
      'init': policies.digest(self.start),
      'grow': folder_lib.content_digest(grown),
      'reward': self.reward_name,
    }

  def origins(self, settings: dict[str, Any]) -> dict[str, pathlib.Path]:
    return {**super().origins(settings), 'init': self.start}

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config, mesh_config = self.config, context.mesh
    network = context.policy.config
    model = scalar.ScalarModel(network)
    train_batches, heldout_batches = (
      self._trainer.batches(rows, mesh_config.build())
      for rows in _rows(
        config,
        self.grow.folder,
        self.reward_name,
        context.data,
        network.special_ids,
      )
    )
    evaluations = {
      TRAIN: _Evaluation(
        model,
        train_batches,
        mesh_config,
        config.discount,
        max_rows=config.max_measured_rows,
      ),
      HELDOUT: _Evaluation(
        model, heldout_batches, mesh_config, config.discount
      ),
    }
    result = trainer_lib.train(
      self._trainer,
      trainer_lib.Learner(
        model=model,
        params=self._initial_params(context, model),
        loss=config.loss(),
      ),
      batches=train_batches,
      mesh_config=mesh_config,
      directory=output.path,
      evaluate_fn=evaluations[config.choose_by],
      description=output.path.name.replace('_', ' '),
    )
    agreement = {
      split: evaluation.agreement(result.params)
      for split, evaluation in evaluations.items()
    }
    for split, measured in agreement.items():
      logging.info('%s: %s: %s', output.path.name, split, measured)
    output.warn(_disagreement(agreement[HELDOUT]))
    return {'training': result.summary, 'agreement': agreement}

  def _initial_params(
    self, context: context_lib.Context, model: scalar.ScalarModel
  ) -> types.Params:
    if self.config.init == 'policy':
      params = policies.load(self.start, context.policy, context.mesh)
      return model.init_from_policy(params, jax.random.key(self.seed))
    return policies.load(self.start, model, context.mesh)

  def trainings(self, policy: policy_lib.Policy) -> list[base.Training]:
    return [
      base.Training(
        name='value',
        trainer=self.config.trainer,
        model=scalar.ScalarModel(policy.config),
        loss=self.config.loss(),
        columns=improve_rows.COLUMNS,
      )
    ]


def load(
  directory: str | pathlib.Path,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
) -> trainer_lib.Given:
  """Loads a trained value function for a loss."""
  model = scalar.ScalarModel(policy.config)
  return trainer_lib.Given(model, policies.load(directory, model, mesh_config))


def _rows(
  config: ValueStage,
  grow_directory: str | pathlib.Path,
  reward_name: str,
  data: prepare.PreparedData,
  ids: special_ids.SpecialIds,
) -> tuple[improve_rows.ImproveRows, improve_rows.ImproveRows]:
  """Returns the rows of D_g to train on, and those of held-out sources."""
  store = sample_store.SampleStore.open(grow_directory)
  _, rewards = store.rewards(reward_name)
  samples = improve_rows.samples_of(
    store,
    rewards,
    include_references=True,
    include_unfinished=False,
    with_hashes=False,
  )
  sources = np.unique(samples.source_ids)
  count = min(config.num_heldout_sources, max(1, len(sources) // 10))
  heldout = np.isin(
    samples.source_ids, sources[pair_store.spread_rows(len(sources), count)]
  )

  def select(part: np.ndarray) -> improve_rows.ImproveRows:
    return improve_rows.select(
      improve_rows.Rules(row_filter=_EVERYTHING, loss=config.loss()),
      store=store,
      sources=data.pairs(store.manifest['split']),
      samples=samples._replace(is_eligible=samples.is_eligible & part),
      ids=ids,
    )

  try:
    return select(~heldout), select(heldout)
  except filters_base.EmptySelectionError as error:
    raise filters_base.EmptySelectionError(
      f'{grow_directory} has too few finished samples to train a value function '
      f'on {len(sources) - count} sources and to hold {count} out: {error}'
    ) from error


class _Evaluation:
  """Compares a value function with the rewards of rows."""

  def __init__(
    self,
    model: scalar.ScalarModel,
    batches: loader.BucketedBatches,
    mesh_config: mesh_lib.MeshConfig,
    discount: float,
    max_rows: int | None = None,
  ):
    self._batches = batches
    self._mesh_config = mesh_config
    self._max_rows = max_rows
    loss = value_loss.ValueRegression(discount=discount)

    @jax.jit
    def measure(params, batch):
      values = model.values(params, batch)
      output = loss(losses_base.Inputs(model=model, params=params, batch=batch))
      weights = batch['decoder_loss_weights']
      last = scalar.last_value(values, weights)
      by_row = last, values[:, 0], batch['rewards'], weights.max(axis=1) > 0
      return by_row, output.weighted_sum, output.normalizer

    self._measure = measure

  def __call__(self, params: types.Params, step: int) -> dict[str, float]:
    """Returns minus the squared error as the objective (an `EvaluateFn`)."""
    del step
    measured = self.agreement(params)
    return {
      'objective': -measured['squared_error'],
      'squared_error': measured['squared_error'],
      'kendall_last': measured['last']['kendall'],
      'spearman_last': measured['last']['spearman'],
    }

  def agreement(self, params: types.Params) -> dict[str, Any]:
    """Returns `rows`, `squared_error`, and rank correlations by position."""
    mesh = self._mesh_config.build()
    last, first, rewards = [], [], []
    squared = count = 0.0
    rows = 0
    for index in range(self._batches.batches_per_epoch):
      batch = self._batches[index]
      by_row, total, weight = processes.fetch(
        self._measure(params, mesh_lib.put_batch(batch, mesh))
      )
      of_last, of_first, reward, is_row = by_row
      last.append(of_last[is_row])
      first.append(of_first[is_row])
      rewards.append(reward[is_row])
      squared, count = squared + float(total), count + float(weight)
      rows += int(is_row.sum())
      if self._max_rows is not None and rows >= self._max_rows:
        break
    expected = np.concatenate(rewards)
    return {
      'rows': rows,
      'squared_error': squared / count,
      'last': _ranks(np.concatenate(last), expected),
      'first': _ranks(np.concatenate(first), expected),
    }


def _disagreement(agreement: dict[str, Any]) -> str | None:
  """Returns a warning if V does not rank held-out samples as R does."""
  value, rows = agreement['last']['spearman'], agreement['rows']
  if rows < correlations.MIN_CORRELATED:
    return (
      f'the value function is measured on {rows} held-out samples, too few for '
      'a correlation. Raise ValueStage.num_heldout_sources.'
    )
  low, high = correlations.interval(value, rows)
  if low > 0:
    return None
  return (
    'the value function does not rank held-out samples as the reward does: '
    f'Spearman {value:.3f} [{low:.3f}, {high:.3f}] over {rows:,}. Losses that '
    'read it follow noise: train it longer (ValueStage.trainer), or start it '
    "from the reward (ValueStage.init = 'reward')."
  )


def _ranks(values: np.ndarray, rewards: np.ndarray) -> dict[str, float]:
  if np.ptp(values) == 0 or np.ptp(rewards) == 0:  # Also of a single row.
    return {'kendall': 0.0, 'spearman': 0.0}
  return {
    'kendall': correlations.kendall(values, rewards),
    'spearman': correlations.spearman(values, rewards),
  }
