"""The report of a finished run says what the run's files say."""

import json
import shutil

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.data import sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.filters import for_all_sources, per_source
from rest_jax.report.gather import finished_stages, grow_rewards
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import improve as improve_stage
from rest_jax.storage import files
from tests import smoke
from tests.report import page_reader


@pytest.fixture
def copy(run, tmp_path):
  return smoke.copied(run, tmp_path)


def read(run):
  return page_reader.read(run.model_dir / 'report' / 'index.html')


def ids(found, name):
  return [attributes['id'] for attributes in found.all(name) if attributes]


def _write_stages(parent, manifests):
  for name, manifest in manifests.items():
    (parent / name).mkdir(parents=True)
    (parent / name / 'manifest.json').write_text(json.dumps(manifest))
  return [(name, parent / name) for name in manifests]


def test_everything_is_there(run):
  found = read(run)
  assert ids(found, 'section') == [
    'results', 'figures', 'grown', 'trust', 'samples', 'cost',
  ]  # fmt: skip
  assert set(ids(found, 'figure')) == {
    'average-reward', 'grow-steps', 'reward-and-judge', 'best-of-n',
    'filter-values', 'rewards-1', 'kept-1', 'rewards-2', 'kept-2',
    'judged-rewards', 'training',
  }  # fmt: skip
  assert not found.unclosed
  assert '<!--' not in found.text


def test_warnings_come_from_the_manifests_in_the_order_of_stages(tmp_path):
  for name, message in (('b', 'second'), ('a', 'first')):
    stage = folder_lib.begin(tmp_path / name, {})
    stage.warn(message)
    stage.finish({})
  folder_lib.begin(tmp_path / 'c', {}).warn('of a stage that is not finished')
  stages = [(f'stage {name}', tmp_path / name) for name in 'abc']
  assert finished_stages.warnings(stages) == [
    'stage a: first',
    'stage b: second',
  ]


def test_the_tables_are_those_of_results(run):
  found = read(run)
  results = results_lib.read(run.model_dir / 'results.json')
  for split in results.splits:
    header, *rows = found.tables[f'{results.task}, {split}: levels']
    variants = results.of_split(split)
    assert len(rows) == 2 * len(variants) + 2 == 12
    assert [rows[i][0] for i in (0, 6)] == ['greedy output', 'samples']
    for variant, greedy, sampled in zip(
      variants, rows[1:6], rows[7:], strict=True
    ):
      cells = dict(zip(header, greedy, strict=True))
      assert cells['policy'].strip() == sampled[0].strip() == variant.name
      assert cells['BLEU'] == f'{variant.bleu:.2f}'
      if variant.kept:
        assert cells['kept'] == f'{100 * variant.kept.fraction:.1f} %'
      cells = dict(zip(header, sampled, strict=True))
      reward = variant.reward
      assert cells['reward'] == f'{reward.mean:.2f} ± {reward.stderr:.2f}'
      assert cells['judge'].split(' ')[0] == f'{variant.human.mean:.2f}'
  assert all(line in found.text for line in results.warnings)
  assert results.verdict.sentence in ' '.join(found.text.split())


def test_the_samples_are_those_of_the_stores(run):
  data = read(run).data
  steps = run.policies()
  assert len(data['policies']) == len(steps)
  pairs = run.data.pairs('validation')
  for index in (0, len(steps) - 1):
    directory = run.evaluation(steps[index], 'validation').folder
    store = sample_store.SampleStore.open(directory)
    rewards = store.rewards('learned')[1]
    for source in (data['sources'][0], data['sources'][-1]):
      assert source['source'] == pairs.source_text(source['id'])
      assert source['reference'] == pairs.reference_text(source['id'])
      rows = np.flatnonzero(store.source_id == source['id'])
      shown = source['candidates'][index]
      assert sum(one[5] for one in shown) == len(rows)
      texts = run.data.vocabulary.decode_batch([store.tokens[r] for r in rows])
      assert {one[0] for one in shown} == set(texts)
      assert shown[0][1] == pytest.approx(100 * rewards[rows].max(), abs=0.006)
      assert [one[1] for one in shown] == sorted(
        (one[1] for one in shown), reverse=True
      )


class TestRewards:
  def test_counts_and_thresholds(self, run):
    directory = run.folder('grow_1')
    store = sample_store.SampleStore.open(directory)
    rewards = store.rewards('learned')[1]
    found = grow_rewards.distribution(directory, 'learned', [0.5])
    assert found.count == len(store) == len(rewards)
    assert found.above == {0.5: int((rewards > np.float32(0.5)).sum())}
    assert found.mean == pytest.approx(rewards.mean(dtype='float64'))

  def test_a_global_threshold_is_drawn_as_it_was(self, run):
    steps = {i: run.folder(f'improve_1_{i}') for i in (1, 2)}
    made = [
      folder_lib.read_manifest(folder)['kept']['threshold']
      for folder in steps.values()
    ]
    row_filter = run.experiment.improve.filter
    assert grow_rewards.thresholds(row_filter, steps) == sorted(made)
    assert grow_rewards.thresholds(row_filter, {}) == []
    given = for_all_sources.Fixed(values=(0.25, 0.75))
    assert grow_rewards.thresholds(given, {}) == [0.25, 0.75]
    by_source = per_source.Percentile(values=(50.0,))
    assert grow_rewards.thresholds(by_source, {}) == []
    assert grow_rewards.is_global(given)
    assert grow_rewards.is_global(row_filter)
    assert not grow_rewards.is_global(by_source)
    assert 'one threshold per source' not in read(run).text

  def kept(self, run, grow_step=1):
    steps = {i: run.folder(f'improve_{grow_step}_{i}') for i in (1, 2)}
    config = run.experiment.improve
    found, what = grow_rewards.kept(
      config,
      directory=run.folder(f'grow_{grow_step}'),
      reward_name='learned',
      improve_directories=steps,
      edges=np.linspace(-1, 2, 7),
    )
    manifests = [folder_lib.read_manifest(steps[i])['kept'] for i in (1, 2)]
    return found, what, manifests

  def test_filters_keep_what_they_kept(self, run):
    found, what, manifests = self.kept(run)
    assert what.startswith('All ')
    for entry, manifest in zip(found, manifests, strict=True):
      assert entry.after.sum() == manifest['samples']
      assert np.all(entry.after <= entry.before)
      fraction = entry.after.sum() / entry.before.sum()
      assert fraction == pytest.approx(manifest['fraction'])

  def test_some_shards_stand_for_all(self, run, monkeypatch):
    whole, _, _ = self.kept(run)
    monkeypatch.setattr(grow_rewards, '_MAX_FILTERED_ROWS', 700)
    some, what, _ = self.kept(run)
    shards = folder_lib.read_manifest(run.folder('grow_1'))['shards']
    assert len(shards) == 4 and '2 of 4 shards' in what
    read_rows = shards[0]['rows'] + shards[3]['rows']
    assert f'{read_rows:,} of ' in what
    assert 0 < some[0].before.sum() <= read_rows
    # The threshold is that of the whole D_g, so that parts add up.
    assert np.all(some[0].after <= whole[0].after)


class TestStages:
  def test_time_adds_up(self, run):
    header, *rows = read(run).tables['Time and work by stage, in seconds']
    assert header == [
      'stage', 'seconds', 'share', 'tracing', 'compiling', 'waiting', 'running',
      'work',
    ]  # fmt: skip
    seconds = [float(row[1].replace(',', '')) for row in rows]
    assert seconds[-1] == pytest.approx(sum(seconds[:-1]), abs=1)
    assert [row[0] for row in rows][:4] == ['data', 'bc', 'reward', 'grow 1']
    made = folder_lib.read_manifest(run.folder('bc'))
    assert rows[1][1] == f'{made["stage_seconds"]:,.1f}'
    assert f'{made["training"]["steps"]} steps' in rows[1][-1]
    for row in rows:
      parts = [float(cell.replace(',', '')) for cell in row[3:7]]
      # Other threads compile beside what runs.
      assert sum(parts) >= float(row[1].replace(',', '')) - 0.3

  def test_time_in_brief_has_all_evaluations_in_one_row(self, run):
    _, *rows = read(run).tables['Time by stage, in seconds']
    evaluations = [row for row in rows if row[0].startswith('evaluate')]
    assert [row[0] for row in evaluations] == ['evaluate (10)']
    assert {len(row) for row in rows} == {7}

  def test_what_a_stage_spent_is_taken_from_what_it_ran(self, tmp_path):
    spent = {
      'bc': {'tracing': 1.0, 'compiling': 20.0, 'waiting': 0.5},
      'evaluate a, test': {'tracing': 2.0, 'compiling': 9.0, 'waiting': 0.0},
      'evaluate b, test': {'tracing': 2.0, 'compiling': 1.0, 'waiting': 0.0},
    }
    stages = _write_stages(
      tmp_path,
      {
        name: {'stage_seconds': 25.0, 'spent_seconds': seconds}
        for name, seconds in spent.items()
      }
      | {'old': {'stage_seconds': 25.0}},
    )
    cells = finished_stages.times(stages[:3], is_brief=True)
    assert cells.rows == (
      ('bc', '25.0', '33.3 %', '1.0', '20.0', '0.5', '3.5'),
      ('evaluate (2)', '50.0', '66.7 %', '4.0', '10.0', '0.0', '36.0'),
      ('together', '75.0', '100.0 %', '5.0', '30.0', '0.5', '39.5'),
    )
    rows = finished_stages.times(stages).rows
    assert rows[3][1:-1] == ('25.0', '25.0 %', '-', '-', '-', '-')
    assert finished_stages.times([]) is None

  def test_what_the_time_of_a_training_went_to(self, tmp_path):
    parts = {'steps': 8.0, 'evaluation': 2.0, 'saving': 1.0, 'compiling': 4.0}
    training = {'seconds_by_part': parts}
    manifests = {
      'data': {'stage_seconds': 16.0},
      'bc': {'stage_seconds': 16.0, 'training': {}},
      'improve 1.1': {'stage_seconds': 16.0, 'training': training},
    }
    stages = _write_stages(tmp_path, manifests)
    cells = finished_stages.trainings(stages)
    assert cells.header == (
      'stage', 'step share', 'steps', 'evaluation', 'saving', 'reading',
      'compiling', 'other',
    )  # fmt: skip
    assert cells.rows == (
      ('improve 1.1', '50.0 %', '8.0', '2.0', '1.0', '0.0', '4.0', '1.0'),
    )
    assert finished_stages.trainings(stages[:2]) is None

  def test_what_filters_kept(self, run):
    cells = finished_stages.kept(run.model_dir)
    made = folder_lib.read_manifest(run.folder('improve_1_2'))['kept']
    row = dict(zip(cells.header, cells.rows[1], strict=True))
    assert row['policy'] == 'ReST G1 I2'
    assert row['samples kept'] == f'{made["samples"]:,}'
    assert row['sources with no kept sample'] == str(
      made['sources_without_samples']
    )
    before, after = made['mean_length_before'], made['mean_length_after']
    assert row['mean length'] == f'{before:.1f} → {after:.1f}'

  def test_steps_are_in_the_order_of_their_numbers(self, tmp_path):
    kept = {
      'samples': 1,
      'fraction': 0.5,
      'sources_without_samples': 0,
      **{
        f'mean_{what}_{when}': 0.5
        for what in ('length', 'reward')
        for when in ('before', 'after')
      },
    }
    steps = {f'improve_1_{i}': {'kept': kept} for i in (10, 2, 1)}
    _write_stages(tmp_path / 'variants' / 'bc', steps)
    rows = finished_stages.kept(tmp_path).rows
    assert [row[0] for row in rows] == [
      'ReST G1 I1', 'ReST G1 I2', 'ReST G1 I10',
    ]  # fmt: skip


class TestMissing:
  def test_parts_that_are_not_there_are_left_out(self, copy):
    for name in ('grow_1', 'reward', 'config.gin', 'operative_config.gin'):
      path = copy.model_dir / name
      shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for split in ('validation', 'test'):
      for step in copy.policies():
        folder = copy.evaluation(step, split).folder
        for path in (folder / 'rewards').glob('human-*'):
          path.unlink()
        manifest = folder_lib.read_manifest(folder)
        for part in ('diagnostics',):
          manifest.pop(part)
        files.write_json(folder / 'manifest.json', manifest, sealed=True)
        smoke.without_judge(folder)
    (copy.model_dir / 'results.json').unlink()
    # Seconds of a Grow are of every policy that follows it.
    later = [s for s in copy.policies() if s.grow_step == 1]
    for step in later:
      shutil.rmtree(step.policy_folder)
      for split in ('validation', 'test'):
        shutil.rmtree(copy.evaluation(step, split).folder)
    copy.report()
    found = read(copy)
    assert ids(found, 'section') == [
      'results', 'figures', 'grown', 'samples', 'cost',
    ]  # fmt: skip
    figures = ids(found, 'figure')
    assert 'rewards-2' in figures and 'rewards-1' not in figures
    assert not {'reward-and-judge', 'judged-rewards'} & set(figures)
    source = found.data['sources'][0]
    assert len(source['candidates']) == 3
    assert source['candidates'][0][0][2] is None

  def test_results_of_another_version(self, copy):
    path = copy.model_dir / 'results.json'
    content = json.loads(path.read_text())
    files.write_json(path, {**content, 'schema': 0}, sealed=True)
    with pytest.raises(ValueError, match=r'results\.json: schema must be 1'):
      copy.report()
    content['variants'][1]['rewards'] = content['variants'][1].pop('reward')
    files.write_json(path, content, sealed=True)
    with pytest.raises(
      ValueError, match=r"results\.json: variants\[1\]\.rewards .* 'reward'"
    ):
      copy.report()

  def test_nothing_evaluated(self, run, tmp_path):
    fresh = run_lib.Run(run.experiment, tmp_path / 'fresh')
    with pytest.raises(ValueError, match='none has been evaluated'):
      fresh.report()


def test_a_veto_counts_as_in_training(run):
  """`samples_of` drops vetoed rows, for the report as for the Improve step."""
  config = run.experiment.improve
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  raw, rewards = store.rewards('learned')
  floor = float(np.median(raw))
  vetoed = sample_store.SampleStore.open(run.folder('grow_1'))
  vetoed.manifest = {**store.manifest, 'rewards': {'learned': {'floor': floor}}}
  plain = improve_stage.samples_of(config, store, 'learned', raw, rewards)
  some = improve_stage.samples_of(config, vetoed, 'learned', raw, rewards)
  assert np.array_equal(
    some.is_eligible, plain.is_eligible & (raw > np.float32(floor))
  )
  assert 0 < some.is_eligible.sum() < plain.is_eligible.sum()
