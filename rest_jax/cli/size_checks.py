"""Checks whether the text of a task fits the vocabulary and the lengths."""

from collections.abc import Iterator, Sequence
import itertools
import pathlib
import tempfile
from typing import NamedTuple

from rest_jax import experiment as experiment_lib
from rest_jax import experiment_run as run_lib
from rest_jax.data import sources, vocabularies
from rest_jax.synthetic import corpus
from rest_jax.training import trainer as trainer_lib

# Maximum number of pairs to train a vocabulary on, which takes about a second;
# more text is not checked. Pairs of the built-in task are generated, not read.
_MAX_PAIRS, _MAX_SIMULATED = 10_000, 2_000


class _Lengths(NamedTuple):
  """Padded lengths of a setting.

  Attributes:
    least: minimum of the last length, in tokens.
  """

  setting: str
  lengths: Sequence[int]
  least: int


def check_lengths(run: run_lib.Run) -> None:
  """Raises ValueError if a pair may be longer than the padded lengths."""
  task = run.experiment.task
  for setting, lengths, least in _lengths(run):
    if lengths[-1] < least:
      packed = setting.startswith('packed')
      raise ValueError(
        f'{setting} must hold pairs of {least} tokens, which task {task.name} '
        f'has or allows; got {tuple(lengths)}. Add {least} '
        f'({"PACKED_LENGTHS" if packed else "BUCKETS"}), or set '
        f'Task.max_source_length and Task.max_target_length (and '
        f'MAX_TARGET_LENGTH) to at most {lengths[-1]}: longer pairs are '
        'dropped and counted.'
      )


def _lengths(run: run_lib.Run) -> Iterator[_Lengths]:
  experiment = run.experiment
  source, target = _longest(run)
  pair = max(source, target)
  bc, improve = experiment.bc, experiment.improve
  yield from _of_trainer('BCConfig', bc.trainer, bc.loss.packable, pair)
  sampled = max(pair, experiment.grow.decode.max_target_length)
  yield from _of_trainer(
    'ImproveConfig', improve.trainer, improve.loss.packable, sampled
  )
  for name, decode in (
    ('GrowConfig.decode', experiment.grow.decode),
    ('EvaluateConfig.decode', experiment.evaluate.decode),
    ('EvaluateConfig.selection', experiment.evaluate.selection),
  ):
    yield _Lengths(
      f'source_length_buckets of {name}', decode.source_length_buckets, source
    )


def _of_trainer(
  name: str, trainer: trainer_lib.TrainerConfig, packable: bool, least: int
) -> Iterator[_Lengths]:
  if packable and trainer.packed_lengths:
    yield _Lengths(
      f'packed_lengths of {name}.trainer', trainer.packed_lengths, least
    )
  elif not isinstance(trainer.buckets, int):
    yield _Lengths(f'buckets of {name}.trainer', trainer.buckets, least)


def _longest(run: run_lib.Run) -> tuple[int, int]:
  """Returns the longest source and reference; before preparation the limits."""
  task = run.experiment.task
  if not run.context.is_prepared:
    return task.max_source_length, task.max_target_length
  longest = [0, 0]
  for split in run.data.splits:
    pairs = run.data.pairs(split)
    sides = pairs.source_tokens, pairs.reference_tokens
    for side, tokens in enumerate(sides):
      if tokens is not None:
        longest[side] = max(longest[side], int(tokens.lengths.max()))
  return longest[0], longest[1]


def check_vocabulary(experiment: experiment_lib.Experiment) -> None:
  """Raises ValueError if there is too little text for the vocabulary size.

  Trains the vocabulary if the task has little text; otherwise does nothing.
  """
  task = experiment.task
  if task.vocabulary.model_file is not None:
    return
  read = [task.train] if task.grow is None else [task.train, task.grow]
  most = _MAX_PAIRS
  if isinstance(task.train, corpus.SyntheticPairs):
    most = _MAX_SIMULATED
    if task.train.size > most:
      return
  pairs = list(
    itertools.islice(
      itertools.chain.from_iterable(source.read() for source in read),
      most + 1,
    )
  )
  if len(pairs) > most:
    return
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / vocabularies.FILE
    try:
      vocabularies.train(task.vocabulary, _texts(pairs), path)
    except ValueError as error:
      raise ValueError(
        f'VocabularyConfig of task {task.name}: {error}'
      ) from error


def _texts(pairs: Sequence[sources.Pair]) -> Iterator[str]:
  for pair in pairs:
    yield pair.source
    if pair.reference is not None:
      yield pair.reference
