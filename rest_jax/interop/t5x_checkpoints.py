"""T5X checkpoints, read and written without T5X or TensorFlow.

T5X's own form is a folder `checkpoint_<step>`: a msgpack file `checkpoint` with
the train state as a tree, and a zarr array beside it for each array that the tree
replaces by a TensorStore spec. Its Orbax form has the same tree in the folder
`state`. The parameters (`target`) are read, the optimiser's state is not. Nothing
is unpickled, and nothing outside of the checkpoint's folder is opened.

Source: T5X (google-research/t5x), `t5x/checkpoints.py`, version 3 of the form.
"""

from collections.abc import Mapping
import os
import pathlib
import re
import shutil
from typing import Any, cast

from flax import serialization, traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from rest_jax import types
from rest_jax.interop import scanned_layers
from rest_jax.models import network, policy
from rest_jax.storage import file_kinds

CHECKPOINT_FILE = 'checkpoint'
_ORBAX_STATE = 'state'
_ORBAX_METADATA = '_METADATA'
_STEP = re.compile(r'checkpoint_(\d+)')
_VERSION = 3
# Version 2 differs in how it stores bfloat16, which is refused.
_READABLE_VERSIONS = (2, _VERSION)
_DTYPES = ('float32', 'bfloat16', 'float16')
_SPEC_KEYS = {'driver', 'kvstore'}
# Where T5X runs on Google Cloud, its specs say 'gcs'; the files are the same.
_KVSTORES = ('file', 'gfile', 'gcs')
_CHUNK_BYTES = 64 * 2**20
_EMBEDDING = 'token_embedder/embedding'


def find(directory: str | pathlib.Path) -> pathlib.Path | None:
  """Finds the checkpoint that a path means.

  Args:
    directory: a folder `checkpoint_<step>`, or one that holds several; then the
      one of the last step is meant.

  Returns:
    The folder of one step, None if there is none.
  """
  directory = pathlib.Path(directory)
  if _is_step(directory):
    return directory
  steps = [
    (int(match[1]), path)
    for path in directory.glob('checkpoint_*')
    if (match := _STEP.fullmatch(path.name)) and _is_step(path)
  ]
  return max(steps)[1] if steps else None


def load_policy(
  directory: str | pathlib.Path, config: network.NetworkConfig
) -> tuple[network.NetworkConfig, types.Params]:
  """Reads the parameters of a T5X checkpoint, in its own form or Orbax's.

  Args:
    directory: see `find`.
    config: sizes of the network, which the checkpoint does not tell. A
      `vocab_size` of 0 stands for that of the checkpoint.

  Returns:
    The sizes, with `vocab_size` set, and float32 parameters as numpy arrays.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it is not of this network, of another kind, or damaged.
  """
  step = find(directory)
  if step is None:
    raise FileNotFoundError(
      f'{directory} must be a T5X checkpoint, or hold folders checkpoint_<step>; '
      f'there is neither a file {CHECKPOINT_FILE} nor a folder {_ORBAX_STATE}.'
    )
  orbax = _orbax_folder(step)
  source = _Orbax(step, orbax) if orbax else _Msgpack(step)
  config = _with_vocab(config, source)
  expected = _flat_shapes(config)
  scanned_layers.check(step, source.shapes, config)
  found = scanned_layers.unstacked(
    source.shapes, config, scanned_layers.without_layer
  )
  _check_names(step, set(expected), set(found))
  for name, shape in expected.items():
    if found[name] != shape:
      raise ValueError(
        f'{name} must have the shape {shape}; in {step} it has {found[name]}. '
        'Give the sizes of the network that the checkpoint is of, see '
        'gin_configs/models/.'
      )
  arrays = scanned_layers.unstacked(source.read(), config, scanned_layers.layer)
  return config, traverse_util.unflatten_dict(arrays, sep='/')


def save_policy(
  directory: str | pathlib.Path, params: types.Params, *, step: int = 0
) -> pathlib.Path:
  """Writes parameters as a checkpoint that T5X's `Checkpointer` restores.

  It has no optimiser state: T5X restores it for inference as it is; for training
  its `RestoreCheckpointConfig` needs `fallback_to_scratch = True`, and with it
  `state_transformation_fns` such as `[@state_utils.apply_assignment_map]`.

  Args:
    directory: gets the folder `checkpoint_<step>`.
    params: of the policy.
    step: the training step that T5X shall count from.

  Returns:
    That folder.

  Raises:
    FileExistsError: it is there already.
  """
  final = pathlib.Path(directory).absolute() / f'checkpoint_{step}'
  if final.exists():
    raise FileExistsError(
      f'{final} exists. Remove it, or write to another folder.'
    )
  temporary = final.with_name(f'.{final.name}.{os.getpid()}.tmp')
  flat = _flatten(jax.device_get(params))
  try:
    temporary.mkdir(parents=True)
    specs = {
      name: _write_zarr(temporary, name, np.asarray(array, np.float32))
      for name, array in flat.items()
    }
    state = {
      # An array: T5X asks each leaf for its dtype.
      'state': {'step': np.asarray(step, np.int32)},
      'target': traverse_util.unflatten_dict(specs, sep='/'),
    }
    (temporary / CHECKPOINT_FILE).write_bytes(
      serialization.msgpack_serialize({'version': _VERSION, 'optimizer': state})
    )
    temporary.rename(final)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  return final


class _Msgpack:
  """A checkpoint in T5X's own form.

  Attributes:
    shapes: of each parameter, by its name with '/'.
  """

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    content = _restore_msgpack(directory / CHECKPOINT_FILE)
    version = content.get('version')
    if version not in _READABLE_VERSIONS:
      raise ValueError(
        f'version of {directory / CHECKPOINT_FILE} must be one of '
        f'{_READABLE_VERSIONS}; got {version!r}. Load and save it with a newer '
        'T5X.'
      )
    target = _member(content, ('optimizer', 'target'), directory)
    self._leaves = _flatten(target)
    self.shapes = {}
    for name, leaf in self._leaves.items():
      if _is_spec(leaf):
        leaf = self._leaves[name] = self._open(name, leaf)
        dtype = leaf.dtype.name
      elif isinstance(leaf, np.ndarray):
        dtype = leaf.dtype.name
      else:
        raise ValueError(
          f'{name} in {directory} must be an array or the TensorStore spec of '
          f'one; got {type(leaf).__name__}.'
        )
      _check_dtype(directory, name, dtype)
      self.shapes[name] = tuple(leaf.shape)

  def read(self) -> dict[str, np.ndarray]:
    return {name: self._read(name) for name in self._leaves}

  def _read(self, name: str) -> np.ndarray:
    leaf = self._leaves[name]
    if isinstance(leaf, np.ndarray):
      return leaf.astype(np.float32)
    try:
      return np.asarray(leaf.read().result(), np.float32)
    except ValueError as error:
      raise _damaged(self._directory, name, error) from error

  def _open(self, name: str, spec: Mapping[str, Any]) -> Any:
    """Opens the array of a spec, of which only its folder's name is trusted."""
    kvstore = spec['kvstore']
    store = kvstore.get('driver') if isinstance(kvstore, dict) else None
    if spec['driver'] != 'zarr' or store not in _KVSTORES:
      raise ValueError(
        f'{name} in {self._directory} must be a zarr array in one of '
        f'{_KVSTORES}; got {spec["driver"]!r} in {store!r}.'
      )
    # TensorStore before 0.1.14 had it one level above.
    folder = str(kvstore.get('path', spec.get('path', ''))).removesuffix('/')
    if folder in ('', '..') or pathlib.PurePath(folder).name != folder:
      raise ValueError(
        f'{name} in {self._directory} must be stored in a folder of the '
        f'checkpoint; its path is {folder!r}.'
      )
    try:
      return tensorstore.open(
        {
          'driver': 'zarr',
          'kvstore': {
            'driver': 'file',
            'path': f'{self._directory.absolute() / folder}/',
          },
          # T5X writes every chunk, and one that is missing would be zeros.
          'fill_missing_data_reads': False,
        },
        open=True,
      ).result()
    except ValueError as error:
      raise _damaged(self._directory, name, error) from error


class _Orbax:
  """A checkpoint as T5X writes it by Orbax.

  Attributes:
    shapes: of each parameter, by its name with '/'.
  """

  def __init__(self, directory: pathlib.Path, folder: pathlib.Path):
    self._directory = directory
    self._folder = folder
    self._checkpointer = ocp.PyTreeCheckpointer()
    try:
      found = self._checkpointer.metadata(self._folder).item_metadata
    except (ValueError, KeyError, OSError) as error:
      raise _damaged(directory, 'the tree', error) from error
    if found is None:  # Orbax has logged why.
      raise _damaged(directory, 'the tree', 'see the log')
    target = _member(found.tree, ('target',), directory)
    self._leaves = _flatten(target)
    self.shapes = {}
    for name, leaf in self._leaves.items():
      shape = getattr(leaf, 'shape', None)
      if shape is None:
        raise ValueError(
          f'{name} in {directory} must be an array; got {type(leaf).__name__}.'
        )
      _check_dtype(directory, name, np.dtype(leaf.dtype).name)
      self.shapes[name] = tuple(shape)

  def read(self) -> dict[str, np.ndarray]:
    item = {
      name: jax.ShapeDtypeStruct(shape, np.float32)
      for name, shape in self.shapes.items()
    }
    tree = {'target': traverse_util.unflatten_dict(item, sep='/')}
    as_numpy = ocp.RestoreArgs(
      restore_type=np.ndarray, dtype=np.dtype('float32')
    )
    try:
      restored = self._checkpointer.restore(
        self._folder,
        args=ocp.args.PyTreeRestore(
          item=tree,
          restore_args=jax.tree.map(lambda _: as_numpy, tree),
          partial_restore=True,
        ),
      )
    except (ValueError, KeyError, OSError) as error:
      raise _damaged(self._directory, 'an array', error) from error
    return _flatten(restored['target'])


def _flatten(tree: Any) -> dict[str, Any]:
  flat = traverse_util.flatten_dict(
    tree, is_leaf=lambda _, x: _is_spec(x), sep='/'
  )
  return cast(dict[str, Any], flat)


def _is_step(directory: pathlib.Path) -> bool:
  return (directory / CHECKPOINT_FILE).is_file() or bool(
    _orbax_folder(directory)
  )


def _orbax_folder(directory: pathlib.Path) -> pathlib.Path | None:
  for folder in (directory / _ORBAX_STATE, directory):
    if (folder / _ORBAX_METADATA).is_file():
      return folder.absolute()
  return None


def _is_spec(leaf: Any) -> bool:
  return isinstance(leaf, dict) and set(leaf) >= _SPEC_KEYS


def _restore_msgpack(path: pathlib.Path) -> dict[str, Any]:
  content = path.read_bytes()
  if content.startswith(b'model_checkpoint_path'):
    other = 'the index of a TensorFlow checkpoint; convert it with T5X'
  else:
    other = file_kinds.describe(path)
  if other:
    raise ValueError(f"{path} must be T5X's msgpack file; it is {other}.")
  try:
    restored = serialization.msgpack_restore(content)
  # What msgpack and its arrays raise for bytes that are not theirs.
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(
      f"{path} must be T5X's msgpack file; it is not, or is damaged ({error}). "
      'Fetch the checkpoint again.'
    ) from error
  if not isinstance(restored, dict):
    raise ValueError(
      f"{path} must be T5X's msgpack file, a tree; it holds a "
      f'{type(restored).__name__}.'
    )
  return restored


def _member(tree: Any, path: tuple[str, ...], directory: pathlib.Path) -> Any:
  for name in path:
    tree = tree.get(name) if isinstance(tree, dict) else None
  if not isinstance(tree, dict):
    raise ValueError(
      f'{directory} must hold parameters under {"/".join(path)}; it does not, so '
      'it is no T5X train state.'
    )
  return tree


def _with_vocab(
  config: network.NetworkConfig, source: _Msgpack | _Orbax
) -> network.NetworkConfig:
  size = source.shapes.get(_EMBEDDING, (0,))[0]
  if config.vocab_size not in (0, size) and size:
    raise ValueError(
      f'vocab_size must be {size}, as in the checkpoint, or 0; got '
      f'{config.vocab_size}. Set NetworkConfig.vocab_size.'
    )
  # Without embeddings there is an error that names them, whatever the size.
  return config.with_vocab(size or 1)


def _flat_shapes(config: network.NetworkConfig) -> dict[str, tuple[int, ...]]:
  shapes = jax.eval_shape(policy.Policy(config).init, jax.random.key(0))
  return {name: leaf.shape for name, leaf in _flatten(shapes).items()}


def _check_names(
  directory: pathlib.Path, expected: set[str], found: set[str]
) -> None:
  hint = 'Give the sizes of its network, see gin_configs/models/.'
  if 'encoder/layers_0/relpos_bias/rel_embedding' in found - expected:
    hint = 'Each layer has a position bias: set relative_bias_per_layer = True.'
  for what, names in (
    ('lacks parameters of the network', sorted(expected - found)),
    ('has parameters that the network lacks', sorted(found - expected)),
  ):
    if names:
      raise ValueError(
        f'{directory} {what}: {names[0]} ({len(names)} in all). {hint}'
      )


def _check_dtype(directory: pathlib.Path, name: str, dtype: str) -> None:
  if dtype not in _DTYPES:
    raise ValueError(
      f'{name} in {directory} must be of one of {_DTYPES}; got {dtype}.'
    )


def _damaged(
  directory: pathlib.Path, name: str, error: Exception | str
) -> ValueError:
  return ValueError(
    f'{name} in {directory} cannot be read: a file is missing or damaged '
    f'({error}). Fetch the checkpoint again.'
  )


def _write_zarr(
  directory: pathlib.Path, name: str, array: np.ndarray
) -> dict[str, Any]:
  """Writes one array; returns the spec that stands for it in the tree."""
  folder = f'target.{name.replace("/", ".")}'
  row_bytes = max(1, array[:1].nbytes)
  rows = min(max(1, _CHUNK_BYTES // row_bytes), len(array))
  spec = {
    'driver': 'zarr',
    'dtype': array.dtype.name,
    'kvstore': {'driver': 'file', 'path': f'{folder}/'},
    'metadata': {
      'shape': list(array.shape),
      'chunks': [rows, *array.shape[1:]],
      'compressor': {'id': 'gzip', 'level': 1},
    },
  }
  kvstore = {'driver': 'file', 'path': f'{directory / folder}/'}
  tensorstore.open({**spec, 'kvstore': kvstore}, create=True).result().write(
    array
  ).result()
  return spec
