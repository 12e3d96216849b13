"""Renders chosen settings as a gin file with comments."""

from collections.abc import Iterator
import os
import pathlib

from rest_jax.own_data import choices as choices_lib
from rest_jax.own_data import facts as facts_lib

_MODELS = {'tiny': 'tiny', 'small': 'small', 'base': 'wmt'}


def render(
  name: str,
  files: facts_lib.Files,
  facts: choices_lib.Facts,
  chosen: choices_lib.Choices,
) -> str:
  """Returns the text of a gin file."""
  return '\n'.join(
    [
      *_head(facts, chosen),
      *_text(name, files),
      *_lengths(facts, chosen),
      *_training(facts, chosen),
      *_sampling(chosen),
      *_reward(files, facts, chosen),
      '',
    ]
  )


def _head(
  facts: choices_lib.Facts, chosen: choices_lib.Choices
) -> Iterator[str]:
  reward = choices_lib.REWARDS[chosen.reward]
  row_filter = (
    'best_of_source'
    if chosen.reward == choices_lib.REFERENCES
    else 'percentile'
  )
  yield (
    f'# ReST on {facts.num_train:,} pairs of text, written by `rest-jax new`. '
    'To change a'
  )
  yield '# setting, edit a line here or pass --gin.NAME=VALUE to rest-jax run.'
  yield from (
    f"include 'gin_configs/{path}.gin'"
    for path in (
      'runs/rest',
      'tasks/text_pairs',
      f'models/{_MODELS[chosen.size]}',
      f'rewards/{reward}',
      'losses/bc',
      f'filters/{row_filter}',
      'sampling/temperature',
    )
  )


def _text(name: str, files: facts_lib.Files) -> Iterator[str]:
  splits = files.splits()
  paths = [path for pair in splits.values() for path in pair]
  paths += [path for path in (files.grow, files.ratings) if path is not None]
  paths = [os.path.abspath(path) for path in paths]
  folder = os.path.commonpath([os.path.dirname(path) for path in paths])
  yield from ('', '# --- text: line i of the references belongs to line i of')
  yield '# the sources; file names are relative to DATA.'
  yield f'TASK_NAME = {name!r}'
  yield f'DATA = {folder!r}'
  for split, pair in splits.items():
    for side, path in zip(('SOURCES', 'REFERENCES'), pair, strict=True):
      relative = os.path.relpath(os.path.abspath(path), folder)
      yield f'{split.upper()}_{side} = ({relative!r},)'
  if files.test is None:
    yield '# Without a test set, results are on the validation set only.'
    yield 'TEST_SOURCES = %VALIDATION_SOURCES'
    yield 'TEST_REFERENCES = %VALIDATION_REFERENCES'
    yield "EVALUATION_SPLITS = ('validation',)"
  if files.grow is not None:
    relative = os.path.relpath(os.path.abspath(files.grow), folder)
    yield '# Sources of Grow, without references.'
    yield 'Task.grow = @grow/SourceText()'
    yield 'grow/SourceText.folder = %DATA'
    yield f'grow/SourceText.files = ({relative!r},)'
  if files.ratings is not None:
    relative = os.path.relpath(os.path.abspath(files.ratings), folder)
    yield 'RATINGS = @RatingsFile()'
    yield 'RatingsFile.folder = %DATA'
    yield f'RatingsFile.path = {relative!r}'
    yield f'RatingsFile.lang_pair = {files.lang_pair!r}'
    yield f'RatingsFile.score_type = {files.score_type!r}'


def _lengths(
  facts: choices_lib.Facts, chosen: choices_lib.Choices
) -> Iterator[str]:
  yield from ('', '# --- vocabulary and lengths, in tokens')
  yield f'# About 25 times the square root of {facts.num_train:,} pairs.'
  yield f'VOCABULARY_SIZE = {chosen.vocabulary_size}'
  yield f'# For {facts.num_characters:,} distinct characters.'
  yield f'VocabularyConfig.character_coverage = {chosen.character_coverage}'
  if chosen.normalization_rule == 'identity':
    yield f'# The usual rule would change {facts.folded:.0%} of the references.'
    yield "VocabularyConfig.normalization_rule = 'identity'"
  yield (
    f'# Half of the sources have up to {facts.source.half}, 99 % up to '
    f'{facts.source.nearly_all}, the longest {facts.source.longest}.'
  )
  yield f'MAX_SOURCE_LENGTH = {chosen.max_source_length}'
  yield (
    f'# Half of the references have up to {facts.target.half}, 99 % up to '
    f'{facts.target.nearly_all}, the longest {facts.target.longest}.'
  )
  yield f'MAX_REFERENCE_LENGTH = {chosen.max_target_length}'
  yield '# Maximum length of a sampled output.'
  yield f'MAX_TARGET_LENGTH = {chosen.max_target_length}'
  yield '# Padded lengths of batches; each is compiled.'
  yield f'BUCKETS = {chosen.buckets}'
  if chosen.packed_lengths:
    yield '# Several pairs share a row of this length while BC or Improve train.'
    yield f'PACKED_LENGTHS = {chosen.packed_lengths}'


def _training(
  facts: choices_lib.Facts, chosen: choices_lib.Choices
) -> Iterator[str]:
  steps, improve = chosen.bc_steps, chosen.improve_steps
  epochs = (
    steps
    * chosen.tokens_per_batch
    / (1.2 * facts.num_train * facts.longer.mean)
  )
  yield from ('', '# --- training')
  yield '# Tokens per side, including padding. Lower it if memory is short.'
  yield f'TOKENS_PER_BATCH = {chosen.tokens_per_batch}'
  if chosen.dtype != 'float32':
    yield f'NetworkConfig.dtype = {chosen.dtype!r}'
  yield f'# About {epochs:.0f} passes over the training pairs.'
  yield f'BC_STEPS = {steps}'
  yield f'BC_WARMUP_STEPS = {min(steps // 8, 4000)}'
  yield f'BC_LEARNING_RATE = {chosen.bc_learning_rate}'
  yield f'BC_EVALUATE_EVERY = {steps // 4}'
  yield '# Improve steps: fine-tuning on the samples with the highest rewards.'
  yield 'NUM_GROW_STEPS = 1'
  yield 'NUM_IMPROVE_STEPS = 3'
  yield f'IMPROVE_STEPS = {improve}'
  yield f'IMPROVE_LEARNING_RATE = {chosen.improve_learning_rate}'
  yield "IMPROVE_DECAY = 'linear'"
  yield f'IMPROVE_EVALUATE_EVERY = {improve // 2}'
  yield 'IMPROVE_PATIENCE = 2'
  if chosen.reward == choices_lib.REFERENCES or facts.num_grow is not None:
    yield '# The same learning rate in each Improve step.'
    yield 'ImproveConfig.learning_rate_factor = 1.0'
  if facts.num_grow is not None:
    yield '# The best sample of each source, which has no reference.'
    yield 'PERCENTILES = (95.0, 97.0, 100.0)'
    yield 'ImproveConfig.reference_weight = 0'
  elif chosen.reward != choices_lib.REFERENCES:
    yield '# The best 50 %, 25 % and 10 % of the samples of each source.'
    yield 'PERCENTILES = (50.0, 75.0, 90.0)'
  if chosen.reward == 'chrf':
    yield '# References would have the highest chrF.'
    yield 'ImproveConfig.include_references = False'


def _sampling(chosen: choices_lib.Choices) -> Iterator[str]:
  yield from ('', '# --- sampling and evaluation')
  yield '# N samples per source; the paper draws 100 for IWSLT.'
  yield f'NUM_SAMPLES_PER_SOURCE = {chosen.num_samples_per_source}'
  yield '# The same number everywhere, so that all share one compiled program.'
  yield 'NUM_EVALUATION_SAMPLES = %NUM_SAMPLES_PER_SOURCE'
  yield 'NUM_SELECTION_SAMPLES = %NUM_SAMPLES_PER_SOURCE'
  yield '# Sources decoded at a time on a device. Lower it if memory is short.'
  yield f'BLOCK_SOURCES = {chosen.block_sources}'
  yield '# Maximum numbers of sources for Grow and evaluation; None for all.'
  yield f'MAX_GROW_SOURCES = {chosen.max_grow_sources}'
  yield f'EvaluateConfig.max_sources = {chosen.max_evaluation_sources}'
  yield f'MAX_SELECTION_SOURCES = {chosen.max_selection_sources}'


def _reward(
  files: facts_lib.Files,
  facts: choices_lib.Facts,
  chosen: choices_lib.Choices,
) -> Iterator[str]:
  yield from ('', '# --- reward')
  if chosen.reward == choices_lib.REFERENCES:
    yield '# chrF to the reference, and log-probability under the BC policy.'
    yield f'ScoringConfig.max_source_length = {chosen.max_source_length}'
    yield 'ScoringConfig.length_buckets = %BUCKETS'
  if chosen.reward in choices_lib.OF_REFERENCES:
    yield '# New text has no references, so rest-jax sample decodes greedily.'
    yield 'BEST_OF = 1'
    yield 'BEST_OF_TEMPERATURE = 0.0'
  if chosen.reward == 'features':
    yield f'# Fitted to {facts.num_ratings:,} ratings; see docs/rewards.md.'
  if chosen.reward != 'learned':
    return
  yield f'# Learned from {facts.num_ratings:,} ratings; see docs/rewards.md.'
  yield f'REWARD_MAX_LENGTH = {chosen.reward_max_length}'
  yield f'REWARD_BUCKETS = {chosen.reward_buckets}'
  yield 'ScoringConfig.length_buckets = %REWARD_BUCKETS'
  yield f'REWARD_TOKENS_PER_BATCH = {chosen.reward_tokens_per_batch}'
  yield f'REWARD_CORRUPTIONS = {chosen.reward_corruptions}'
  yield f'REWARD_SAMPLED_SOURCES = {chosen.reward_sampled_sources}'
  yield f'REWARD_PRETRAIN_STEPS = {chosen.reward_pretrain_steps}'
  yield f'REWARD_STEPS = {chosen.reward_steps}'
  yield f'REWARD_EVALUATE_EVERY = {chosen.reward_steps // 3}'
  yield '# With @RatedSamples() people also rate samples of BC.'
  yield 'REWARD_RATED_SAMPLES = None'
  yield '# False continues even if the reward is at chance on held-out ratings.'
  yield 'REWARD_MUST_AGREE = True'


def task_name(path: pathlib.Path) -> str:
  """Returns the name of a task, from the name of its gin file."""
  return path.stem or 'own'
