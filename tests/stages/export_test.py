"""An exported D_g, read back and held against its store."""

import dataclasses
import pathlib

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from rest_jax.data import sample_store
from rest_jax.stages import export
from tests import smoke


def export_to(run, folder: pathlib.Path, **changes) -> int:
  settings = {
    'grow_directory': run.folder('grow_1'),
    'reward_name': 'learned',
    'data': run.data,
    **changes,
  }
  return export.run(directory=folder, **settings)


def test_every_row_of_the_store_is_there(run, tmp_path):
  num_rows = export_to(run, tmp_path / 'out')
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  written = sorted((tmp_path / 'out').iterdir())
  num_shards = len(store.manifest['shards'])
  assert num_shards > 1
  assert [path.name for path in written] == [
    f'train-{i:05d}-of-{num_shards:05d}.parquet' for i in range(num_shards)
  ]
  for path, entry in zip(written, store.manifest['shards'], strict=True):
    assert pq.read_metadata(path).num_rows == entry['rows']
  table = pyarrow.dataset.dataset(written).to_table()
  assert table.num_rows == num_rows == len(store)
  assert table.schema.equals(export.SCHEMA)
  columns = {name: table[name].to_numpy() for name in table.column_names}
  for name in ('source_id', 'sample_id', 'log_prob', 'finished'):
    np.testing.assert_array_equal(columns[name], getattr(store, name))
  np.testing.assert_array_equal(columns['reward'], store.rewards('learned')[1])
  np.testing.assert_array_equal(columns['is_reference'], store.sample_id == -1)
  pairs = run.data.pairs('train')
  for row in range(0, len(store), 7):
    source_id = int(store.source_id[row])
    assert columns['source'][row] == pairs.source_text(source_id)
    assert columns['hypothesis'][row] == (
      pairs.reference_text(source_id)
      if store.sample_id[row] == -1
      else run.data.vocabulary.decode(store.tokens[row])
    )


def test_what_cannot_be_exported(run, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='in use'):
    export_to(run, tmp_path)
  with pytest.raises(FileNotFoundError, match='finished sample store'):
    export_to(run, tmp_path / 'out', grow_directory=tmp_path)
  other = dataclasses.replace(
    run.data, vocabulary=type('Other', (), {'digest': 'other'})
  )
  for data in (other, dataclasses.replace(run.data, digest='other text')):
    with pytest.raises(ValueError, match='text or vocabulary is another one'):
      export_to(run, tmp_path / 'out', data=data)
  with pytest.raises(FileNotFoundError, match='no_such'):
    export_to(run, tmp_path / 'out', reward_name='no_such')
  assert not (tmp_path / 'out').exists()


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
  texts, seen = export.score_samples.texts, []

  def fail(*arguments):
    seen.append(arguments)
    if len(seen) > 1:
      raise ValueError('the second shard is damaged')
    return texts(*arguments)

  monkeypatch.setattr(export.score_samples, 'texts', fail)
  with pytest.raises(ValueError, match='second shard'):
    export_to(run, tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


def test_the_command_line(run, tmp_path, capsys):
  given = {
    'run_mode': 'export',
    'model_dir': str(run.model_dir),
    'grow_step': 2,
  }
  assert smoke.command(**given) == 1
  assert '--output must name the folder' in capsys.readouterr().err
  assert smoke.command(**given, output=str(tmp_path / 'out')) == 0
  table = pyarrow.dataset.dataset(tmp_path / 'out').to_table()
  store = sample_store.SampleStore.open(run.folder('grow_2'))
  np.testing.assert_array_equal(
    table['reward'].to_numpy(), store.rewards('learned')[1]
  )


def test_datasets_loads_the_folder(run, tmp_path, monkeypatch):
  datasets = pytest.importorskip('datasets', reason='datasets is not installed')
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  num_rows = export_to(run, tmp_path / 'out')
  loaded = datasets.load_dataset(
    str(tmp_path / 'out'), cache_dir=str(tmp_path / 'cache')
  )
  assert loaded.num_rows == {'train': num_rows}
  assert loaded['train'].column_names == export.SCHEMA.names
