"""Checkpoints in one file and in shards, and what is refused."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rest_jax.interop import safetensors_folder

_TENSORS = {
  'a': np.arange(6, dtype=np.float32).reshape(3, 2),
  'b': np.ones(4, np.float32),
  'c': np.full((1, 2), 1.5, ml_dtypes.bfloat16),
}


@pytest.fixture(params=['one file', 'shards'])
def folder(request, tmp_path):
  (tmp_path / 'config.json').write_text('{"d_model": 8}')
  if request.param == 'one file':
    safetensors.save_file(_TENSORS, tmp_path / 'model.safetensors')
    return tmp_path
  return sharded(tmp_path)


def sharded(path):
  (path / 'config.json').write_text('{"d_model": 8}')
  parts = {'one.safetensors': ['a', 'c'], 'two.safetensors': ['b']}
  for file, names in parts.items():
    safetensors.save_file({n: _TENSORS[n] for n in names}, path / file)
  places = {name: file for file, names in parts.items() for name in names}
  write_index(path, {'metadata': {}, 'weight_map': places})
  return path


def write_index(path, index):
  (path / safetensors_folder.INDEX_FILE).write_text(json.dumps(index))


def test_tensors_are_read(folder):
  read = safetensors_folder.Folder(folder)
  assert read.config == {'d_model': 8}
  assert set(read) == set(_TENSORS) and len(read) == 3
  for name, tensor in _TENSORS.items():
    assert read.shapes[name] == tensor.shape
    assert read[name].dtype == tensor.dtype
    np.testing.assert_array_equal(read[name], tensor)
  np.testing.assert_array_equal(read.row('a', 2), [4, 5])


def test_all_files_are_listed(folder):
  names = [path.name for path in safetensors_folder.Folder(folder).files]
  assert set(names) == {path.name for path in folder.iterdir()}


def test_a_shard_that_is_missing_is_named(tmp_path):
  (sharded(tmp_path) / 'two.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match=r'no two\.safetensors'):
    safetensors_folder.Folder(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
  sharded(tmp_path)
  safetensors.save_file({'a': _TENSORS['a']}, tmp_path / 'one.safetensors')
  with pytest.raises(ValueError, match=r'one\.safetensors must hold .* c,'):
    safetensors_folder.Folder(tmp_path)


@pytest.mark.parametrize('place', ['../one.safetensors', '/etc/passwd', 3])
def test_an_index_stays_in_its_folder(tmp_path, place):
  write_index(sharded(tmp_path), {'weight_map': {'a': place}})
  with pytest.raises(ValueError, match='files of its own folder'):
    safetensors_folder.Folder(tmp_path)


@pytest.mark.parametrize('index', [{}, {'weight_map': {}}, []])
def test_an_index_without_places_is_refused(tmp_path, index):
  write_index(sharded(tmp_path), index)
  with pytest.raises(ValueError, match='weight_map'):
    safetensors_folder.Folder(tmp_path)


def test_a_damaged_file_is_named(folder):
  path = next(folder.glob('*.safetensors'))
  path.write_bytes(path.read_bytes()[:20])
  with pytest.raises(ValueError, match=path.name):
    safetensors_folder.Folder(folder)


def test_a_damaged_config_is_named(folder):
  (folder / 'config.json').write_text('{')
  with pytest.raises(ValueError, match=r'config\.json must be JSON'):
    safetensors_folder.Folder(folder)


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.pt'])
def test_pickles_alone_are_named(tmp_path, name):
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / name).write_bytes(b'\x80')
  with pytest.raises(FileNotFoundError, match=f'It has {name}'):
    safetensors_folder.Folder(tmp_path)
