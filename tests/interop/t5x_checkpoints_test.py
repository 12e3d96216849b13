"""T5X checkpoints: T5X's own, written and read back, and refused."""

import dataclasses
import json
import shutil

from flax import serialization, traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from rest_jax.interop import t5x_checkpoints
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from tests.models import tiny


def _golden(shared_dir, name):
  folder = shared_dir / 'golden' / 't5x_tiny'
  sizes = json.loads((folder / 'config.json').read_text())
  for key in ('eos_id', 'pad_id', 't5x_commit'):
    del sizes[key]
  config = network.NetworkConfig(**sizes, logits_via_embedding=name == 'tied')
  with np.load(folder / f'{name}.npz') as file:
    return config, folder / f'{name}_checkpoint', dict(file)


def _same(read, expected):
  jax.tree.map(np.testing.assert_array_equal, read, jax.device_get(expected))


@pytest.mark.parametrize('name', ['untied', 'tied'])
def test_what_t5x_wrote_has_its_parameters_and_logits(shared_dir, name):
  config, folder, arrays = _golden(shared_dir, name)
  found, params = t5x_checkpoints.load_policy(folder, config)
  assert found == config
  flat = traverse_util.flatten_dict(params, sep='/')
  stored = {
    key.removeprefix('params/'): value
    for key, value in arrays.items()
    if key.startswith('params/')
  }
  assert set(flat) == set(stored)
  for key, value in stored.items():
    np.testing.assert_array_equal(flat[key], value)
  logits = policy_lib.Policy(config).logits(
    params,
    {
      key.removeprefix('batch/'): value
      for key, value in arrays.items()
      if key.startswith('batch/')
    },
  )
  np.testing.assert_allclose(logits, arrays['logits'], atol=1e-5)


def test_writes_what_t5x_writes(shared_dir, tmp_path):
  """The same files and tree as T5X's own, less the optimiser's state."""
  config, folder, _ = _golden(shared_dir, 'tied')
  _, params = t5x_checkpoints.load_policy(folder, config)
  written = t5x_checkpoints.save_policy(tmp_path, params)
  theirs = folder / 'checkpoint_0'
  assert written.name == theirs.name
  assert {path.name for path in written.iterdir()} == {
    path.name for path in theirs.iterdir() if not path.name.startswith('state.')
  }
  ours, expected = (
    serialization.msgpack_restore((path / 'checkpoint').read_bytes())
    for path in (written, theirs)
  )
  assert ours['optimizer']['target'] == expected['optimizer']['target']
  assert ours['version'] == expected['version']
  ours, expected = (
    tree['optimizer']['state']['step'] for tree in (ours, expected)
  )
  assert (ours, ours.dtype) == (expected, expected.dtype)
  for name in ('.zarray', '0.0'):
    assert (
      written / 'target.token_embedder.embedding' / name
    ).read_bytes() == (
      theirs / 'target.token_embedder.embedding' / name
    ).read_bytes()


@pytest.fixture(scope='module')
def model():
  config = tiny.config(num_heads=3, num_decoder_layers=3)
  params = tiny.lively(policy_lib.Policy(config).init(jax.random.key(0)))
  # A chunk of zeros is a chunk all the same.
  params['decoder']['relpos_bias']['rel_embedding'] *= 0
  return config, jax.device_get(params)


@pytest.fixture
def folder(model, tmp_path):
  return t5x_checkpoints.save_policy(tmp_path / 'theirs', model[1], step=7)


def _load(model, folder):
  return t5x_checkpoints.load_policy(folder, model[0])[1]


def test_reads_what_it_wrote_bit_for_bit(model, folder):
  assert folder.name == 'checkpoint_7'
  _same(_load(model, folder), model[1])


def test_arrays_of_several_chunks(model, tmp_path, monkeypatch):
  monkeypatch.setattr(t5x_checkpoints, '_CHUNK_BYTES', 5 * 16 * 4)
  folder = t5x_checkpoints.save_policy(tmp_path, model[1])
  chunks = sorted(
    path.name for path in (folder / 'target.token_embedder.embedding').iterdir()
  )
  # 24 rows in chunks of 5.
  assert chunks == ['.zarray', '0.0', '1.0', '2.0', '3.0', '4.0']
  _same(_load(model, folder), model[1])


def test_the_last_step_of_several_is_read(model, tmp_path):
  for step in (9, 100, 20):
    params = jax.tree.map(lambda x, step=step: x + step, model[1])
    t5x_checkpoints.save_policy(tmp_path, params, step=step)
  (tmp_path / 'checkpoint_200').mkdir()
  (tmp_path / 'checkpoint_300.tmp-1').mkdir()
  _same(_load(model, tmp_path), jax.tree.map(lambda x: x + 100, model[1]))
  assert t5x_checkpoints.find(tmp_path).name == 'checkpoint_100'


def test_an_existing_checkpoint_is_not_overwritten(model, folder):
  with pytest.raises(FileExistsError, match='checkpoint_7'):
    t5x_checkpoints.save_policy(folder.parent, model[1], step=7)


def test_nothing_is_left_of_a_write_that_failed(model, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(serialization, 'msgpack_serialize', fail)
  with pytest.raises(OSError, match='disk full'):
    t5x_checkpoints.save_policy(tmp_path, model[1])
  assert not list(tmp_path.iterdir())


def test_the_vocabulary_of_the_checkpoint_is_taken(model, folder):
  config, params = model
  found, read = t5x_checkpoints.load_policy(
    folder, tiny.config(vocab_size=0, num_heads=3, num_decoder_layers=3)
  )
  assert found == config
  _same(read, params)


def _other_layout(params, folder):
  """As T5X might have written it on Google Cloud, with optimiser state.

  Norms stand in the msgpack file, kernels are bfloat16 in several chunks, the
  rest is float32.
  """
  flat = traverse_util.flatten_dict(params, sep='/')
  tree = {}
  for name, array in flat.items():
    if name.endswith('scale'):
      tree[name] = array
      continue
    dtype = 'bfloat16' if name.endswith('kernel') else 'float32'
    path = 'target.' + name.replace('/', '.')
    metadata = {
      'shape': list(array.shape),
      'chunks': [7, 3],
      'compressor': {'id': 'gzip'},
    }
    kvstore = {'driver': 'file', 'path': str(folder / path)}
    stored = tensorstore.open(
      {
        'driver': 'zarr',
        'dtype': dtype,
        'kvstore': kvstore,
        'metadata': metadata,
      },
      create=True,
    ).result()
    stored.write(array.astype(stored.dtype.numpy_dtype)).result()
    # Specs of before TensorStore 0.1.14.
    tree[name] = {
      'driver': 'zarr',
      'dtype': dtype,
      'kvstore': {'driver': 'gcs', 'bucket': 't5x-dummy-bucket'},
      'path': path,
      'metadata': metadata,
    }
  _write_index(folder, tree)


def _write_index(folder, flat, version=3):
  state = {
    'target': traverse_util.unflatten_dict(flat, sep='/'),
    'state': {'step': np.int32(7), 'param_states': {'v': np.ones(2)}},
  }
  (folder / 'checkpoint').write_bytes(
    serialization.msgpack_serialize({'version': version, 'optimizer': state})
  )


def test_other_layouts_are_read(model, tmp_path):
  _, params = model
  folder = tmp_path / 'checkpoint_1000'
  folder.mkdir()
  _other_layout(params, folder)
  read = traverse_util.flatten_dict(_load(model, tmp_path), sep='/')
  bfloat16 = jax.numpy.bfloat16
  for name, array in traverse_util.flatten_dict(params, sep='/').items():
    if name.endswith('kernel'):
      array = array.astype(bfloat16).astype(np.float32)
    np.testing.assert_array_equal(read[name], array)
    assert read[name].dtype == np.float32


@pytest.mark.parametrize('ocdbt', [True, False])
def test_reads_the_form_of_orbax(model, tmp_path, ocdbt):
  folder = _save_orbax(model[1], tmp_path, ocdbt)
  _same(_load(model, folder), model[1])
  _same(_load(model, folder / 'state'), model[1])
  _same(_load(model, tmp_path), model[1])


def _save_orbax(params, folder, ocdbt=True):
  """As T5X's `OrbaxCheckpointManagerInterface` lays it out."""
  manager = ocp.CheckpointManager(
    folder,
    item_handlers={'state': ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)},
    options=ocp.CheckpointManagerOptions(step_prefix='checkpoint'),
  )
  state = {
    'target': params,
    'state': {'step': np.int32(3), 'param_states': {'v': np.ones(2)}},
  }
  manager.save(3, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)))
  manager.wait_until_finished()
  manager.close()
  return folder / 'checkpoint_3'


def _edit(folder, change):
  """Changes the flat tree of parameters in the msgpack file."""
  content = serialization.msgpack_restore((folder / 'checkpoint').read_bytes())
  flat = traverse_util.flatten_dict(
    content['optimizer']['target'],
    is_leaf=lambda _, x: 'driver' in x,
    sep='/',
  )
  change(flat)
  _write_index(folder, flat)


_KERNEL = 'encoder/layers_1/mlp/wo/kernel'


def test_a_missing_parameter_is_named(model, folder):
  _edit(folder, lambda flat: flat.pop(_KERNEL))
  with pytest.raises(ValueError, match=f'lacks .*{_KERNEL} \\(1 in all'):
    _load(model, folder)


def test_missing_embeddings_are_named(model, folder):
  _edit(folder, lambda flat: flat.pop('token_embedder/embedding'))
  with pytest.raises(ValueError, match=r'lacks .*token_embedder/embedding'):
    _load(model, folder)


def test_a_parameter_too_many_is_named(model, folder):
  extra = {'encoder/adapter/kernel': np.zeros((2, 2), np.float32)}
  _edit(folder, lambda flat: flat.update(extra))
  with pytest.raises(ValueError, match='network lacks: encoder/adapter/kernel'):
    _load(model, folder)


def test_another_shape_is_named(model, folder):
  turned = {_KERNEL: np.zeros((16, 20), np.float32)}
  _edit(folder, lambda flat: flat.update(turned))
  with pytest.raises(ValueError, match=rf'{_KERNEL} .*\(20, 16\).*\(16, 20\)'):
    _load(model, folder)


def test_another_vocabulary_is_named(model, folder):
  config = tiny.config(vocab_size=25, num_heads=3, num_decoder_layers=3)
  with pytest.raises(ValueError, match=r'vocab_size must be 24.*got 25'):
    t5x_checkpoints.load_policy(folder, config)


def _scanned(params, scope):
  """Parameters as `scalable_t5` has them: layers along the second axis."""
  flat = {
    tuple(path): leaf
    for path, leaf in traverse_util.flatten_dict(params).items()
  }
  stacked = {}
  for path, leaf in flat.items():
    if path[1].startswith('layers_'):
      name = (path[0], scope or path[0], *path[2:])
      stacked.setdefault(name, []).append((path[1], leaf))
    else:
      stacked[path] = leaf
  for path, leaf in stacked.items():
    if isinstance(leaf, list):
      layers = [layer for _, layer in sorted(leaf, key=lambda pair: pair[0])]
      stacked[path] = np.stack(layers, axis=1)
  return traverse_util.unflatten_dict(stacked)


@pytest.mark.parametrize('scope', ['layers', None])
def test_scanned_layers_are_read(shared_dir, tmp_path, scope):
  config, folder, _ = _golden(shared_dir, 'untied')
  _, expected = t5x_checkpoints.load_policy(folder, config)
  t5x_checkpoints.save_policy(tmp_path, _scanned(expected, scope))
  _, read = t5x_checkpoints.load_policy(tmp_path, config)
  _same(read, expected)


def test_scanned_layers_of_another_number_are_named(model, tmp_path):
  config, params = model
  t5x_checkpoints.save_policy(tmp_path, _scanned(params, 'layers'))
  other = dataclasses.replace(config, num_decoder_layers=2)
  with pytest.raises(ValueError, match='must have 2 layers along its second'):
    t5x_checkpoints.load_policy(tmp_path, other)


def test_scanned_position_biases_are_those_of_layers(tmp_path):
  config = tiny.config(relative_bias_per_layer=True)
  params = jax.device_get(tiny.lively(tiny.init(policy_lib.Policy(config))))
  scanned = _scanned(params, 'layers')
  for stack in ('encoder', 'decoder'):
    layers = scanned[stack]['layers']
    layers['relative_posemb'] = layers.pop('relpos_bias')
  t5x_checkpoints.save_policy(tmp_path, scanned)
  _same(t5x_checkpoints.load_policy(tmp_path, config)[1], params)


@pytest.mark.parametrize(
  ('dtype', 'name'), [(np.int8, 'int8'), (np.uint16, 'uint16')]
)
def test_other_types_of_numbers_are_refused(model, folder, dtype, name):
  changed = {_KERNEL: np.zeros((20, 16), dtype)}
  _edit(folder, lambda flat: flat.update(changed))
  with pytest.raises(ValueError, match=f'{_KERNEL}.*{name}'):
    _load(model, folder)


def test_a_leaf_that_is_no_array_is_refused(model, folder):
  _edit(folder, lambda flat: flat.update({_KERNEL: 'PLACEHOLDER://x'}))
  with pytest.raises(ValueError, match=f'{_KERNEL}.*got str'):
    _load(model, folder)


_FOLDER = 'target.encoder.layers_1.mlp.wo.kernel'


@pytest.mark.parametrize(
  'damage',
  [
    lambda path: shutil.rmtree(path),
    lambda path: (path / '0.0').unlink(),
    lambda path: (path / '0.0').write_bytes(b'no gzip'),
    lambda path: (path / '0.0').write_bytes((path / '0.0').read_bytes()[:-20]),
    lambda path: (path / '.zarray').write_text('{'),
  ],
  ids=['no folder', 'no chunk', 'other bytes', 'cut', 'no metadata'],
)
def test_a_damaged_zarr_is_named(model, folder, damage):
  damage(folder / _FOLDER)
  with pytest.raises(ValueError, match=f'{_KERNEL} in .* damaged'):
    _load(model, folder)


@pytest.mark.parametrize('path', ['../other', '/etc', 'a/b', '..', ''])
def test_specs_that_lead_out_of_the_folder_are_refused(model, folder, path):
  def change(flat):
    flat[_KERNEL]['kvstore']['path'] = path

  _edit(folder, change)
  with pytest.raises(ValueError, match=f'{_KERNEL} .*folder of the checkpoint'):
    _load(model, folder)


@pytest.mark.parametrize(
  'spec',
  [
    {'driver': 'n5', 'kvstore': {'driver': 'file', 'path': _FOLDER}},
    {'driver': 'zarr', 'kvstore': {'driver': 'http', 'path': _FOLDER}},
    {'driver': 'zarr', 'kvstore': 'http://localhost/'},
  ],
)
def test_specs_of_other_stores_are_refused(model, folder, spec):
  _edit(folder, lambda flat: flat.update({_KERNEL: spec}))
  with pytest.raises(ValueError, match=f'{_KERNEL} .*zarr'):
    _load(model, folder)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'\x80\x04\x95\x10\x00\x00\x00.', 'a pickle'),
    (b'PK\x03\x04rest of a zip', 'a pickle'),
    (b'model_checkpoint_path: "model.ckpt-1"', 'TensorFlow'),
    (b'', 'is empty'),
    (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    (b'\x81\xa7version', 'damaged'),
    (b'\x07', 'holds a int'),
    (serialization.msgpack_serialize({'version': 3}), 'optimizer/target'),
    (serialization.msgpack_serialize({'optimizer': {}}), 'version'),
  ],
)
def test_other_files_are_refused(model, folder, content, message):
  (folder / 'checkpoint').write_bytes(content)
  with pytest.raises(ValueError, match=message):
    _load(model, folder)


def test_any_cut_of_the_index_is_refused(model, folder):
  content = (folder / 'checkpoint').read_bytes()
  for length in np.random.default_rng(0).integers(1, len(content), 50):
    (folder / 'checkpoint').write_bytes(content[:length])
    with pytest.raises(ValueError, match='damaged'):
      _load(model, folder)


def test_a_damaged_orbax_checkpoint_is_refused(model, tmp_path):
  folder = _save_orbax(model[1], tmp_path)
  (folder / 'state/_METADATA').write_text('{')
  with pytest.raises(ValueError, match=r'the tree in .*damaged'):
    _load(model, folder)


def test_orbax_of_another_network_is_refused(model, tmp_path):
  folder = _save_orbax(model[1], tmp_path)
  with pytest.raises(ValueError, match=r'lacks .*layers_2'):
    t5x_checkpoints.load_policy(
      folder, tiny.config(num_heads=3, num_encoder_layers=3)
    )


def test_a_folder_without_a_checkpoint_is_refused(model, tmp_path):
  with pytest.raises(FileNotFoundError, match='checkpoint_<step>'):
    _load(model, tmp_path)
