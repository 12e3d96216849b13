"""Stage `refresh`: the reward model learns from ratings of the latest policy.

Between two Grow steps: samples of the policy are chosen and rated, the reward
model is fine-tuned on old and new ratings, and the run's scale is made anew.

A policy that was trained on a reward moves to where that reward is too high,
which is where its ratings were few. ReST (arXiv 2308.08998) names this
over-optimisation and leaves a refreshed reward model as future work; the recipe
is ours.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
import types

from jaxtyping import Float32
import numpy as np

from rest_jax import settings
from rest_jax.data import annotations, sample_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import acquisition, learned_rows, learned_texts, normalize
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import (
  policies,
  prepare,
  refresh_samples,
  refresh_targets,
  score_samples,
)
from rest_jax.stages import reward as reward_stage
from rest_jax.storage import files
from rest_jax.training import trainer as trainer_lib

TO_RATE, RATED = annotations.TO_RATE, annotations.RATED
REWARD = 'reward'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefreshConfig:
  """How the reward model is kept up with the policy.

  Attributes:
    decode: draws of the latest policy from which samples are chosen.
    choose: which of them are rated.
    finetune: training on old and new ratings, from the present reward model;
      by the same loss; the checkpoint that agrees best with the dev ratings,
      old and new, is kept, chosen as that of the first training.
    raters: who rate when asked to, such as `SyntheticRaters`; None for people:
      the stage then writes `to_rate.tsv` and goes on once `rated.tsv` lies
      beside it.
    num_sources: training sources that are sampled for, evenly spread.
    new_weight: of a new rating, an old one's being 1, beside the numbers of
      annotators; above 0.
    max_selection_rows: dev ratings by which the checkpoint is chosen.
    num_resamples: of the bootstrap intervals.
  """

  decode: sampler_lib.DecodeConfig
  choose: acquisition.Acquisition = dataclasses.field(
    default_factory=acquisition.Acquisition
  )
  finetune: trainer_lib.TrainerConfig
  raters: annotations.Raters | None = None
  num_sources: int = 1_000
  new_weight: float = 1.0
  max_selection_rows: int = 2_000
  num_resamples: int = 1_000

  def __post_init__(self):
    settings.at_least(
      self, 1, 'num_sources', 'max_selection_rows', 'num_resamples'
    )
    settings.positive(self, 'new_weight')
    if self.decode.temperature <= 0:
      raise ValueError(
        'decode must draw different samples, at a temperature above 0; got '
        f'{self.decode.temperature}.'
      )
    if self.raters is not None and not isinstance(
      self.raters, annotations.Raters
    ):
      raise TypeError(
        'raters must be somebody who rates, such as SyntheticRaters, or None '
        f'for people; got {self.raters!r}.'
      )


def run(
  config: RefreshConfig,
  *,
  grow_step: int,
  policy: policy_lib.Policy,
  policy_directory: str | pathlib.Path,
  data: prepare.PreparedData,
  present: refresh_samples.Present,
  load: Callable[[pathlib.Path], rewards_base.Reward],
  grow_directories: Mapping[int, pathlib.Path],
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  overwrite: bool = False,
) -> pathlib.Path:
  """Refreshes the reward after Grow step g and its Improve steps.

  The scale. A normaliser maps the raw reward of D_1 at its 0.5 and 99.5
  percentiles, q_0 and q_1, to 0 and 1. The refreshed model's raw rewards are
  other numbers, so D_1 is scored again and the same two percentiles of its new
  raw rewards, q'_0 and q'_1, become the new scale:

    R'(x, y) = (r'(x, y) - q'_0) / (q'_1 - q'_0).

  This is the only increasing affine map of r' under which D_1 keeps its 0.5
  and 99.5 percentiles at 0 and 1, so a fixed threshold or a mean of R says
  where a text stands among D_1, before and after. Order is the new model's:
  thresholds keep their place on the scale, not the rows that they select.

  Args:
    config: see `RefreshConfig`.
    grow_step: g, from 1.
    policy: the network of the latest policy.
    policy_directory: a finished Improve step, the last of Grow step g.
    data: the prepared data.
    present: the reward that the policy was improved by.
    load: loads the whole reward around a folder of its trained part.
    grow_directories: finished Grow steps 1 ... g by number. Each gets rewards
      by the refreshed model under a new name, beside those it has.
    mesh_config: devices and rules.
    directory: the folder to write.
    seed: of draws, choice and training.
    overwrite: see `folder.begin`.

  Returns:
    The finished folder. `reward` in it is like the folder of stage `reward`;
    the manifest has the new normaliser, what was rated for which reason, and
    the agreement with ratings before and after.

  Raises:
    FileNotFoundError: if people have not rated yet; the message says what to
      do.
    ValueError: for ratings that cannot be used, naming the row.
  """
  folder = folder_lib.begin(
    directory,
    {
      'refresh': config,
      'grow_step': grow_step,
      'seed': seed,
      'network': policy.config,
      'policy': policies.digest(policy_directory),
      'data': data.digest,
      'reward': {'name': present.reward.name, 'digest': present.reward.digest},
      'normalizer': present.normalizer.to_json(),
      'grow': {
        str(g): folder_lib.content_digest(folder_lib.read_manifest(path))
        for g, path in grow_directories.items()
      },
    },
    overwrite=overwrite,
    origins={
      'policy': policy_directory,
      'data': data.directory,
      'reward.digest': present.directory,
      **{f'grow.{g}': path for g, path in grow_directories.items()},
    },
  )
  if folder.is_finished:
    _check_unchanged(folder)
    return folder.path
  refresh_samples.choose(
    config.choose,
    decode=config.decode,
    num_sources=config.num_sources,
    directory=folder.path,
    grow_step=grow_step,
    policy=policy,
    policy_directory=policy_directory,
    data=data,
    present=present,
    mesh_config=mesh_config,
    seed=seed,
  )
  new = annotations.collect(
    config.raters, refresh_samples.items(folder.path), folder.path
  )
  trained = _finetune(
    config, folder, present, new, data, mesh_config, seed, overwrite
  )
  for message in folder_lib.read_manifest(trained).get(folder_lib.WARNINGS, ()):
    folder.warn(message)
  reward = load(trained)
  # Variants refresh otherwise, and may share D_1.
  named = _Renamed(
    reward, f'{reward.name}.refreshed_{grow_step}.{reward.digest[:8]}'
  )
  normalizer = None
  for g, path in sorted(grow_directories.items()):
    normalizer = _rescore(named, path, g, data, normalizer)
  if normalizer is None:
    raise ValueError('grow_directories must have Grow step 1; got none.')
  folder.finish(
    {
      'normalizer': normalizer.to_json(),
      'rated': {
        'file': RATED,
        'sha256': files.sha256(folder.path / RATED),
        'rows': len(new),
      },
      'annotated': refresh_samples.by_reason(folder.path, new),
      'rescored_as': named.name,
      'reward': rewards_base.describe(reward),
    },
    beside=[
      file
      for path in grow_directories.values()
      for file in _rewards_files(path, named.name)
    ],
  )  # fmt: skip
  return folder.path


def ratings_of(directory: str | pathlib.Path) -> ratings_lib.Ratings:
  """Returns the new ratings of a finished refresh."""
  path = pathlib.Path(directory)
  return annotations.read(path / RATED, refresh_samples.items(path))


def _check_unchanged(folder: folder_lib.StageFolder) -> None:
  """Raises ValueError if ratings were changed after they were learned from."""
  path, learned = folder.path / RATED, folder.manifest()['rated']
  if files.sha256(path) != learned['sha256']:
    raise ValueError(
      f'{path} must be as it was when the reward model learned from it; it was '
      f'changed since. Put it back. To learn from it as it is, keep a copy, '
      f'remove {folder.path}, and lay the copy there when it is asked for: the '
      'same rows will be.'
    )


def _finetune(
  config: RefreshConfig,
  folder: folder_lib.StageFolder,
  present: refresh_samples.Present,
  new: ratings_lib.Ratings,
  data: prepare.PreparedData,
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
  overwrite: bool,
) -> pathlib.Path:
  """Fits the trained part to old and new ratings; returns its folder."""
  before = folder_lib.read_manifest(present.directory)
  trainer = dataclasses.replace(config.finetune, seed=seed)
  inner = folder_lib.begin(
    folder.path / REWARD,
    {
      'refresh': folder.settings,
      'trainer': trainer,
      'before': before['params_digest'],
      'rated': files.sha256(folder.path / RATED),
      'num_old': len(present.ratings),
    },
    overwrite=overwrite,
  )
  if inner.is_finished:
    return inner.path
  fitter, params = reward_stage.restore(
    present.directory, data.vocabulary, mesh_config
  )
  part = reward_stage.trained(present.config)
  if part is None:  # `Experiment` refuses it; for type checkers.
    raise ValueError(f'{present.config.name} has no part that is trained')
  targets = refresh_targets.Targets.of(
    present.ratings,
    new,
    new_weight=config.new_weight,
    reward=present.reward,
    whole=refresh_targets.Whole.of(present.config, part),
    scale=learned_rows.Scale(**before['rating_scale']),
  )
  train, dev = map(targets.rows, (reward_stage.TRAIN, reward_stage.DEV))
  dev = dev[
    learned_texts.spread_rows(
      [targets.rated.source[row] for row in dev], config.max_selection_rows
    )
  ]
  refreshed, summary = fitter.fit(
    trainer,
    params=params,
    texts=targets.texts(train),
    weights=targets.weights[train],
    scale=targets.scale,
    loss=part.loss,
    within_source=part.choose_within_source,
    chosen_by=targets.texts(dev),
    directory=inner.path,
    description='refresh: ratings',
    beside=targets.others[dev],
    warn=inner.warn,
  )
  found = {
    name: targets.agreement(fitter, of, num_resamples=config.num_resamples)
    for name, of in (('agreement_before', params), ('agreement', refreshed))
  }
  for message in agreement_lib.warnings(found['agreement']):
    inner.warn(message)
  kept = {'rating_scale', 'network', 'num_params', 'scoring', 'vocabulary'}
  kept |= before.keys() & {'pooling'}  # Versions before have none.
  inner.finish(
    {
      **{name: before[name] for name in kept},
      **found,
      'params_digest': summary['params_digest'],
      'training': summary,
      'trained_on': targets.counts(reward_stage.TRAIN),
      'policy_digest': folder.settings['policy'],
    }
  )
  return inner.path


def _rescore(
  reward: '_Renamed',
  directory: pathlib.Path,
  grow_step: int,
  data: prepare.PreparedData,
  normalizer: normalize.Normalizer | None,
) -> normalize.Normalizer:
  """Scores a stored D_g; the first one makes the scale."""
  manifest = folder_lib.read_manifest(directory)
  return score_samples.score(
    directory,
    reward=reward,
    num_shards=len(manifest['shards']),
    pairs=data.pairs(manifest['split']),
    vocabulary=data.vocabulary,
    normalizer=normalizer,
    description=f'refresh: score grow {grow_step}',
  )


def _rewards_files(directory: pathlib.Path, name: str) -> list[pathlib.Path]:
  """The files of one reward of a stored D_g."""
  num_shards = len(folder_lib.read_manifest(directory)['shards'])
  return [
    sample_store.rewards_path(directory, name, shard, num_shards)
    for shard in range(num_shards)
  ]


class _Renamed:
  """A reward with one column in the store, under another name."""

  needs_references = False
  scales: Mapping[str, normalize.Normalizer] = types.MappingProxyType({})

  def __init__(self, reward: rewards_base.Reward, name: str):
    self.name = name
    self.digest = reward.digest
    self.floor = rewards_base.floor(reward)
    self._reward = reward

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: rewards_base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    return self._reward.score(sources, hypotheses, references)

  def columns(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: rewards_base.References = None,
  ) -> dict[str, Float32[np.ndarray, ' n']]:
    return {self.name: self.score(sources, hypotheses, references)}
