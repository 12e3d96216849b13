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


@pytest.mark.parametrize(
  ('name', 'remedy'),
  [
    ('pytorch_model.bin', 'safe_serialization=True'),
    ('model.pt', 'safe_serialization=True'),
    ('flax_model.msgpack', 'fetch or save the model as safetensors'),
    ('tf_model.h5', 'fetch or save the model as safetensors'),
    ('flan-t5.gguf', 'fetch or save the model as safetensors'),
    ('adapter_model.safetensors', 'merge_and_unload'),
    ('model-00001-of-00002.safetensors', 'model.safetensors.index.json'),
    ('model.fp16.safetensors', 'call it model.safetensors'),
  ],
)
def test_weights_of_other_kinds_are_named(tmp_path, name, remedy):
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / name).write_bytes(b'\x80')
  with pytest.raises(FileNotFoundError, match=f'It has {name}') as raised:
    safetensors_folder.Folder(tmp_path)
  assert remedy in str(raised.value)


def test_shards_that_are_missing_are_all_named(tmp_path):
  for path in sharded(tmp_path).glob('*o*.safetensors'):
    path.unlink()
  message = r'the 2 files .* no one\.safetensors, no two\.safetensors'
  with pytest.raises(FileNotFoundError, match=message):
    safetensors_folder.Folder(tmp_path)


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
    (b'', 'is empty'),
    (b'<!doctype html>', 'a web page'),
  ],
)
def test_files_that_are_others_are_named(folder, content, words):
  paths = [*folder.glob('*.safetensors'), folder / 'config.json']
  for path in paths:
    before = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path.name} must be .*{words}'):
      safetensors_folder.Folder(folder)
    path.write_bytes(before)


def test_a_config_that_is_no_object(folder):
  (folder / 'config.json').write_text('["t5"]')
  with pytest.raises(ValueError, match='must hold a JSON object'):
    safetensors_folder.Folder(folder)


def test_equal_tensors(folder):
  tensors = {
    'a': np.arange(10000, dtype=np.float32).reshape(5000, 2),
    'c': np.full((1, 2), 1.5, ml_dtypes.bfloat16),
  }
  tensors['b'] = tensors['a'].copy()
  tensors['d'] = tensors['a'].copy()
  tensors['d'][4999, 1] = 0
  tensors['e'] = tensors['c'].copy()
  for path in folder.glob('*.safetensors*'):
    path.unlink()
  safetensors.save_file(tensors, folder / 'model.safetensors')
  read = safetensors_folder.Folder(folder)
  assert read.is_same('a', 'b') and read.is_same('c', 'e')
  assert not read.is_same('a', 'd') and not read.is_same('a', 'c')
