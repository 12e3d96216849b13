"""Tests of checks: faults that are named before anything is trained."""

import dataclasses
import gzip
import pathlib

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import checks, dry_run
from rest_jax.config import gin_files, registry
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import sources
from rest_jax.planning import run_time
from rest_jax.rewards import guards, lexical
from rest_jax.synthetic import corpus
from tests import gin_configs_test, smoke

files = gin_configs_test.files
EXPERIMENTS = gin_configs_test.EXPERIMENTS
# Of text in files, and those with ratings.
OF_TEXT = [
  path for path in EXPERIMENTS if path.stem not in gin_configs_test.BUILT_IN
]
UNRATED = ('summarise_small', 'de_en_recommended')
RATED = [path for path in OF_TEXT if path.stem not in UNRATED]


def stem(path: pathlib.Path) -> str:
  return path.stem


def built(path: pathlib.Path, files: pathlib.Path, *overrides: str):
  registry.register()
  return gin_files.parse_and_build(
    [str(path)],
    [*gin_configs_test.overrides_for(path, files), *overrides],
    root=registry.ROOT,
  )


def refused(path: pathlib.Path, files: pathlib.Path, *overrides: str) -> str:
  with pytest.raises((ValueError, FileNotFoundError)) as caught:
    checks.check(run_lib.Run(built(path, files, *overrides), files / 'run'))
  assert not (files / 'run').exists()
  return str(caught.value)


@pytest.mark.parametrize('path', EXPERIMENTS, ids=stem)
def test_an_unknown_tokeniser_is_named(path, files):
  message = refused(path, files, 'EvaluateConfig.bleu_tokenize=xx')
  assert 'EvaluateConfig.bleu_tokenize must be one of' in message
  assert "'zh'" in message and "got 'xx'" in message


def test_an_unknown_split_is_refused_with_those_of_the_task(files):
  [path] = [path for path in OF_TEXT if path.stem == 'de_en_recommended']
  splits = "EvaluateConfig.splits=('validation', 'test_2018')"
  message = refused(path, files, splits)
  assert (
    'EvaluateConfig.splits must be some of train, validation, test, test_2017; '
    "got 'test_2018'" in message
  )


@pytest.mark.parametrize('path', EXPERIMENTS, ids=stem)
def test_a_value_of_another_type_is_named(path, files):
  message = refused(path, files, 'BC_STEPS=thirty')
  assert "TrainerConfig.max_steps must be an int; got 'thirty'" in message
  assert 'BC_STEPS' in message


@pytest.mark.parametrize('path', OF_TEXT, ids=stem)
def test_a_judge_of_another_language_is_named(path, files):
  message = refused(path, files, 'Task.judge=@SyntheticJudge()')
  assert message.startswith('Task.judge, a SyntheticJudge, must be able to')
  assert "'ein Satz'" in message and '--gin.Task.judge=None' in message


@pytest.mark.parametrize(
  ('old', 'new', 'words'),
  [
    ('dev', 'valid', "ratings of split 'dev', by which its checkpoint is"),
    ('dev', 'validation', "Rename 'validation' to 'dev' in the column"),
    ('dev', 'test2', "Give some sources to 'dev'"),
    ('train', 'training', "Rename 'training' to 'train'"),
    ('-', '_', 'must have rows with lang_pair'),
  ],
)
@pytest.mark.parametrize('path', RATED, ids=stem)
def test_ratings_that_cannot_be_learned_from_name_their_file(
  path, files, old, new, words
):
  text = gin_configs_test.RATINGS.replace(old, new)
  (files / 'ratings.tsv').write_text(text, encoding='utf-8')
  for name in files.glob('ratings/*.gz'):
    with gzip.open(name, 'wt', encoding='utf-8') as opened:
      opened.write(text)
  message = refused(path, files)
  assert words in message and str(files / 'ratings') in message


def test_simulated_raters_of_another_language_are_named(files):
  experiment = gin_configs_test.GIN / 'experiments/iwslt14_de_en.gin'
  message = refused(
    experiment,
    files,
    'RewardStage.rated_samples=@RatedSamples()',
    'RatedSamples.decode=@evaluate/DecodeConfig()',
    'RatedSamples.raters=@SyntheticRaters()',
  )
  assert message.startswith('RatedSamples.raters cannot rate the texts of task')
  assert 'Set RatedSamples.raters to None' in message


def test_constant_dev_scores_are_named(files):
  path = files / 'ratings.tsv'
  lines = gin_configs_test.RATINGS.splitlines(keepends=True)
  for row, line in enumerate(lines):
    fields = line.split('\t')
    if fields[1] == 'dev':
      lines[row] = '\t'.join([*fields[:4], '0.5', *fields[5:]])
  path.write_text(''.join(lines), encoding='utf-8')
  experiment = gin_configs_test.GIN / 'experiments/iwslt14_de_en.gin'
  message = refused(experiment, files)
  assert f"{path} must have scores that differ in split 'dev'" in message
  assert 'its 3 row(s) all have 0.5' in message


@pytest.mark.parametrize(
  ('override', 'words'),
  [
    ('REWARD_DIR=elsewhere', 'REWARD_DIR must be the folder of a'),
    ('GROW_DIR=elsewhere', 'GROW_DIR must be'),
    ('BC_INIT_DIR=elsewhere', 'BC_INIT_DIR must be'),
  ],
)
def test_folders_that_are_given_must_be_finished(files, override, words):
  experiment = gin_configs_test.GIN / 'experiments/smoke.gin'
  assert words in refused(experiment, files, override)


def _smoke(**changes):
  """The smoke experiment with other fields of its task, reward or refresh."""
  experiment = built(gin_configs_test.GIN / 'experiments/smoke.gin', None)
  fields = ('judge', 'more_tests', 'train', 'validation', 'test')
  task = {k: v for k, v in changes.items() if k in fields}
  return dataclasses.replace(
    experiment,
    task=dataclasses.replace(experiment.task, **task),
    **{k: v for k, v in changes.items() if k not in task},
  )


class _Judge(lexical.Chrf):
  def score(self, sources, hypotheses, references=None):
    return np.full(len(sources), np.nan)


def test_a_judge_gives_a_finite_number_for_each(tmp_path):
  with pytest.raises(ValueError, match=r'Task\.judge, a _Judge.* finite num'):
    checks.check(run_lib.Run(_smoke(judge=_Judge()), tmp_path))


def test_a_guard_may_not_veto_all_references(tmp_path):
  guarded = guards.Guarded(
    reward=lexical.Chrf(),
    guards=(guards.LengthRatio(low=0.1, high=0.2),),
    floor=-1.0,
  )
  run = run_lib.Run(_smoke(reward=guarded), tmp_path)
  with pytest.raises(ValueError, match="'length_ratio' of reward 'guarded' ve"):
    checks.check(run)


def test_a_reward_whose_package_is_missing_is_named(tmp_path, monkeypatch):
  def fail(self, hypothesis, reference):
    raise ImportError('no such package')

  monkeypatch.setattr(lexical.Bleu, '_reward', fail)
  run = run_lib.Run(_smoke(reward=lexical.Bleu()), tmp_path)
  with pytest.raises(ValueError, match=r"reward 'bleu', a Bleu,.*no such pack"):
    checks.check(run)


class _Unreadable:
  """Text that has been removed."""

  def read(self):
    raise FileNotFoundError('removed')


def test_what_is_finished_is_not_read_again(tmp_path):
  run_lib.Run(_smoke(), tmp_path).make('data')
  run = run_lib.Run(_smoke(validation=_Unreadable()), tmp_path)
  found = checks.check(run)
  assert set(found.first) == {'train', 'validation', 'test'}
  assert isinstance(found.first['test'], sources.Pair)
  assert found.num_ratings == 300


def test_a_test_set_that_is_added_is_read_before_it_is_prepared(tmp_path):
  run_lib.Run(_smoke(), tmp_path / 'run').make('data')
  more = {'more': sources.TextPairs(sources=['a'], references=['b'])}
  own = run_lib.Run(_smoke(more_tests=more), tmp_path / 'run', overwrite=True)
  assert checks.check(own).first['more'] == sources.Pair('a', 'b')
  counts = run_time.Counts(own)
  assert (counts.of('more', None), counts.of('test', 9)) == (1, 9)
  given = dataclasses.replace(
    _smoke(more_tests=more), data_dir=str(tmp_path / 'run/data')
  )
  elsewhere = tmp_path / 'other'
  assert 'more' not in checks.check(run_lib.Run(given, elsewhere)).first
  evaluated = dataclasses.replace(
    given, evaluate=dataclasses.replace(given.evaluate, splits=('more',))
  )
  with pytest.raises(ValueError, match='splits names more, of which DATA_DIR'):
    checks.check(run_lib.Run(evaluated, elsewhere))
  task = dataclasses.replace(given.task, grow=more['more'])
  grown = dataclasses.replace(given, task=task)
  with pytest.raises(
    ValueError, match=r'Task\.grow names grow, of which DATA_D'
  ):
    checks.check(run_lib.Run(grown, elsewhere))


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_text_without_references_is_refused(tmp_path, split):
  alone = sources.TextPairs(sources=['ein Haus', 'ein Hund'])
  run = run_lib.Run(_smoke(**{split: alone}), tmp_path)
  with pytest.raises(ValueError, match=f'the {split} split .* have references'):
    checks.check(run)


def test_one_pair_has_no_standard_error(tmp_path):
  one = sources.TextPairs(sources=['ein Haus'], references=['a house'])
  run = run_lib.Run(_smoke(test=one), tmp_path)
  with pytest.raises(ValueError, match='test split must keep at least two pai'):
    checks.check(run)


def test_data_that_are_made_again_are_read_again(tmp_path):
  run_lib.Run(_smoke(), tmp_path).make('data')
  more = {'more': sources.TextPairs(sources=['a'], references=['b'])}
  train = dataclasses.replace(_smoke().task.train, size=200)
  changed = _smoke(more_tests=more, train=train)
  run = run_lib.Run(changed, tmp_path, overwrite=True)
  checks.check(run)
  assert run.context.policy is not None
  run.make('data')
  made = run_lib.Run(changed, tmp_path)
  assert run.data.digest == made.data.digest
  assert run.data.digest_of('more') == made.data.digest_of('more')
  assert run.context.policy.config == made.context.policy.config


def test_few_simulated_ratings_are_read(tmp_path, monkeypatch):
  task = _smoke().task
  small = corpus.SyntheticRatings(size=4)
  experiment = dataclasses.replace(
    _smoke(), task=dataclasses.replace(task, ratings=small)
  )
  with pytest.raises(ValueError, match='SyntheticRatings must have ratings of'):
    checks.check(run_lib.Run(experiment, tmp_path))


@pytest.mark.parametrize('mode', ['rest', 'bc', 'prepare'])
def test_a_start_is_checked_before_its_first_stage(tmp_path, capsys, mode):
  override = 'EvaluateConfig.bleu_tokenize=xx'
  model_dir = str(tmp_path / 'run')
  assert smoke.command(override, run_mode=mode, model_dir=model_dir) == 1
  assert 'EvaluateConfig.bleu_tokenize must be' in capsys.readouterr().err
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['.lock']


def with_text(folder: pathlib.Path, num_pairs: int, *overrides: str):
  """An experiment on a few captions in files."""
  names = {}
  for side, word in (('SOURCES', 'Haus'), ('REFERENCES', 'house')):
    path = folder / f'{side}.txt'
    lines = [f'{word} {number} {number * 7}' for number in range(num_pairs)]
    path.write_text('\n'.join(lines), encoding='utf-8')
    names[side] = str(path)
  experiments = gin_configs_test.GIN / 'experiments/demo_references.gin'
  registry.register()
  return gin_files.parse_and_build(
    [str(experiments), str(gin_configs_test.GIN / 'tasks/text_pairs.gin')],
    [
      f'{split}_{side}=("{path}",)'
      for split in ('TRAIN', 'VALIDATION', 'TEST')
      for side, path in names.items()
    ]
    + list(overrides),
    root=registry.ROOT,
  )


SHORT = ('MAX_SOURCE_LENGTH=48', 'MAX_REFERENCE_LENGTH=48')


@pytest.mark.parametrize(
  ('packed', 'expected'),
  [
    ((), r'^buckets of BCConfig.* 128 tokens.*128 \(BUCKETS\)'),
    ((48,), r'^packed_lengths of BC.* 128 tokens.*128 \(PACKED_LENGTHS\)'),
  ],
)
def test_pairs_that_no_bucket_holds_are_named(tmp_path, packed, expected):
  experiment = with_text(tmp_path, 40, f'PACKED_LENGTHS={packed}')
  with pytest.raises(ValueError, match=expected):
    checks.check(run_lib.Run(experiment, tmp_path / 'run'))


def test_sampled_outputs_that_no_bucket_holds_are_named(tmp_path):
  experiment = with_text(
    tmp_path,
    40,
    *SHORT,
    'MAX_TARGET_LENGTH=56',
    'VOCABULARY_SIZE=40',
    'PACKED_LENGTHS=()',
  )
  with pytest.raises(ValueError, match=r'buckets of ImproveConfig.* 56 tok'):
    checks.check(run_lib.Run(experiment, tmp_path / 'run'))


def test_lengths_are_those_of_the_text_once_it_is_prepared(tmp_path):
  experiment = with_text(tmp_path, 40, 'VOCABULARY_SIZE=40')
  run = run_lib.Run(experiment, tmp_path / 'run')
  run.make('data')
  checks.check(run)


def test_a_vocabulary_that_the_text_cannot_fill_is_named(tmp_path):
  run = run_lib.Run(with_text(tmp_path, 40, *SHORT), tmp_path / 'run')
  with pytest.raises(ValueError, match=r'VocabularyConfig.* size must be at m'):
    dry_run.describe(run, 'rest')
  experiment = with_text(tmp_path, 40, *SHORT, 'VOCABULARY_SIZE=40')
  assert 'vocabulary 40' in dry_run.describe(
    run_lib.Run(experiment, tmp_path / 'run'), 'rest'
  )


def test_a_finished_stage_with_other_settings_is_refused_in_advance(run):
  folder = run.model_dir
  longer = built(
    gin_configs_test.GIN / 'experiments/smoke.gin', None, 'IMPROVE_STEPS=9'
  )
  with pytest.raises(ValueError, match=r'max_steps: 8 -> 9[\s\S]*gin\.VARIANT'):
    dry_run.describe(run_lib.Run(longer, folder), 'rest')
  # Not what the mode makes.
  dry_run.describe(run_lib.Run(longer, folder), 'bc')
  dry_run.describe(run_lib.Run(longer, folder, overwrite=True), 'rest')
  variant = dataclasses.replace(longer, variant='longer')
  dry_run.describe(run_lib.Run(variant, folder), 'rest')


def test_rows_of_other_splits_are_allowed():
  rated = ratings_lib.Ratings(
    source=list('abcde'),
    hypothesis=list('abcde'),
    score=np.array([1, 2, 3, 4, 5], np.float32),
    weight=np.ones(5, np.float32),
    split=['train', 'train', 'dev', 'dev', 'other'],
  )
  ratings_lib.check_splits(rated, 'file')
