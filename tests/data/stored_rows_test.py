"""Examples of what a run has stored, against the stores themselves."""

import math
import shutil

import numpy as np
import pytest

from rest_jax.data import sample_store, sources, stored_rows, task, vocabularies
from rest_jax.filters import for_all_sources
from rest_jax.losses import bc
from rest_jax.stages import improve_rows
from rest_jax.storage import files
from tests import single_stage
from tests.data import small_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  return folder, small_run.write(folder)


def _examples(rows):
  return [rows.example(number) for number in range(rows.count)]


def test_pairs(run):
  folder, data = run
  stored = stored_rows.of_pairs(folder / 'data')
  assert stored.data_directory == (folder / 'data').resolve()
  counts = {split: rows.count for split, rows in stored.splits.items()}
  assert counts == {'train': 6, 'validation': 3, 'test': 3}
  pairs = data.pairs('validation')
  for row, example in enumerate(_examples(stored.splits['validation'])):
    assert example['inputs_pretokenized'] == pairs.source_text(row)
    assert example['targets_pretokenized'] == pairs.reference_text(row)
    for key in ('inputs', 'targets'):
      assert example[key].dtype == np.int32
      expected = data.vocabulary.encode(example[f'{key}_pretokenized'])
      assert example[key].tolist() == [*expected, 1]


def test_sources_alone_have_no_targets(tmp_path):
  pairs = sources.TextPairs(
    sources=small_run.texts(6), references=small_run.texts(6, 1)
  )
  single_stage.prepared(
    task.Task(
      name='t',
      train=pairs,
      validation=pairs,
      test=pairs,
      grow=sources.TextPairs(sources=small_run.texts(4, 2)),
      vocabulary=vocabularies.VocabularyConfig(size=24),
    ),
    tmp_path,
  )
  rows = stored_rows.of_pairs(tmp_path).splits['grow']
  assert rows.count == 4
  example = rows.example(0)
  assert example['targets'].shape == (0,) and example['inputs'].size > 1
  assert example['targets_pretokenized'] == ''


def test_all_finished_rows_of_a_store(run):
  folder, data = run
  stored = stored_rows.of_store(folder / 'grow_1', reference_weight=0.25)
  store = sample_store.SampleStore.open(folder / 'grow_1')
  rows = np.flatnonzero(store.finished)
  examples = _examples(stored.splits['train'])
  assert len(examples) == len(rows) == 24 - len(small_run.UNFINISHED)
  pairs = data.pairs('train')
  for row, example in zip(rows, examples, strict=True):
    source = int(store.source_id[row])
    np.testing.assert_array_equal(example['targets'], store.tokens[row])
    np.testing.assert_array_equal(
      example['inputs'], pairs.source_tokens[source]
    )
    assert example['rewards'] == small_run.REWARDS.reshape(-1)[row]
    assert example['thresholds'] == -math.inf
    assert example['row_weights'] == (0.25 if row % 4 == 0 else 1.0)
    assert example['inputs_pretokenized'] == pairs.source_text(source)
    assert example['targets_pretokenized'] == data.vocabulary.decode(
      store.tokens[row]
    )


@pytest.mark.parametrize('references', [True, False])
@pytest.mark.parametrize('unfinished', [True, False])
@pytest.mark.parametrize('threshold', [0.0, 0.5, 0.85])
def test_keeps_what_an_improve_step_keeps(
  run, threshold, references, unfinished
):
  folder, data = run
  settings = {
    'include_references': references,
    'include_unfinished': unfinished,
  }
  stored = stored_rows.of_store(
    folder / 'grow_1', threshold=threshold, **settings
  )
  store = sample_store.SampleStore.open(folder / 'grow_1')
  _, rewards = store.rewards('main')
  selected = improve_rows.select(
    improve_rows.Rules(
      row_filter=for_all_sources.Fixed(values=(threshold,)), loss=bc.BC()
    ),
    store=store,
    sources=data.pairs('train'),
    samples=improve_rows.samples_of(store, rewards, **settings),
  )
  examples = _examples(stored.splits['train'])
  assert len(examples) == selected.statistics['samples'] > 0
  batch = selected.load(np.arange(len(examples)), 16, 16)
  for number, example in enumerate(examples):
    for key, name in (
      ('inputs', 'encoder_input_tokens'),
      ('targets', 'decoder_target_tokens'),
    ):
      expected = batch[name][number]
      np.testing.assert_array_equal(example[key], expected[expected > 0])
    for key in stored_rows.REWARD_FEATURES:
      assert example[key] == batch[key][number]
      assert example[key].dtype == np.float32


def test_a_vetoed_row_is_left_out(run, tmp_path):
  folder, data = run
  small_run.write_grow(tmp_path / 'grow_1', data, floor=5.0)
  stored = stored_rows.of_store(
    tmp_path / 'grow_1', data_directory=folder / 'data'
  )
  kept = [example['rewards'] for example in _examples(stored.splits['train'])]
  # Raw rewards are ten times these, and must be above the floor.
  assert min(kept) == np.float32(0.6)


def test_another_reward_by_name(run):
  folder, _ = run
  stored = stored_rows.of_store(folder / 'grow_1', reward_name='part')
  assert stored.splits['train'].count == 22


def test_a_grow_of_a_variant_finds_the_data_of_its_run(run, tmp_path):
  folder, _ = run
  shutil.copytree(folder, tmp_path / 'a')
  deep = tmp_path / 'a' / 'variants' / 'bc' / 'grow_2'
  shutil.copytree(folder / 'grow_1', deep)
  stored = stored_rows.of_store(deep)
  assert stored.data_directory == (tmp_path / 'a' / 'data').resolve()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'threshold': 1.5}, r'threshold must leave some .* 24, .* up to 1\.200'),
    ({'threshold': math.nan}, 'threshold must be a number'),
    ({'reference_weight': -1.0}, 'reference_weight must .* got -1'),
  ],
)
def test_faults_of_settings(run, settings, message):
  folder, _ = run
  with pytest.raises(ValueError, match=message):
    stored_rows.of_store(folder / 'grow_1', **settings)


def test_faults_of_folders(run, tmp_path):
  folder, _data = run
  with pytest.raises(FileNotFoundError, match='finished sample store'):
    stored_rows.of_store(tmp_path)
  with pytest.raises(FileNotFoundError, match='data_directory must be'):
    stored_rows.of_pairs(tmp_path)
  alone = tmp_path / 'x' / 'y' / 'z' / 'grow_1'
  shutil.copytree(folder / 'grow_1', alone)
  with pytest.raises(FileNotFoundError, match=r'data_directory .*/data, /'):
    stored_rows.of_store(alone)
  other = tmp_path / 'other'
  shutil.copytree(folder / 'data', other)
  vocabularies.train(
    vocabularies.VocabularyConfig(size=23),
    small_run.texts(50),
    other / 'vocab.model',
  )
  with pytest.raises(ValueError, match=r'or vocabulary of .* is another one'):
    stored_rows.of_store(alone, data_directory=other)
  manifest = alone / 'manifest.json'
  content = files.read_json(manifest)
  # The same vocabulary, but other text.
  of_others = {**content, 'settings': {'data': 'others'}}
  files.write_json(manifest, of_others, sealed=True)
  with pytest.raises(ValueError, match=r'text or vocabulary of .* is another'):
    stored_rows.of_store(alone, data_directory=folder / 'data')
  content['rewards']['main'] = {'d': 'x'}
  files.write_json(manifest, content, sealed=True)
  with pytest.raises(ValueError, match=r'reward_name .* it has main, part'):
    stored_rows.of_store(alone, data_directory=folder / 'data')
