"""Checks of settings and input of all stages, before anything is trained.

`--dry_run` and every start of a run make these checks. They take seconds,
whereas a late stage would fail only after all earlier ones were trained.
"""

from collections.abc import Iterator, Mapping, Sequence
import itertools
import pathlib
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from rest_jax import experiment as experiment_lib
from rest_jax import experiment_run as run_lib
from rest_jax.cli import size_checks
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import sources
from rest_jax.data import task as task_lib
from rest_jax.evaluation import text_metrics
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import guards, learned_references
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import prepare, train_reward
from rest_jax.storage import paths
from rest_jax.synthetic import corpus

# Pairs per split to read, and pairs for the judge and the reward to score.
_NUM_READ, _NUM_SCORED = 64, 8
# With fewer pairs, a guard may veto all of them by chance.
_MIN_VETOED = 8
# Simulated ratings take half a millisecond each, and always have all splits.
_MAX_SIMULATED = 200


class Found(NamedTuple):
  """Facts about the input, for the plan of a run.

  Attributes:
    first: first pair of each split.
    num_ratings: number of ratings that a reward model will be trained on; None
      for none.
  """

  first: dict[str, sources.Pair]
  num_ratings: int | None


def check(run: run_lib.Run) -> Found:
  """Raises if a stage of the run would fail because of its settings or input.

  Prepared data are checked instead of the files that they were made from.

  Raises:
    ValueError: if settings or input cannot work; the message names them.
    FileNotFoundError: if a file or folder does not exist.
  """
  experiment = run.experiment
  text_metrics.check_tokenizer(
    'EvaluateConfig.bleu_tokenize', experiment.evaluate.bleu_tokenize
  )
  run.context.check_vocabularies()
  _check_folders(run)
  size_checks.check_lengths(run)
  pairs = {split: list(read) for split, read in _pairs(run)}
  _check_measured(experiment, pairs)
  _check_references('reward', experiment.reward, pairs)
  if experiment.task.judge is not None:
    judged = {split: pairs[split] for split in experiment.evaluate.splits}
    _check_references('judge', experiment.task.judge, judged)
  _check_raters(experiment, pairs[task_lib.TRAIN][:1])
  scored = _usable(
    [*pairs[task_lib.VALIDATION][:_NUM_SCORED], *pairs[task_lib.TEST]]
  )[: 2 * _NUM_SCORED]
  if scored:
    _check_judges(run, scored)
    _check_rewards(experiment.reward, scored, _usable(pairs[task_lib.TRAIN]))
  return Found(
    {split: read[0] for split, read in pairs.items()}, _check_ratings(run)
  )


def _check_folders(run: run_lib.Run) -> None:
  """Raises FileNotFoundError unless the given folders are finished stages."""
  for name, directory in run.experiment.given_folders.items():
    if name == 'DATA_DIR':
      continue  # The first run of a comparison creates its data.
    path = paths.of(directory) / folder_lib.MANIFEST
    if not path.exists():
      raise FileNotFoundError(
        f'{name} must be the folder of a finished stage, with its '
        f'{path.name}; {path} does not exist (current folder: '
        f'{pathlib.Path.cwd()}).'
      )


def _pairs(run: run_lib.Run) -> Iterator[tuple[str, Sequence[sources.Pair]]]:
  """Yields the first pairs of each split."""
  experiment = run.experiment
  task, given = experiment.task, experiment.data_dir
  stored = run.data.splits if run.context.is_prepared else ()
  for split, source in task.splits.items():
    if split in stored:
      yield split, _stored(run.data, split)
      continue
    if stored and given:
      if split in (*experiment.evaluate.splits, task_lib.GROW):
        named = (
          'Task.grow' if split == task_lib.GROW else 'EvaluateConfig.splits'
        )
        raise ValueError(
          f'{named} names {split}, of which DATA_DIR {given} has no pairs; it has '
          f'{", ".join(stored)}.'
        )
      continue
    read: list[sources.Pair] = []
    for part in sources.parts(source):
      first = list(itertools.islice(part.read(), _NUM_READ))
      if not first:
        raise ValueError(f'the {split} split of task {task.name} is empty')
      _check_languages(run, split, part, first)
      read += first
    yield split, read[:_NUM_READ]


def _check_languages(
  run: run_lib.Run,
  split: str,
  source: sources.PairSource,
  pairs: Sequence[sources.Pair],
) -> None:
  """Raises ValueError unless pairs are in languages that the tokeniser has."""
  vocabulary = run.context.given_vocabulary
  if vocabulary is None:
    return
  for languages in dict.fromkeys(pair.languages for pair in pairs):
    try:
      vocabulary.sides(languages)
    except ValueError as error:
      raise ValueError(
        f'the {split} split of task {run.experiment.task.name}: {error} The text '
        f'is that of {str(source)[:200]}.'
      ) from error


def _stored(data: prepare.PreparedData, split: str) -> list[sources.Pair]:
  pairs = data.pairs(split)
  return [
    sources.Pair(
      pairs.source_text(row),
      pairs.reference_text(row) if pairs.has_references else None,
    )
    for row in range(min(len(pairs), _NUM_READ))
  ]


def _usable(pairs: Sequence[sources.Pair]) -> list[sources.Pair]:
  return [p for p in pairs if p.source.strip() and (p.reference or '').strip()]


def _check_measured(
  experiment: experiment_lib.Experiment,
  pairs: Mapping[str, list[sources.Pair]],
) -> None:
  """Raises ValueError unless BC can be trained, and policies be measured."""
  evaluated = experiment.evaluate.splits
  trained = () if experiment.bc_dir else (task_lib.VALIDATION,)
  for split in (task_lib.TRAIN, *trained, *evaluated):
    if pairs[split][0].reference is None:
      raise ValueError(
        f'the {split} split of task {experiment.task.name} must have references '
        'to train BC, or to measure BLEU; got sources alone. Use them as '
        'Task.grow, or leave a test set out of EvaluateConfig.splits.'
      )
  for split in (task_lib.VALIDATION, *evaluated):
    prepare.check_count(split, len(pairs[split]))


def _check_references(
  setting: str,
  reward: rewards_base.RewardConfig,
  pairs: Mapping[str, list[sources.Pair]],
) -> None:
  for split, read in pairs.items():
    if reward.needs_references and read[0].reference is None:
      raise ValueError(
        f'{setting} {reward.name!r} compares with references, and the {split} '
        'split has none. Use pairs for this split of Task, or choose a '
        f'{setting} that needs no references.'
      )


def _check_judges(run: run_lib.Run, pairs: Sequence[sources.Pair]) -> None:
  """Raises ValueError unless the judge and the raters can score some pairs."""
  experiment = run.experiment
  texts = [p.source for p in pairs], [p.reference or '' for p in pairs]
  judge, refresh = experiment.task.judge, experiment.refresh
  if judge is not None:
    remedy = 'Choose a judge for this text, or none: --gin.Task.judge=None.'
    for part in rewards_base.all_parts(judge):
      _check_scores('Task.judge', part, pairs, remedy)
  raters = None if refresh is None else refresh.raters
  if raters is not None:
    remedy = (
      'Set RefreshConfig.raters to raters of this text, or to None for people.'
    )
    _try(
      'RefreshConfig.raters', raters, pairs, remedy,
      lambda: raters.rate(*texts)[0],
    )  # fmt: skip


def _check_rewards(
  reward: rewards_base.RewardConfig,
  pairs: Sequence[sources.Pair],
  train: Sequence[sources.Pair],
) -> None:
  """Raises unless the parts of a reward that need no loading can score."""
  remedy = 'Correct it, or choose a reward of gin_configs/rewards/.'
  for part in rewards_base.all_parts(reward):
    _check_scores(f'reward {part.name!r}', part, pairs, remedy)
    if isinstance(part, guards.Guarded):
      _check_guards(part, train)


def _check_scores(
  setting: str,
  config: rewards_base.RewardConfig,
  pairs: Sequence[sources.Pair],
  remedy: str,
) -> None:
  """Checks a reward or a part of one, and has it score if it can at once."""
  config.check()
  score = getattr(config, 'score', None)
  if score is not None:
    read = [pair.source for pair in pairs]
    references = [pair.reference for pair in pairs]
    _try(
      setting, config, pairs, remedy,
      lambda: score(read, references, references),
    )  # fmt: skip


def _try(
  setting: str,
  scorer: Any,
  pairs: Sequence[sources.Pair],
  remedy: str,
  score: Any,
) -> None:
  """Raises ValueError unless `score` returns one finite number per pair."""
  name = f'{setting}, a {type(scorer).__name__}, must be able to score the task'
  first = f'{pairs[0].source[:80]!r} and {(pairs[0].reference or "")[:80]!r}'
  try:
    scores = np.asarray(score(), np.float64)
  except Exception as error:
    raise ValueError(
      f"{name}'s pairs, such as {first}: {str(error).strip()} {remedy}"
    ) from error
  if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
    raise ValueError(
      f"{name}'s pairs, with a finite number for each; for {len(pairs)} pairs, "
      f'such as {first}, it gave {str(scores)[:80]}. {remedy}'
    )


def _check_guards(
  guarded: guards.Guarded, pairs: Sequence[sources.Pair]
) -> None:
  """Raises ValueError if a guard vetoes all references."""
  if len(pairs) < _MIN_VETOED:
    return
  texts = [p.source for p in pairs], [p.reference or '' for p in pairs]
  for guard in guarded.guards:
    passed = guard.prepare(_Pairs(pairs))(*texts)  # pyright: ignore[reportArgumentType]
    vetoed = len(pairs) - int(np.count_nonzero(passed))
    message = (
      f'guard {guard.name!r} of reward {guarded.name!r} vetoes {vetoed} of the '
      f'first {len(pairs)} references of the train split, such as '
      f'{texts[1][int(np.argmin(passed))][:80]!r} of '
      f'{texts[0][int(np.argmin(passed))][:80]!r}. Set the limits of '
      f'{type(guard).__name__} for this language pair, or remove it from '
      'Guarded.guards.'
    )
    if vetoed == len(pairs):
      raise ValueError(message)
    if vetoed > len(pairs) // 2:
      logging.warning('%s', message)


class _Pairs:
  """Pairs in memory, with the methods of a `PairStore` that guards call."""

  def __init__(self, pairs: Sequence[sources.Pair]):
    self._pairs = pairs

  def __len__(self) -> int:
    return len(self._pairs)

  def source_text(self, row: int) -> str:
    return self._pairs[row].source

  def reference_text(self, row: int) -> str:
    return self._pairs[row].reference or ''


def _check_raters(
  experiment: experiment_lib.Experiment, pairs: Sequence[sources.Pair]
) -> None:
  """Raises ValueError if simulated raters would rate texts of another task."""
  stage = experiment.trained_reward
  for name, config in (
    ('RatedSamples.raters', stage.rated_samples if stage else None),
    ('RefreshConfig.raters', experiment.refresh),
  ):
    if config is None or not isinstance(config.raters, corpus.SyntheticRaters):
      continue
    for pair in pairs:
      try:
        config.raters.rate([pair.source], [pair.source])
      except ValueError as error:
        raise ValueError(
          f'{name} cannot rate the texts of task {experiment.task.name}: '
          f'{error} Set {name} to None to have people rate.'
        ) from error


def _check_ratings(run: run_lib.Run) -> int | None:
  """Returns the number of ratings for a reward model, which must be fit."""
  experiment = run.experiment
  stage, ratings = experiment.trained_reward, experiment.task.ratings
  is_trained = any(s.is_finished for s in run.of_kind(train_reward.TrainReward))
  if stage is None or ratings is None or experiment.reward_dir is not None:
    return None
  if is_trained and experiment.refresh is None:
    return None
  if (
    isinstance(ratings, corpus.SyntheticRatings)
    and ratings.size > _MAX_SIMULATED
  ):
    return ratings.size
  rated = ratings.read()
  ratings_lib.check_splits(rated, ratings_lib.place(ratings))
  if stage.references is not None:
    learned_references.check(rated.select('train'), ratings_lib.place(ratings))
  return len(rated)
