"""Stage `bc`: behavioural cloning on D; the policy G=0, I=0."""

from collections.abc import Iterable
import dataclasses
from typing import Any

import jax
import numpy as np

from rest_jax import settings as settings_lib
from rest_jax import types
from rest_jax.data import pair_store, special_ids
from rest_jax.data import task as task_lib
from rest_jax.losses import base as losses_base
from rest_jax.losses import bc as bc_loss
from rest_jax.models import policy as policy_lib
from rest_jax.stages import base, policies
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import paths
from rest_jax.training import loader, validation_nll
from rest_jax.training import trainer as trainer_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class BCConfig:
  """Settings of behavioural cloning.

  Attributes:
    trainer: steps, optimiser, batches; `objective` is minus the validation NLL.
    loss: usually `BC` with label smoothing.
    init_dir: folder of a finished policy of the same network to start from,
      such as an imported one; None for new parameters.
  """

  trainer: trainer_lib.TrainerConfig
  loss: losses_base.Loss = bc_loss.BC()
  # The stage's settings have the digest of its parameters, not its path.
  init_dir: str | None = settings_lib.recorded(default=None)

  def __post_init__(self):
    if self.trainer.lora is not None and self.init_dir is None:
      raise ValueError(
        'init_dir must name a finished policy if BC trains adapters '
        '(TrainerConfig.lora), because the adapted weights are not trained; got '
        'None. Set BC_INIT_DIR, or train BC without LoRA.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BC(base.PolicyStage):
  """Trains by maximum likelihood on D.

  Source: ReST (arXiv 2308.08998), Eq. 1 and the first line of Algorithm 1.

  Attributes:
    seed: seed for the initialisation.
  """

  config: BCConfig
  data: base.Stage
  seed: int

  run_mode = 'bc'
  help = 'Trains the first policy on D by behavioural cloning.'
  pattern = 'bc'
  own_name = 'bc'
  given_as = 'policy'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    if self.config.init_dir is None:
      return {'data': self.data}
    init = base.Given(folder=paths.of(self.config.init_dir))
    return {'data': self.data, 'init': init}

  def training(self) -> BCConfig:
    """Returns the settings of the training."""
    return self.config

  def split(self, context: context_lib.Context) -> str:
    """Returns the name of the pairs to train on."""
    del context
    return task_lib.TRAIN

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    config = self.training()
    settings = {
      'bc': config,
      'network': context.policy.config,
      'seed': self.seed,
      'data': context.data.digest,
    }
    if (split := self.split(context)) != task_lib.TRAIN:
      settings['split'] = split
    if config.init_dir is not None:
      settings['init'] = policies.digest(config.init_dir)
    return settings

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config, policy, data = self.training(), context.policy, context.data
    mesh, ids = context.mesh.build(), policy.config.special_ids
    train = config.trainer.batches(
      pair_rows(data.pairs(self.split(context)), ids),
      mesh,
      packable=config.loss.packable,
    )
    # The validation NLL sums over tokens: rows may be packed for any loss.
    validation = config.trainer.batches(
      pair_rows(data.pairs(task_lib.VALIDATION), ids), mesh, packable=True
    )
    result = trainer_lib.train(
      config.trainer,
      trainer_lib.Learner(
        model=policy,
        params=_first_params(config, policy, context.mesh, self.seed),
        loss=config.loss,
      ),
      batches=train,
      mesh_config=context.mesh,
      directory=output.path,
      evaluate_fn=validation_nll.evaluation(policy, validation, context.mesh),
      description=self.title,
    )
    return {
      'training': result.summary,
      'num_params': policy_lib.num_params(result.params),
      'vocabulary': data.described_vocabulary,
    }

  def trainings(self, policy: policy_lib.Policy) -> Iterable[base.Training]:
    config = self.config
    yield base.Training(
      name='bc', trainer=config.trainer, model=policy, loss=config.loss
    )

  def lines(self) -> Iterable[str]:
    trainer = self.config.trainer
    yield (
      f'  bc        {trainer.max_steps} steps of {trainer.tokens_per_batch} '
      'tokens'
    )


def _first_params(config, policy, mesh_config, seed) -> types.Params:
  if config.init_dir is None:
    return policy.init(jax.random.key(seed))
  return policies.load(config.init_dir, policy, mesh_config)


def pair_rows(
  pairs: pair_store.PairStore,
  ids: special_ids.SpecialIds = special_ids.T5,
) -> loader.Rows:
  """Returns stored pairs as rows to train on.

  Raises:
    ValueError: the pairs have no references.
  """
  references = pairs.reference_tokens
  if references is None:
    raise ValueError(
      'the pairs must have references for behavioural cloning; they have none. '
      "Set sources without references as the task's `grow` split."
    )

  def load(rows: np.ndarray, source_length: int, target_length: int) -> dict:
    return loader.decoder_batch(
      pairs.source_tokens.pad(rows, source_length, ids.pad),
      references.pad(rows, target_length, ids.pad),
      ids,
    )

  return loader.Rows(
    source_lengths=pairs.source_tokens.lengths,
    target_lengths=references.lengths,
    load=load,
    pad=ids.pad,
  )
