"""The tensors of a Hugging Face folder, read from disk one at a time.

Either `model.safetensors`, or `model.safetensors.index.json` and the shards that
it names. Nothing else is opened, and a pickle never.
"""

from collections.abc import Collection, Iterator, Mapping
import json
import pathlib
from typing import Any

import numpy as np
import safetensors

from rest_jax.interop import huggingface_config
from rest_jax.storage import file_kinds

CONFIG_FILE = huggingface_config.CONFIG_FILE
WEIGHTS_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'
_DTYPES = ('F64', 'F32', 'F16', 'BF16')
# Rows of a matrix that are compared at once.
_BLOCK = 4096
# Weights of other kinds that such folders hold, and what to do about them.
_SAVE_ANEW = (
  'Files of pickled weights are not read: save the model with '
  'safe_serialization=True.'
)
_OTHER_WEIGHTS = (
  (
    ('adapter_config.json', 'adapter_model.*'),
    'These are adapters, which hold a part of the weights: merge them into '
    "their base model (peft's merge_and_unload) and save that.",
  ),
  (
    ('model-*-of-*.safetensors',),
    f'These are shards, and {INDEX_FILE}, which says what each holds, is '
    'missing: fetch it as well.',
  ),
  (
    ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl'),
    _SAVE_ANEW,
  ),
  (
    ('*.msgpack', '*.h5', '*.gguf', '*.onnx'),
    'Weights of Flax, TensorFlow, llama.cpp and ONNX are not read: fetch or '
    'save the model as safetensors.',
  ),
  (
    ('*.safetensors',),
    f'Is it the whole model? Then call it {WEIGHTS_FILE}.',
  ),
)


class Folder(Mapping[str, np.ndarray]):
  """Tensors by name; each look-up reads one from disk.

  Attributes:
    directory: the folder.
    files: all files that are read, `config.json` first.
    config: what `config.json` says; of special ids what `generation_config.json`
      does, if it has them.
    shapes: of each tensor, known without reading any.
    dtypes: likewise, by safetensors' names.
  """

  def __init__(self, directory: str | pathlib.Path):
    """Reads `config.json` and the headers of the weights.

    Args:
      directory: of the checkpoint.

    Raises:
      FileNotFoundError: if a file is missing, or there are only weights of
        other kinds.
      ValueError: if a file is damaged, or a shard lacks a tensor that the index
        places there.
    """
    self.directory = pathlib.Path(directory)
    self.config = _read_object(self._file(CONFIG_FILE))
    generation = self.directory / huggingface_config.GENERATION_FILE
    if generation.is_file():
      said = _read_object(generation)
      self.config |= {
        name: said[name]
        for name in huggingface_config.SPECIAL_IDS
        if said.get(name) is not None
      }
    index = self.directory / INDEX_FILE
    if index.is_file():
      self._file_of = self._indexed(_read_json(index))
      self.files = (self.directory / CONFIG_FILE, index)
    else:
      weights = self._file(WEIGHTS_FILE)
      self._file_of = dict.fromkeys(_headers(weights), weights)
      self.files = (self.directory / CONFIG_FILE,)
    weights = sorted(set(self._file_of.values()))
    self.files += tuple(weights)
    found = {path: _headers(path) for path in weights}
    for name, path in self._file_of.items():
      if name not in found[path]:
        raise ValueError(
          f'{path} must hold the tensor {name}, as {INDEX_FILE} says; it does '
          'not. Fetch the checkpoint again.'
        )
    headers = {name: found[path][name] for name, path in self._file_of.items()}
    self.shapes = {name: shape for name, (shape, _) in headers.items()}
    self.dtypes = {name: dtype for name, (_, dtype) in headers.items()}

  def __getitem__(self, name: str) -> np.ndarray:
    with _opened(self._file_of[name]) as opened:
      return opened.get_tensor(name)

  def row(self, name: str, index: int) -> np.ndarray:
    """Reads one row of a matrix, and no other."""
    with _opened(self._file_of[name]) as opened:
      return opened.get_slice(name)[index : index + 1][0]

  def check_dtypes(self, names: Collection[str]) -> None:
    """Raises ValueError unless tensors are of a common floating-point type."""
    for name in names:
      if self.dtypes[name] not in _DTYPES:
        raise ValueError(
          f'{name} of {self._file_of[name]} must be of one of the types '
          f'{_DTYPES}; got {self.dtypes[name]}. Quantised weights are not read: '
          'use the original checkpoint.'
        )

  def is_same(self, name: str, other: str) -> bool:
    """Whether two tensors are equal; few of their rows are held at once."""
    if self.shapes[name] != self.shapes[other] or not self.shapes[name]:
      return False
    with (
      _opened(self._file_of[name]) as opened,
      _opened(self._file_of[other]) as others,
    ):
      rows, other_rows = opened.get_slice(name), others.get_slice(other)
      size = self.shapes[name][0]
      return all(
        np.array_equal(rows[start:stop], other_rows[start:stop])
        for start in range(0, size, _BLOCK)
        for stop in (min(start + _BLOCK, size),)
      )

  def __iter__(self) -> Iterator[str]:
    return iter(self._file_of)

  def __len__(self) -> int:
    return len(self._file_of)

  def _file(self, name: str) -> pathlib.Path:
    path = self.directory / name
    if path.is_file():
      return path
    if path.is_symlink():
      raise FileNotFoundError(f'{path} is {file_kinds.describe(path)}.')
    raise FileNotFoundError(
      f'{self.directory} must have {CONFIG_FILE} and {WEIGHTS_FILE} (or '
      f'{INDEX_FILE} with its shards); there is no {name}.'
      f'{self._other_weights()}'
    )

  def _other_weights(self) -> str:
    """Says what weights a folder has that are not read, if any."""
    for patterns, remedy in _OTHER_WEIGHTS:
      found = sorted(
        path.name
        for pattern in patterns
        for path in self.directory.glob(pattern)
      )
      if found:
        more = f' and {len(found) - 3} more' if len(found) > 3 else ''
        return f' It has {", ".join(found[:3])}{more}. {remedy}'
    return ' Fetch the checkpoint again.'

  def _indexed(self, index: object) -> dict[str, pathlib.Path]:
    """The file of each tensor that an index names."""
    places = index.get('weight_map') if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
      raise ValueError(
        f'{self.directory / INDEX_FILE} must say under "weight_map" which file '
        'holds each tensor. Fetch the checkpoint again.'
      )
    for name, file in places.items():
      # A shard lies beside the index and nowhere else.
      if not isinstance(file, str) or pathlib.PurePath(file).name != file:
        raise ValueError(
          f'{INDEX_FILE} must name files of its own folder; for {name} it has '
          f'{file!r}.'
        )
    missing = sorted(
      file
      for file in set(places.values())
      if not (self.directory / file).is_file()
    )
    if missing:
      raise FileNotFoundError(
        f'{self.directory} must have the {len(set(places.values()))} files that '
        f'{INDEX_FILE} names; there is no {", no ".join(missing)}. Fetch what is '
        'missing.'
      )
    return {name: self.directory / file for name, file in places.items()}


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  content = _read_json(path)
  if not isinstance(content, dict):
    raise ValueError(
      f'{path} must hold a JSON object; it holds a {type(content).__name__}. '
      'Fetch the checkpoint again.'
    )
  return content


def _read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(
      f'{path} must be JSON; {_instead(path, error)} Fetch the checkpoint again.'
    ) from error


def _opened(path: pathlib.Path) -> safetensors.safe_open:
  try:
    return safetensors.safe_open(path, framework='np')
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} must be a safetensors file; {_instead(path, error)} Fetch the '
      'checkpoint again.'
    ) from error


def _instead(path: pathlib.Path, error: Exception) -> str:
  """Says what a file is that cannot be read."""
  kind = file_kinds.describe(path)
  return f'it is {kind}.' if kind else f'it is not, or is damaged ({error}).'


def _headers(path: pathlib.Path) -> dict[str, tuple[tuple[int, ...], str]]:
  """Returns shape and type of each tensor of a file."""
  with _opened(path) as opened:
    slices = {
      name: opened.get_slice(name)
      for name in opened.keys()  # noqa: SIM118, no mapping
    }
    return {
      name: (tuple(part.get_shape()), part.get_dtype())
      for name, part in slices.items()
    }
