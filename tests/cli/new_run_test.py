"""Tests of `rest-jax new`."""

import pathlib
import re

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import dry_run, new_run
from rest_jax.config import gin_files, registry
from tests.own_data import facts_test


def _arguments(folder, *more):
  train = facts_test.write_pairs(folder, 'train', 300)
  validation = facts_test.write_pairs(folder, 'validation', 40)
  return [
    str(folder / 'my_run.gin'), '--train', *train, '--validation', *validation,
    *more,
  ]  # fmt: skip


def _built(folder):
  registry.register()
  return gin_files.parse_and_build(
    [str(folder / 'my_run.gin')], [], root=registry.ROOT
  )


def test_what_is_written_passes_a_dry_run(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr('shutil.which', lambda name: f'/bin/{name}')
  assert new_run.main(_arguments(tmp_path)) == 0
  printed = capsys.readouterr().out
  assert '300 training pairs, 40 validation pairs' in printed
  assert (
    f'rest-jax run --model_dir=runs/my_run --gin_file={tmp_path}/my_run.gin'
    in printed
  )
  experiment = _built(tmp_path)
  assert experiment.task.judge is None and experiment.task.ratings is None
  assert experiment.evaluate.splits == ('validation',)
  # New text has no reference to choose by.
  assert experiment.sample.decode.num_samples_per_source == 1
  plan = dry_run.describe(run_lib.Run(experiment, tmp_path / 'run'), 'rest')
  assert 'filter percentile' in plan and 'to do     bc' in plan


@pytest.mark.parametrize('reward', ['learned', 'chrf', None])
def test_with_ratings_and_a_test_set(tmp_path, capsys, reward):
  ratings = tmp_path / 'ratings.tsv'
  ratings.write_text(facts_test.RATINGS, encoding='utf-8')
  test = facts_test.write_pairs(tmp_path, 'test', 30)
  arguments = _arguments(
    tmp_path, '--ratings', str(ratings), '--test', *test, '--size', 'small'
  )
  if reward:
    arguments += ['--reward', reward]
  assert new_run.main(arguments) == 0
  experiment = _built(tmp_path)
  assert experiment.evaluate.splits == ('validation', 'test')
  assert experiment.network.num_encoder_layers == 4
  is_learned = experiment.trained_reward is not None
  assert is_learned == (reward != 'chrf')
  plan = dry_run.describe(run_lib.Run(experiment, tmp_path / 'run'), 'rest')
  assert ('fitted to 90 ratings' in plan) == is_learned
  text = (tmp_path / 'my_run.gin').read_text()
  assert 'Learned from 90 ratings' in text or not is_learned


@pytest.mark.parametrize(
  ('rated', 'reward'), [(True, 'features'), (False, 'consensus')]
)
def test_sources_without_references_for_grow(tmp_path, capsys, rated, reward):
  grow, ratings = tmp_path / 'grow.de', tmp_path / 'ratings.tsv'
  grow.write_text('der Hund\n' * 50 + 'die Katze sieht heute ein Haus\n')
  several = re.sub(r'Hund (\w+) \d+', r'Hund \1', facts_test.RATINGS)
  ratings.write_text(several, encoding='utf-8')
  arguments = _arguments(tmp_path, '--grow', str(grow))
  if rated:
    arguments += ['--ratings', str(ratings)]
  assert new_run.main(arguments) == 0
  assert 'Grow: 51 sources without references' in capsys.readouterr().out
  experiment = _built(tmp_path)
  assert len(list(experiment.task.grow.read())) == 51
  plan = dry_run.describe(run_lib.Run(experiment, tmp_path / 'run'), 'rest')
  assert f'    {reward}: ' in plan or f'  reward    {reward}\n' in plan
  assert experiment.improve.reference_weight == 0


def test_a_file_that_is_there_is_kept(tmp_path, capsys):
  path = tmp_path / 'my_run.gin'
  path.write_text('SEED = 1\n')
  assert new_run.main(_arguments(tmp_path)) == 1
  assert 'exists. Pass --overwrite' in capsys.readouterr().err
  assert path.read_text() == 'SEED = 1\n'
  assert new_run.main(_arguments(tmp_path, '--overwrite')) == 0
  assert 'BC_STEPS' in path.read_text()


@pytest.mark.parametrize(
  ('name', 'words'),
  [('my_run.txt', 'must be named *.gin'), ('no/my.gin', 'must be a folder')],
)
def test_a_wrong_name_is_refused(tmp_path, capsys, name, words):
  arguments = [str(tmp_path / name), *_arguments(tmp_path)[1:]]
  assert new_run.main(arguments) == 1
  assert words in capsys.readouterr().err


def test_files_that_do_not_correspond_write_nothing(tmp_path, capsys):
  arguments = _arguments(tmp_path)
  path = pathlib.Path(arguments[2])
  path.write_text(path.read_text() + 'Hund\n')
  assert new_run.main(arguments) == 1
  assert 'must have as many lines; got 301 and 300' in capsys.readouterr().err
  assert not (tmp_path / 'my_run.gin').exists()


def test_one_file_for_two_is_a_usage_error(tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    new_run.main(['a.gin', '--train', 'de.txt', '--validation', 'a', 'b'])
  assert 'expected 2 arguments' in capsys.readouterr().err
