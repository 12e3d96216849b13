"""The loop under rewards that no stage trains, without any ratings."""

import json

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.data import sample_store
from rest_jax.rewards import lexical
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import improve as improve_stage
from rest_jax.stages import improve_rows
from tests import smoke

GIN = """
REWARD = @Guarded()
Guarded.reward = @Ensemble()
Guarded.guards = (@Repetition(), @Language())
Guarded.floor = -5.0
Ensemble.components = (@one/Component(), @two/Component())
one/Component.reward = @Chrf()
two/Component.reward = @Ter()
two/Component.low = -1.0
"""
COLUMNS = {
  'guarded', 'ensemble', 'chrf', 'ter', 'guarded_repetition', 'guarded_language',
}  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('given')
  finished = smoke.finished(tmp_path_factory.getbasetemp())
  (folder / 'reward.gin').write_text(GIN)
  settings = smoke.settings(
    'Task.ratings=None',
    'NUM_GROW_STEPS=1',
    'NUM_IMPROVE_STEPS=1',
    # All of them have the best chrF: no threshold lies between them.
    'ImproveConfig.include_references=False',
    "EvaluateConfig.splits=('validation',)",
    *smoke.given(finished, 'data', 'bc'),
    gin_files=(str(folder / 'reward.gin'),),
  )
  run = run_lib.Run(settings, folder / 'run')
  run.make('grow_1')
  run.make('improve_1_1')
  with smoke.without_pictures():
    run.evaluate()
  return run


def columns(store):
  return {name: store.rewards(name)[0] for name in COLUMNS}


def test_each_part_has_a_column(run):
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  assert set(store.reward_names()) == COLUMNS
  manifest = folder_lib.read_manifest(run.folder('grow_1'))
  assert set(manifest['rewards']) == COLUMNS
  assert manifest['rewards']['guarded']['floor'] == -5.0
  assert not (run.model_dir / 'reward').exists()


def test_the_columns_are_what_the_rewards_say(run):
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  found = columns(store)
  pairs = run.data.pairs('train')
  hypotheses = run.data.vocabulary.decode_batch(list(store.tokens))
  rows = np.flatnonzero(store.sample_id != -1)[:50]
  references = [pairs.reference_text(int(store.source_id[r])) for r in rows]
  expected = lexical.Chrf().score(
    references, [hypotheses[row] for row in rows], references
  )
  np.testing.assert_allclose(found['chrf'][rows], expected, atol=1e-6)
  # A reference agrees with itself.
  np.testing.assert_allclose(found['chrf'][store.sample_id == -1], 1, atol=1e-6)
  scaled = (found['chrf'] + (found['ter'] + 1) / 2) / 2
  np.testing.assert_allclose(found['ensemble'], scaled, atol=1e-6)
  np.testing.assert_allclose(
    store.rewards('ter')[1], (found['ter'] + 1) / 2, atol=1e-6
  )
  vetoed = (found['guarded_repetition'] == 0) | (found['guarded_language'] == 0)
  assert 0 < vetoed.mean() < 1
  np.testing.assert_array_equal(
    found['guarded'], np.where(vetoed, -5.0, found['ensemble'])
  )


def test_the_scale_is_of_what_passes(run):
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  raw, reward = store.rewards('guarded')
  passing = raw > -5.0
  low, high = np.percentile(raw[passing].astype(np.float64), [0.5, 99.5])
  np.testing.assert_allclose(reward, (raw - low) / (high - low), atol=1e-5)
  assert reward[~passing].max() < reward[passing].min()


def test_what_is_vetoed_is_never_trained_on(run, monkeypatch):
  """Even where every sample of a source is vetoed."""
  seen = []
  select = improve_rows.select

  def look(rules, **arguments):
    seen.append(arguments['samples'])
    return select(rules, **arguments)

  monkeypatch.setattr(improve_rows, 'select', look)
  improve_stage.select_rows(
    run.experiment.improve,
    improve_step=1,
    grow_directory=run.folder('grow_1'),
    reward_name='guarded',
    data=run.data,
  )
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  raw, _ = store.rewards('guarded')
  allowed = np.asarray(store.finished) & (store.sample_id != -1)
  assert (allowed & (raw == -5.0)).any()
  np.testing.assert_array_equal(seen[0].is_eligible, allowed & (raw > -5.0))


def test_results_and_improve_use_the_whole(run):
  results = json.loads((run.model_dir / 'results.json').read_text())
  assert {v['improve'] for v in results['variants']} == {0, 1}
  made = folder_lib.read_manifest(run.folder('improve_1_1'))
  assert made['settings']['reward'] == 'guarded'
  assert made['settings']['evaluation']['reward'] == run.reward_model.digest


def test_a_finished_grow_is_used_again(run):
  again = run_lib.Run(run.experiment, run.model_dir)
  before = {p: p.stat().st_mtime_ns for p in run.folder('grow_1').rglob('*')}
  again.make('grow_1')
  after = {p: p.stat().st_mtime_ns for p in run.folder('grow_1').rglob('*')}
  assert before == after


def test_references_that_are_missing_stop_before_sampling(
  run, tmp_path, monkeypatch
):
  again = run_lib.Run(run.experiment, tmp_path)
  # Its guards learn from D before D loses its references.
  assert again.reward_model.needs_references
  pairs = run.data.pairs('train')
  pairs.has_references = False
  monkeypatch.setattr(type(run.data), 'pairs', lambda self, split: pairs)
  with pytest.raises(ValueError, match='the train split has none'):
    again.make('grow_1')
  assert not list(again.folder('grow_1').glob('*.arrow'))
