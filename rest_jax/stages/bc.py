"""Stage `bc`: behavioural cloning on D, the policy G=0, I=0."""

import dataclasses
import pathlib

import jax
import numpy as np

from rest_jax import settings as settings_lib
from rest_jax import types
from rest_jax.data import pair_store
from rest_jax.losses import base
from rest_jax.losses import bc as bc_loss
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import policies, prepare
from rest_jax.training import loader
from rest_jax.training import trainer as trainer_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class BCConfig:
  """How the first policy is trained.

  Attributes:
    trainer: length, optimiser, batches; `objective` is minus the validation NLL.
    loss: usually `BC` with label smoothing.
    init_dir: a finished policy of the same network to start from, such as an
      imported one; None for fresh parameters.
  """

  trainer: trainer_lib.TrainerConfig
  loss: base.Loss = bc_loss.BC()
  # What counts is the digest of its parameters, not where it lies.
  init_dir: str | None = settings_lib.recorded(default=None)


def run(
  config: BCConfig,
  *,
  policy: policy_lib.Policy,
  data: prepare.PreparedData,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  overwrite: bool = False,
  evaluate_fn: trainer_lib.EvaluateFn | None = None,
  evaluation_settings: dict | None = None,
  description: str = 'bc',
) -> pathlib.Path:
  """Trains by maximum likelihood on D.

  Source: ReST (arXiv 2308.08998), Eq. 1 and the first line of Algorithm 1.

  Args:
    config: see `BCConfig`.
    policy: the network.
    data: the prepared data.
    mesh_config: devices and rules.
    directory: the folder to write.
    seed: of the initialisation.
    overwrite: see `folder.begin`.
    evaluate_fn: chooses the checkpoint; None for the validation NLL.
    evaluation_settings: what feeds it, for the record.
    description: the words before the progress bar.

  Returns:
    The finished folder.
  """
  settings = {
    'bc': config,
    'network': policy.config,
    'seed': seed,
    'data': data.digest,
  }
  origins = {'data': data.directory}
  if config.init_dir is not None:
    settings['init'] = policies.digest(config.init_dir)
    origins['init'] = pathlib.Path(config.init_dir)
  if evaluate_fn is not None:
    settings['evaluation'] = evaluation_settings
  folder = folder_lib.begin(
    directory, settings, overwrite=overwrite, origins=origins
  )
  if folder.is_finished:
    return folder.path
  mesh = mesh_config.build()
  train = config.trainer.batches(
    **pair_batches(data.pairs(prepare.TRAIN)),
    mesh=mesh,
    packable=config.loss.packable,
  )
  if evaluate_fn is None:
    # The validation NLL is a sum over tokens, whatever the loss is.
    validation = config.trainer.batches(
      **pair_batches(data.pairs(prepare.VALIDATION)),
      mesh=mesh,
      packable=True,
    )
    evaluate_fn = trainer_lib.nll_evaluation(policy, validation, mesh_config)
  result = trainer_lib.train(
    config.trainer,
    model=policy,
    loss=config.loss,
    batches=train,
    mesh_config=mesh_config,
    params=_first_params(config, policy, mesh_config, seed),
    directory=folder.path,
    evaluate_fn=evaluate_fn,
    description=description,
  )
  folder.finish(
    {
      'training': result.summary,
      'num_params': policy_lib.num_params(result.params),
      'vocabulary': data.described_vocabulary,
    }
  )
  return folder.path


def _first_params(config, policy, mesh_config, seed) -> types.Params:
  if config.init_dir is None:
    return policy.init(jax.random.key(seed))
  return policies.load(config.init_dir, policy, mesh_config)


def pair_batches(pairs: pair_store.PairStore) -> dict:
  """Returns the arguments of `TrainerConfig.batches` for stored pairs.

  Args:
    pairs: with references.

  Returns:
    `source_lengths`, `target_lengths` and `load`.

  Raises:
    ValueError: if the split has no references.
  """
  references = pairs.reference_tokens
  if references is None:
    raise ValueError(
      'these pairs have no references; behavioural cloning needs them. Give '
      "sources without references as the task's `grow` split."
    )

  def load(rows: np.ndarray, source_length: int, target_length: int) -> dict:
    return loader.decoder_batch(
      pairs.source_tokens.pad(rows, source_length),
      references.pad(rows, target_length),
    )

  return {
    'source_lengths': pairs.source_tokens.lengths,
    'target_lengths': references.lengths,
    'load': load,
  }
