"""Tests of `rest_jax.run`, without a training."""

import pathlib
import subprocess
import sys
import types

import pytest

import rest_jax
from rest_jax import experiment_run
from rest_jax.data import ratings
from rest_jax.evaluation import metrics
from rest_jax.evaluation import results as results_lib
from tests.evaluation import made
from tests.own_data import facts_test


def _variant(name, improve, reward):
  return made.variant(
    int(improve > 0),
    improve,
    name=name,
    reward=metrics.Estimate(reward, 0.5),
    bleu=30.0 + improve,
    chrf=50.0,
  )


@pytest.fixture
def rested(monkeypatch):
  """Runs that were asked for; each has results at once."""
  runs = []

  def rest(run):
    runs.append(run)
    results_lib.write(
      run.model_dir / 'results.json',
      results_lib.Results(
        task='own',
        variants=(_variant('BC', 0, 40.0), _variant('ReST', 1, 44.0)),
      ),
    )

  monkeypatch.setattr(experiment_run.Run, 'rest', rest)
  return runs


def _lists(folder, name, num_pairs):
  paths = facts_test.write_pairs(folder, name, num_pairs)
  return tuple(
    pathlib.Path(path).read_text(encoding='utf-8').splitlines()
    for path in paths
  )


def test_files_presets_and_settings_become_an_experiment(tmp_path, rested):
  result = rest_jax.run(
    train=facts_test.write_pairs(tmp_path, 'train', 300),
    validation=facts_test.write_pairs(tmp_path, 'validation', 40),
    reward='chrf',
    preset='small',
    model_dir=tmp_path / 'run',
    settings={'SEED': 3, 'BUCKETS': (16, 64), 'VARIANT': pathlib.Path('a')},
  )
  [run] = rested
  assert result.run is run
  experiment = run.experiment
  assert (experiment.seed, experiment.variant) == (3, 'a')
  assert experiment.reward.name == 'chrf'
  assert experiment.bc.trainer.buckets == (16, 64)
  assert experiment.network.emb_dim == 192
  assert (tmp_path / 'run' / 'own.gin').is_file()
  # What was asked, settings included.
  assert 'SEED' in (tmp_path / 'run' / 'config.gin').read_text()


def test_texts_in_memory_are_the_same_pairs(tmp_path, rested):
  rest_jax.run(
    train=_lists(tmp_path, 'train', 300),
    validation=_lists(tmp_path, 'validation', 40),
    test=_lists(tmp_path, 'test', 30),
    model_dir=tmp_path / 'run',
  )
  [run] = rested
  task = run.experiment.task
  sources, references = _lists(tmp_path, 'train', 300)
  pairs = list(task.train.read())
  assert [pair.source for pair in pairs] == sources
  assert [pair.reference for pair in pairs] == references
  assert len(list(task.test.read())) == 30


def test_other_texts_than_those_of_a_finished_folder_are_refused(
  tmp_path, rested
):
  train, validation = (
    _lists(tmp_path, name, number)
    for name, number in (('train', 300), ('validation', 40))
  )
  rest_jax.run(train=train, validation=validation, model_dir=tmp_path / 'run')
  rested[0].make('data')
  rest_jax.run(train=train, validation=validation, model_dir=tmp_path / 'run')
  other = tuple(side[::-1] for side in train)
  with pytest.raises(ValueError, match=r'train\.sources\.txt .* got other'):
    rest_jax.run(train=other, validation=validation, model_dir=tmp_path / 'run')


def test_ratings_make_a_learned_reward(tmp_path, rested):
  path = tmp_path / 'ratings.tsv'
  path.write_text(facts_test.RATINGS, encoding='utf-8')
  rest_jax.run(
    train=facts_test.write_pairs(tmp_path, 'train', 300),
    validation=facts_test.write_pairs(tmp_path, 'validation', 40),
    ratings=path,
    model_dir=tmp_path / 'run',
  )
  [run] = rested
  assert isinstance(run.experiment.task.ratings, ratings.RatingsFile)
  assert run.experiment.trained_reward is not None


def test_the_table_is_pandas_where_there_is_one(tmp_path, rested, monkeypatch):
  result = rest_jax.run(
    train=facts_test.write_pairs(tmp_path, 'train', 300),
    validation=facts_test.write_pairs(tmp_path, 'validation', 40),
    model_dir=tmp_path / 'run',
  )
  rows = [
    {
      'policy': name, 'split': 'validation', 'reward': reward,
      'reward_stderr': 0.5, 'judge': None, 'bleu': bleu, 'chrf': 50.0,
    }
    for name, reward, bleu in (('BC', 40.0, 30.0), ('ReST', 44.0, 31.0))
  ]  # fmt: skip
  monkeypatch.setitem(sys.modules, 'pandas', None)
  assert result.table == rows
  pandas = types.SimpleNamespace(DataFrame=lambda made: ('frame', made))
  monkeypatch.setitem(sys.modules, 'pandas', pandas)
  assert result.table == ('frame', rows)
  assert 'ReST' in repr(result)


def test_other_libraries_are_quiet_in_a_notebook():
  program = """
import logging
from rest_jax import quickstart
from rest_jax.runtime import progress
quickstart._set_up_log()
progress.Progress('ours', 2, 'step')._line()
logging.getLogger('jax').warning('theirs')
"""
  found = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  assert found.stderr.count('ours') == 1
  assert 'theirs' not in found.stderr


def test_pairs_that_are_none_are_refused(tmp_path, rested):
  pairs = facts_test.write_pairs(tmp_path, 'train', 300)
  with pytest.raises(ValueError, match='train must be two files, or two lists'):
    rest_jax.run(train='a.de', validation=pairs, model_dir=tmp_path / 'run')
  with pytest.raises(ValueError, match=r"texts of one line; got 'a\\nb'"):
    rest_jax.run(
      train=(['a\nb'], ['c']), validation=pairs, model_dir=tmp_path / 'run'
    )
  with pytest.raises(ValueError, match='texts of one line; got nan'):
    rest_jax.run(
      train=(['a'], [float('nan')]),
      validation=pairs,
      model_dir=tmp_path / 'run',
    )
  assert not rested
