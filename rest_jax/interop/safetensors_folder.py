"""The tensors of a Hugging Face folder, read from disk one at a time.

Either `model.safetensors`, or `model.safetensors.index.json` and the shards that
it names. Nothing else is opened, and a pickle never.
"""

from collections.abc import Iterator, Mapping
import json
import pathlib

import numpy as np
import safetensors

CONFIG_FILE = 'config.json'
WEIGHTS_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'
# What such folders hold where they have no safetensors.
_PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl')


class Folder(Mapping[str, np.ndarray]):
  """Tensors by name; each look-up reads one from disk.

  Attributes:
    directory: the folder.
    files: all files that are read, `config.json` first.
    config: what `config.json` says.
    shapes: of each tensor, known without reading any.
  """

  def __init__(self, directory: str | pathlib.Path):
    """Reads `config.json` and the headers of the weights.

    Args:
      directory: of the checkpoint.

    Raises:
      FileNotFoundError: if a file is missing, or there are pickled weights
        alone.
      ValueError: if a file is damaged, or a shard lacks a tensor that the index
        places there.
    """
    self.directory = pathlib.Path(directory)
    self.config = _read_json(self._file(CONFIG_FILE))
    index = self.directory / INDEX_FILE
    if index.is_file():
      self._file_of = self._indexed(_read_json(index))
      self.files = (self.directory / CONFIG_FILE, index)
    else:
      weights = self._file(WEIGHTS_FILE)
      self._file_of = dict.fromkeys(_shapes(weights), weights)
      self.files = (self.directory / CONFIG_FILE,)
    weights = sorted(set(self._file_of.values()))
    self.files += tuple(weights)
    found = {path: _shapes(path) for path in weights}
    for name, path in self._file_of.items():
      if name not in found[path]:
        raise ValueError(
          f'{path} must hold the tensor {name}, as {INDEX_FILE} says; it does '
          'not. Fetch the checkpoint again.'
        )
    self.shapes = {
      name: found[path][name] for name, path in self._file_of.items()
    }

  def __getitem__(self, name: str) -> np.ndarray:
    with _opened(self._file_of[name]) as opened:
      return opened.get_tensor(name)

  def row(self, name: str, index: int) -> np.ndarray:
    """Reads one row of a matrix, and no other."""
    with _opened(self._file_of[name]) as opened:
      return opened.get_slice(name)[index : index + 1][0]

  def __iter__(self) -> Iterator[str]:
    return iter(self._file_of)

  def __len__(self) -> int:
    return len(self._file_of)

  def _file(self, name: str) -> pathlib.Path:
    path = self.directory / name
    if path.is_file():
      return path
    pickles = sorted(
      found.name
      for pattern in _PICKLES
      for found in self.directory.glob(pattern)
    )
    there = f' It has {", ".join(pickles)}.' if pickles else ''
    raise FileNotFoundError(
      f'{self.directory} must have {CONFIG_FILE} and {WEIGHTS_FILE} (or '
      f'{INDEX_FILE} with its shards); there is no {name}.{there} Files of '
      'pickled weights are not read: save the model with '
      'safe_serialization=True.'
    )

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
    return {name: self._file(file) for name, file in places.items()}


def _read_json(path: pathlib.Path) -> dict:
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(
      f'{path} must be JSON; it is not ({error}). Fetch the checkpoint again.'
    ) from error


def _opened(path: pathlib.Path) -> safetensors.safe_open:
  try:
    return safetensors.safe_open(path, framework='np')
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} must be a safetensors file; it is not, or is damaged ({error}). '
      'Fetch the checkpoint again.'
    ) from error


def _shapes(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
  with _opened(path) as opened:
    return {
      name: tuple(opened.get_slice(name).get_shape())
      for name in opened.keys()  # noqa: SIM118, no mapping
    }
