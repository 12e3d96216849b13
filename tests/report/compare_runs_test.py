"""Runs side by side: paired where they may be, and said where they may not."""

import shutil

import numpy as np
import pytest

from rest_jax.data import sample_store
from rest_jax.evaluation import metrics
from rest_jax.evaluation import results as results_lib
from rest_jax.report import compare_runs
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files
from tests import smoke
from tests.report import page_reader


@pytest.fixture
def other(run, tmp_path):
  """A copy whose last policy has other rewards."""
  copy = smoke.copied(run, tmp_path)
  (copy.model_dir / 'report' / 'index.html').unlink()
  return copy


def last(run):
  return run.evaluation(run.policies()[-1], 'validation').folder


def edit(folder, change):
  """Changes the settings of an evaluation."""
  path = folder / 'manifest.json'
  manifest = files.read_json(path)
  change(manifest['settings'])
  files.write_json(path, manifest, sealed=True)


def rescore(folder, name, change):
  store = sample_store.SampleStore.open(folder)
  raw, reward = store.rewards(name)
  entries = folder_lib.read_manifest(folder)['shards']
  assert len(entries) == 1
  sample_store.write_rewards(
    folder, name, 0, 1, change(raw), np.asarray(reward)
  )


def cells(side, measure, split='validation'):
  (found,) = (
    m.rows for m in side.measures if (m.name, m.split) == (measure, split)
  )
  return found


LAST = 'ReST G2 I2'
SEARCHED = 'judge ×100, greedy or beam outputs'


def test_equal_runs_do_not_differ(run, other):
  side = compare_runs.compare([run.model_dir, other.model_dir])
  assert list(side.folders) == ['smoke', 'copy']
  assert not side.remarks
  assert {m.split for m in side.measures} == {'validation', 'test'}
  results = results_lib.read(run.model_dir / 'results.json')
  for measure in ('reward ×100', 'judge ×100', SEARCHED, 'BLEU', 'chrF'):
    rows = cells(side, measure)
    assert list(rows) == [v.name for v in results.of_split('validation')]
    for first, second in rows.values():
      assert first.difference is None
      assert second.difference.mean == 0
      assert second.value == pytest.approx(first.value)
  variant = results.of_split('validation')[-1]
  first, second = cells(side, 'reward ×100')[LAST]
  assert first.value == variant.reward.mean
  assert second.stderr == pytest.approx(variant.reward.stderr)


def test_a_difference_is_paired_by_source(run, other):
  random = np.random.default_rng(0)
  rescore(last(other), 'human', lambda raw: raw)
  noise = random.normal(
    0.1, 0.05, size=len(sample_store.SampleStore.open(last(other)))
  )
  rescore(last(other), 'learned', lambda raw: raw + noise.astype(np.float32))
  side = compare_runs.compare([run.model_dir, other.model_dir])
  _, second = cells(side, 'reward ×100')[LAST]
  scale = run.reward.normalizer()
  sources = sample_store.SampleStore.open(last(run)).source_id
  expected = metrics.clustered_mean(
    noise / (scale.high - scale.low), sources
  ).scaled(100)
  assert second.difference.mean == pytest.approx(expected.mean, rel=1e-4)
  assert second.difference.stderr == pytest.approx(expected.stderr, rel=1e-3)
  assert second.difference.p_value < 1e-6
  # Only this policy was changed.
  others = [
    row[1] for name, row in cells(side, 'reward ×100').items() if name != LAST
  ]
  assert all(cell.difference.mean == 0 for cell in others)


def test_another_scale_of_the_same_reward_is_undone(run, other):
  for step in other.policies():
    for split in ('validation', 'test'):
      edit(
        other.evaluation(step, split).folder,
        lambda settings: settings.update(normalizer={'low': -9.0, 'high': 9.0}),
      )
  side = compare_runs.compare([run.model_dir, other.model_dir])
  first, second = cells(side, 'reward ×100')[LAST]
  assert second.difference.mean == 0
  assert second.value == pytest.approx(first.value)
  (remark,) = side.remarks
  assert 'put on the scale of smoke' in remark


@pytest.mark.parametrize(
  ('change', 'measure', 'word'),
  [
    (
      lambda s: s.update(reward={'name': 'learned', 'digest': 'x'}),
      'reward ×100',
      'the reward is not that of the first run',
    ),
    (lambda s: s.update(judge='people'), 'judge ×100', 'the judges differ'),
    (lambda s: s.update(bleu_tokenize='zh'), 'BLEU', 'the tokenisers differ'),
  ],
)
def test_what_is_not_comparable_is_not_compared(
  run, other, change, measure, word
):
  edit(last(other), change)
  side = compare_runs.compare([run.model_dir, other.model_dir])
  for name in ('reward ×100', 'judge ×100', SEARCHED, 'BLEU', 'chrF'):
    _, second = cells(side, name)[LAST]
    assert (second.difference is None) == name.startswith(measure)
  assert side.remarks
  assert all(word in line and measure in line for line in side.remarks)


def test_other_sources_are_not_paired(run, other):
  # Other data, of which nobody can say that it has the same texts.
  edit(last(other), lambda settings: settings.update(data='x'))
  side = compare_runs.compare([run.model_dir, other.model_dir])
  assert not side.remarks  # The texts are the same.
  shutil.rmtree(other.model_dir / 'data')
  side = compare_runs.compare([run.model_dir, other.model_dir])
  assert all('the runs have other sources' in line for line in side.remarks)
  assert cells(side, 'reward ×100')[LAST][1].difference is None


def test_an_evaluation_that_is_gone(run, other):
  shutil.rmtree(last(other))
  side = compare_runs.compare([run.model_dir, other.model_dir])
  first, second = cells(side, 'reward ×100')[LAST]
  assert second.value == pytest.approx(first.value)  # From results.json.
  assert second.difference is None
  assert f'{LAST} has no evaluation in copy' in side.remarks[0]


def test_losses_at_the_same_step_stand_side_by_side(run, other):
  for path in (
    other.model_dir / 'results.json',
    other.variant_dir / 'evaluation.json',
  ):
    content = files.read_json(path)
    for variant in content['variants']:
      if variant['grow']:
        variant['loss'] = 'gold'
        variant['name'] += ' (GOLD)'
    files.write_json(path, content, sealed=True)
  side = compare_runs.compare([run.model_dir, other.model_dir])
  rows = cells(side, 'reward ×100')
  assert list(rows)[:2] == ['BC', 'ReST G1 I1 / ReST G1 I1 (GOLD)']
  assert all(second.difference.mean == 0 for _, second in rows.values())


def test_the_page_and_the_terminal(run, other, tmp_path, capsys):
  paths = [str(run.model_dir), str(other.model_dir)]
  compare_runs.run(paths, tmp_path / 'out', is_dry=True)
  assert not (tmp_path / 'out').exists()
  compare_runs.run(paths, tmp_path / 'out')
  assert 'smoke, validation' not in capsys.readouterr().err
  found = page_reader.read(tmp_path / 'out' / 'report' / 'compare.html')
  header, *rows = found.tables['synthetic, validation: reward ×100']
  assert header == ['policy', 'smoke', 'copy', 'copy − smoke', 'p']
  assert rows[-1][3:] == ['+0.00 ± 0.00', '1.0000']
  scores, ids = evaluate_stage.read_scores(last(run), 'learned')
  mean = metrics.clustered_mean(scores, ids).scaled(100).mean
  assert rows[-1][1].startswith(f'{mean:.2f} ')
  assert len(found.all('figure')) == 5


class TestRefuses:
  def test_one_run(self, run):
    with pytest.raises(ValueError, match='two runs or more, each once'):
      compare_runs.compare([run.model_dir])
    with pytest.raises(ValueError, match='two runs or more, each once'):
      compare_runs.compare([run.model_dir, run.model_dir / '.'])

  def test_a_folder_without_results(self, run, tmp_path):
    with pytest.raises(FileNotFoundError, match='folders of evaluated runs'):
      compare_runs.compare([run.model_dir, tmp_path])

  def test_other_tasks(self, run, other):
    path = other.model_dir / 'results.json'
    content = files.read_json(path)
    files.write_json(path, {**content, 'task': 'other'}, sealed=True)
    with pytest.raises(ValueError, match='runs of one task; got synthetic in'):
      compare_runs.compare([run.model_dir, other.model_dir])


def test_names_tell_runs_apart(tmp_path):
  paths = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']
  assert compare_runs._names(paths) == ['a/run', 'b/run']
