"""A refresh of a tiny run: what it leaves, and what it refuses."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import modes, verification
from rest_jax.data import sample_rewards, sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import refresh as refresh_stage
from tests import smoke

_SETTINGS = (
  'REFRESH_SOURCES=60',
  'REFRESH_UNIFORM=20',
  'REFRESH_UNCERTAIN=20',
  'REFRESH_HIGH_REWARD=20',
  'REFRESH_STEPS=6',
  'REFRESH_EVALUATE_EVERY=3',
  'RefreshConfig.num_resamples=20',
  # So that the model is another one, even where none is better.
  'refresh/TrainerConfig.evaluate_first=False',
  "EvaluateConfig.splits=('validation',)",
)
_FILES = ('gin_configs/rewards/refreshed.gin',)


def read(path: pathlib.Path):
  return json.loads(path.read_text(encoding='utf-8'))


@pytest.fixture(scope='session')
def plain(tmp_path_factory):
  return smoke.finished(tmp_path_factory.getbasetemp())


def _copied(run, model_dir, *overrides, gin_files=_FILES):
  """The first half of a finished run, to be refreshed."""
  for name in ('data', 'bc', 'reward', 'grow_1'):
    shutil.copytree(run.model_dir / name, model_dir / name)
  for step in (1, 2):
    name = f'variants/bc/improve_1_{step}'
    shutil.copytree(run.model_dir / name, model_dir / name)
  settings = smoke.settings(*_SETTINGS, *overrides, gin_files=gin_files)
  return run_lib.Run(settings, model_dir)


@pytest.fixture(scope='session')
def run(plain, tmp_path_factory):
  """A whole run with a refresh between its two Grow steps. Do not change it.

  Its first Grow step is that of another run.
  """
  grown = plain.folder('grow_1')
  made = _copied(
    plain, tmp_path_factory.mktemp('refreshed'), f'GROW_DIR={grown}'
  )
  before = {p: p.stat().st_mtime_ns for p in grown.rglob('*')}
  with smoke.without_pictures():
    made.rest()
  assert {p: p.stat().st_mtime_ns for p in grown.rglob('*')} == before
  return made


def _reward(run, grow_step):
  """R as a Grow step is scored by it."""
  return run.stage(f'grow_{grow_step}').reward.load(run.context)


def _rescored(run, name):
  """Raw and normalised rewards of D_1 by the refreshed model."""
  entries = run.stage('grow_1').manifest()['shards']
  columns = [
    sample_rewards.read_rewards(
      sample_store.rewards_path(
        run.folder('refresh_1') / 'rescored/grow_1', name, shard, len(entries)
      ),
      rows=entry['rows'],
      samples_sha256=entry['sha256'],
    )
    for shard, entry in enumerate(entries)
  ]
  return tuple(map(np.concatenate, zip(*columns, strict=True)))


def test_d_1_keeps_its_percentiles_at_0_and_1(run):
  manifest = folder_lib.read_manifest(run.folder('refresh_1'))
  raw, rewards = _rescored(run, 'learned')
  np.testing.assert_allclose(
    np.percentile(rewards.astype(np.float64), [0.5, 99.5]), [0, 1], atol=1e-5
  )
  low, high = np.percentile(raw.astype(np.float64), [0.5, 99.5])
  assert manifest['normalizer'] == pytest.approx({'low': low, 'high': high})
  # The model is another one, and what it was is still there.
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  old_raw, old = store.rewards('learned')
  assert np.abs(raw - old_raw).max() > 1e-3
  np.testing.assert_allclose(
    np.percentile(old.astype(np.float64), [0.5, 99.5]), [0, 1], atol=1e-5
  )
  # Raw rewards are those of the refreshed model.
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  rows = np.flatnonzero(store.sample_id >= 0)[:30]
  pairs = run.data.pairs('train')
  scored = _reward(run, 2).score(
    [pairs.source_text(int(store.source_id[row])) for row in rows],
    run.data.vocabulary.decode_batch([store.tokens[int(r)] for r in rows]),
  )
  np.testing.assert_allclose(raw[rows], scored, atol=1e-5)


def test_the_next_grow_and_all_evaluations_use_the_refreshed_reward(run):
  first, second = (_reward(run, g).digest for g in (1, 2))
  assert first != second
  trained = folder_lib.read_manifest(run.folder('refresh_1') / 'reward')
  assert second == trained['params_digest']
  normalizer = folder_lib.read_manifest(run.folder('refresh_1'))['normalizer']

  def settings(path):
    return folder_lib.read_manifest(path)['settings']

  grown = [settings(run.folder(f'grow_{g}')) for g in (1, 2)]
  assert [of['reward']['digest'] for of in grown] == [first, second]
  assert [of['normalizer'] for of in grown] == [None, normalizer]
  improved = [settings(run.folder(f'improve_{g}_1')) for g in (1, 2)]
  assert [of['evaluation']['reward'] for of in improved] == [first, second]
  for step in run.policies():
    found = settings(run.evaluation(step, 'validation').folder)
    assert found['reward']['digest'] == second
    assert found['normalizer'] == normalizer
  # BC is compared on the same scale, in a folder that no other variant uses.
  bc = run.evaluation(run.policies()[0], 'validation').folder
  assert bc.is_relative_to(run.variant_dir)
  variants = results_lib.read(run.model_dir / 'results.json').variants
  assert sorted((v.grow, v.improve) for v in variants) == [
    (0, 0), (1, 1), (1, 2), (2, 1), (2, 2)
  ]  # fmt: skip


def test_raters_are_asked_for_distinct_samples_of_each_kind(run):
  folder = run.folder('refresh_1')
  manifest = folder_lib.read_manifest(folder)
  assert {k: v['rows'] for k, v in manifest['annotated'].items()} == {
    'uniform': 20, 'uncertain': 20, 'high_reward': 20
  }  # fmt: skip
  rows = read(folder / 'chosen.json')
  assert len({(row['source'], row['hypothesis']) for row in rows}) == 60
  # The table gives nothing of that away.
  header = (folder / 'to_rate.tsv').read_text(encoding='utf-8').split('\n')[0]
  assert 'reward' not in header and 'reason' not in header
  reasons = [row['reason'] for row in rows]
  assert reasons != sorted(reasons) and reasons != sorted(reasons)[::-1]
  # Samples of the last policy, and a source has one split.
  sampled = sample_store.Shard(next(folder.glob('samples-*.arrow')))
  assert len(sampled) == 60 * 4
  # None that is left out has a higher reward than those chosen for theirs.
  pairs = run.data.pairs('train')
  hypotheses = run.data.vocabulary.decode_batch(list(sampled.tokens))
  sources = [pairs.source_text(int(row)) for row in sampled.source_id]
  scores = run.stage('refresh_1').reward.normalizer()(
    _reward(run, 1).score(sources, hypotheses)
  )
  rewards = {
    texts: score
    for texts, score in zip(
      zip(sources, hypotheses, strict=True), scores, strict=True
    )
    if texts[1].strip()
  }
  least = 1e-4 + min(
    row['reward'] for row in rows if row['reason'] == 'high_reward'
  )
  for row in rows:
    score = rewards.pop((row['source'], row['hypothesis']))
    assert row['reward'] == pytest.approx(score, abs=1e-4)
  assert max(rewards.values()) <= least
  assert (
    folder_lib.read_manifest(folder)['settings']['policy']
    == (
      folder_lib.read_manifest(run.folder('improve_1_2'))['training'][
        'params_digest'
      ]
    )
  )
  split = {}
  for row in rows:
    assert split.setdefault(row['source'], row['split']) == row['split']


def test_old_and_new_ratings_are_learned_from(run):
  trained = folder_lib.read_manifest(run.folder('refresh_1') / 'reward')
  old = run.experiment.task.ratings.read()
  new = refresh_stage.ratings_of(run.folder('refresh_1'))
  assert trained['trained_on'] == {
    'old': old.split.count('train'),
    'new': new.split.count('train'),
  }
  assert 30 < new.split.count('train') < 60
  assert set(trained['agreement']) >= {'dev', 'test'}
  assert trained['agreement']['dev']['rows'] == old.split.count('dev')
  before = folder_lib.read_manifest(run.folder('reward'))
  # The unit of the raw reward is that of the first training.
  assert trained['rating_scale'] == before['rating_scale']
  found = trained['agreement_before']['test']['pearson']['value']
  expected = before['agreement']['test']['pearson']['value']
  assert found == pytest.approx(expected, abs=1e-5)


def test_a_finished_refresh_is_left_alone(run):
  folder = run.folder('refresh_1')
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}
  assert modes.stage(run, 'refresh', 1, 1)
  assert before == {
    p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()
  }


def test_a_refresh_cut_off_ends_with_the_same_reward(run, plain, tmp_path):
  again = _copied(plain, tmp_path)
  with smoke.killed_at_checkpoint(2):
    again.make('refresh_1')
  assert not (again.folder('refresh_1') / 'manifest.json').exists()
  again.make('refresh_1')
  whole, resumed = (
    folder_lib.read_manifest(of.folder('refresh_1')) for of in (run, again)
  )
  for name in ('normalizer', 'rated', 'annotated', 'reward'):
    assert whole[name] == resumed[name]


def test_damaged_rewards_of_a_refresh_are_named_and_made_again(run, tmp_path):
  copy = smoke.copied(run, tmp_path)
  folder = copy.folder('refresh_1')
  path = next(folder.glob('rescored/grow_1/rewards/learned-00000-of-*'))
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 1
  path.write_bytes(flipped)
  assert not folder_lib.damages(folder, 'fast')
  [damage] = folder_lib.damages(folder, 'full')
  assert damage.path.resolve() == path.resolve()
  verification.check(copy, 'full')
  assert not path.exists()
  copy.make('refresh_1')
  assert path.read_bytes() == whole
  assert not folder_lib.damages(folder, 'full')


def test_people_are_waited_for_and_their_table_is_checked(plain, tmp_path):
  waiting = _copied(plain, tmp_path, 'RATERS=None')
  folder = waiting.folder('refresh_1')
  with pytest.raises(FileNotFoundError, match=r'rated\.tsv must hold .* 60'):
    waiting.make('refresh_1')
  lines = (folder / 'to_rate.tsv').read_text(encoding='utf-8').splitlines()

  def fill_in(scores, rows=lines[1:]):
    filled = [lines[0]]
    for line, score in zip(rows, scores, strict=True):
      fields = line.split('\t')
      fields[4] = score
      filled.append('\t'.join(fields))
    (folder / 'rated.tsv').write_text('\n'.join(filled), encoding='utf-8')

  good = [f'{(7 * row) % 13 / 13:.3f}' for row in range(60)]
  second = lines[2].split('\t')[0]
  for scores, message in (
    ([good[0], 'nan', *good[2:]], f"line 3, '{second}': score .*'nan'"),
    (['0.5'] * 60, "all of its 60 row.* 0.5 of 'g1-00001'"),
  ):
    fill_in(scores)
    with pytest.raises(ValueError, match=message):
      waiting.make('refresh_1')
  fill_in([*good, '0.1'], [*lines[1:], lines[1]])
  with pytest.raises(ValueError, match="'g1-00001' is in line 2 too"):
    waiting.make('refresh_1')
  # Nothing was lost, and most of the rows are enough.
  fill_in(good[:50], lines[1:51])
  waiting.make('refresh_1')
  manifest = folder_lib.read_manifest(folder)
  assert manifest['rated']['rows'] == 50
  # What was learned from must stay as it was.
  fill_in(good[10:], lines[11:])
  with pytest.raises(ValueError, match='changed since'):
    waiting.make('refresh_1')


@pytest.mark.parametrize(
  ('overrides', 'files', 'message'),
  [
    (('NUM_GROW_STEPS=1',), _FILES, 'num_grow_steps .G. must be at least 2'),
    (
      (),
      (*_FILES, 'gin_configs/rewards/random.gin'),
      'a reward that is not learned',
    ),
    (
      ('Task.ratings=None', "REWARD_DIR='x'"),
      _FILES,
      'no task.ratings',
    ),
    (
      (),
      ('gin_configs/rewards/ensemble.gin', *_FILES),
      'compares with references',
    ),
  ],
)
def test_what_cannot_be_refreshed_is_refused(overrides, files, message):
  with pytest.raises(ValueError, match=message):
    smoke.settings(*_SETTINGS, *overrides, gin_files=files)


def test_a_grow_step_without_another_after_it_is_refused(run):
  with pytest.raises(ValueError, match=r'grow_step 2.* has --grow_step=1'):
    run.make_mode('refresh', 2)


def test_a_run_without_settings_says_what_to_add(plain):
  with pytest.raises(ValueError, match=r'rewards/refreshed\.gin'):
    plain.make_mode('refresh')


# Composed rewards are refreshed in refresh_targets_test, and scaled in
# score_samples_test.
@pytest.mark.full
def test_a_flaw_beside_the_trained_part_is_fitted_against(plain, tmp_path):
  for name in ('data', 'bc', 'reward'):
    shutil.copytree(plain.model_dir / name, tmp_path / name)
  flawed = run_lib.Run(
    smoke.settings(
      *_SETTINGS,
      'NUM_IMPROVE_STEPS=1',
      'REFRESH_STEPS=40',
      'REFRESH_EVALUATE_EVERY=20',
      # The file that it includes trains longer.
      f'REWARD_DIR={tmp_path / "reward"}',
      gin_files=('gin_configs/rewards/flawed_refreshed.gin',),
    ),
    tmp_path,
  )
  for stage in ('grow_1', 'improve_1_1', 'refresh_1', 'grow_2'):
    flawed.make(stage)
  folder = flawed.folder('refresh_1')
  _, rewards = _rescored(flawed, 'flawed')
  np.testing.assert_allclose(
    np.percentile(rewards.astype(np.float64), [0.5, 99.5]), [0, 1], atol=1e-5
  )
  store = sample_store.SampleStore.open(flawed.folder('grow_2'))
  assert store.reward_names() == ['flawed', 'learned', 'verbosity']
  # Agreement is that of the whole reward, not of its trained part.
  rated = flawed.experiment.task.ratings.read().select('dev')
  trained = folder_lib.read_manifest(folder / 'reward')
  for name, reward in (
    ('agreement_before', _reward(flawed, 1)),
    ('agreement', _reward(flawed, 2)),
  ):
    scores = reward.score(rated.source, rated.hypothesis)
    expected = np.corrcoef(scores, rated.score)[0, 1]
    found = trained[name]['dev']['pearson']['value']
    assert found == pytest.approx(expected, abs=1e-4)
