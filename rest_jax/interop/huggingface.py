"""Checkpoints of Hugging Face, read and written in every family's own form.

`huggingface_config` makes a network of `config.json`, `tensor_names` and
`stored_embeddings` tell which tensors are its parameters. Only safetensors are read,
never a pickle.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from rest_jax import types
from rest_jax.interop import (
  huggingface_config,
  safetensors_folder,
  stored_embeddings,
  tensor_names,
)
from rest_jax.models import network, parts, policy, positions
from rest_jax.storage import files

CONFIG_FILE = huggingface_config.CONFIG_FILE
WEIGHTS_FILE = safetensors_folder.WEIGHTS_FILE
describe = huggingface_config.describe
network_config = huggingface_config.network_config

_STACKS = ('encoder', 'decoder')
_PREFIX = 'model.'


def save_policy(
  directory: str | pathlib.Path,
  config: network.NetworkConfig,
  params: types.Params,
) -> None:
  """Writes a folder that `AutoModelForSeq2SeqLM` loads.

  The model gives the same logits there. `tokenizer_files` writes the vocabulary.

  Args:
    directory: is made.
    config: of the network.
    params: of the policy.

  Raises:
    ValueError: no family of Hugging Face has such a network.
  """
  directory = pathlib.Path(directory)
  texts = {
    CONFIG_FILE: describe(config),
    huggingface_config.GENERATION_FILE: huggingface_config.describe_generation(
      config
    ),
  }
  tensors = {
    name: np.ascontiguousarray(tensor)
    for name, tensor in to_tensors(config, params).items()
  }
  with contextlib.ExitStack() as stack:  # They appear once all are written.
    for name, described in texts.items():
      file = stack.enter_context(files.atomic_write(directory / name))
      text = json.dumps(described, indent=2, sort_keys=True) + '\n'
      file.write_text(text, encoding='utf-8')
    file = stack.enter_context(files.atomic_write(directory / WEIGHTS_FILE))
    safetensors.save_file(tensors, file, metadata={'format': 'pt'})


def to_tensors(
  config: network.NetworkConfig, params: types.Params
) -> dict[str, np.ndarray]:
  """Tensors of Hugging Face's names and layouts."""
  params = jax.device_get(params)
  prefix = '' if config.positions.kind == 'relative' else _PREFIX

  def read(path, is_kernel=False):
    array = np.asarray(_get(params, path), np.float32)
    return array.T if is_kernel else array

  tensors = {
    prefix + name: read(path, is_kernel)
    for name, path, is_kernel in tensor_names.layers(config)
  }
  for name, path in _tables(config):
    tensors[prefix + name] = read(path)
  if config.attention.is_merged and config.embeddings.replaced_id is None:
    # Of a token that the vocabulary lacks.
    name = prefix + stored_embeddings.REPLACEMENTS[0]
    tensors[name] = np.zeros(config.emb_dim, np.float32)
  if not config.logits_via_embedding:
    is_first = (
      config.positions.kind == 'rotary' and not config.attention.is_merged
    )
    head = stored_embeddings.HEADS[is_first]
    tensors[head] = read(stored_embeddings.HEAD_PATH, is_kernel=True)
  if config.embeddings.has_logits_bias:
    bias = read(('decoder', 'logits_bias'))
    tensors[stored_embeddings.BIAS] = bias[None]
  return tensors


def _tables(
  config: network.NetworkConfig,
) -> Iterator[tuple[str, tuple[str, ...]]]:
  """The embeddings that the family of a network stores, and the parameters."""
  table = ('token_embedder', 'embedding')
  own = (
    'token_embedder' if config.embeddings.is_shared else 'encoder_embedder',
    'embedding',
  )
  kind = config.positions.kind
  if kind == 'rotary':
    yield stored_embeddings.ENCODER, own
    is_separate = not config.embeddings.is_shared
    if is_separate or not config.logits_via_embedding:
      yield stored_embeddings.DECODER, table
    if config.embeddings.replaced_id is not None:
      yield stored_embeddings.REPLACEMENTS[0], ('token_embedder', 'replacement')
    return
  if config.embeddings.is_shared:
    yield stored_embeddings.SHARED, table
  if kind == 'relative':
    return
  if not config.embeddings.is_shared or not config.logits_via_embedding:
    # Nothing is tied there then.
    yield stored_embeddings.ENCODER, own
    yield stored_embeddings.DECODER, table


def load_policy(
  directory: str | pathlib.Path,
) -> tuple[network.NetworkConfig, types.Params]:
  """Reads a folder of Hugging Face.

  Args:
    directory: with `config.json` and `model.safetensors`, or the shards of a
      large one and their index.

  Returns:
    The network's sizes and float32 parameters, as numpy arrays.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a network that ours does not cover, or a tensor that is missing,
      of another shape, or left over.
  """
  checkpoint = _Checkpoint.of(safetensors_folder.Folder(directory))
  config = checkpoint.config
  params = checkpoint.read(checkpoint.tensors(), np.float32)
  if config.embeddings.has_logits_bias:
    # Transformers does not miss one.
    zeros = np.zeros(config.vocab_size, np.float32)
    params['decoder'].setdefault('logits_bias', zeros)
  return config, params


def check_policy(directory: str | pathlib.Path) -> network.NetworkConfig:
  """As `load_policy`, from `config.json` and headers; returns the sizes.

  Embeddings stored under several names are compared by `load_policy` alone.
  """
  folder = safetensors_folder.Folder(directory)
  return _Checkpoint.of(folder, compares=False).config


def check_scalar_model(
  folder: safetensors_folder.Folder, piece: int
) -> network.NetworkConfig:
  """As `load_scalar_model`, without reading any tensor; returns the sizes."""
  config = _Checkpoint.of(folder, compares=False).config
  ids, expected = config.special_ids, parts.SpecialIds()
  for name in ('pad', 'eos', 'decoder_start', 'forced_first'):
    if getattr(ids, name) != getattr(expected, name):
      raise ValueError(
        f'{name} of {folder.directory} must be {getattr(expected, name)}, as in '
        f'T5, where one logit is a score; got {getattr(ids, name)}.'
      )
  if not 0 <= piece < config.vocab_size:
    raise ValueError(
      f'vocab_size of {folder.directory / CONFIG_FILE} must be more than '
      f'{piece}, the piece whose logit is read; got {config.vocab_size}.'
    )
  return config


def load_scalar_model(
  folder: safetensors_folder.Folder, piece: int, *, dtype: str = 'float32'
) -> types.Params:
  """The parameters of a `ScalarModel` whose scalar is one piece's logit.

  Of the kernel of the logits one column is read, and no other is held.

  Args:
    folder: a T5 or mT5 checkpoint.
    piece: id of the piece.
    dtype: of the parameters; the head is float32 always.

  Returns:
    Parameters as numpy arrays.

  Raises:
    ValueError: a network that ours does not cover; a tensor that is missing, of
      another shape, or left over; or a vocabulary without the piece.
  """
  check_scalar_model(folder, piece)
  checkpoint = _Checkpoint.of(folder)
  body = [
    tensor
    for tensor in checkpoint.tensors()
    if tensor.path != stored_embeddings.HEAD_PATH
  ]
  params = checkpoint.read(body, jnp.dtype(dtype))
  embeddings = checkpoint.embeddings
  head = checkpoint.names[embeddings.head or embeddings.decoder]
  row = np.asarray(folder.row(head, piece), np.float32)
  kernel = row[:, None] * np.float32(embeddings.head_scale)
  _set(params, ('decoder', 'value_dense', 'kernel'), kernel)
  return params


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
  """Which tensors of a folder are read, and as what.

  Attributes:
    names: its tensors.
    config: of the network.
    embeddings: which tensors tokens and logits are made by.
  """

  names: stored_embeddings.Names
  config: network.NetworkConfig
  embeddings: stored_embeddings.Embeddings

  @classmethod
  def of(
    cls, folder: safetensors_folder.Folder, *, compares: bool = True
  ) -> '_Checkpoint':
    """Checks names, types and shapes of the tensors.

    Args:
      folder: the checkpoint.
      compares: whether tensors that should be equal are compared, which reads
        them.
    """
    config = network_config(folder.config)
    names = stored_embeddings.Names(folder)
    embeddings = stored_embeddings.Embeddings.of(
      names, config, compares=compares
    )
    config = _stored_positions(names, embeddings.config(config))
    checkpoint = cls(names, config, embeddings)
    checkpoint._check()
    return checkpoint

  def tensors(self) -> list[tensor_names.Tensor]:
    """All tensors that are read."""
    return [
      *self.embeddings.tensors(self.names, self.config),
      *tensor_names.layers(self.config),
    ]

  def _check(self) -> None:
    """Raises ValueError unless the network's tensors alone are there."""
    names, tensors = self.names, self.tensors()
    folder, expected = names.folder, {tensor.name for tensor in tensors}
    missing = sorted(expected - set(names))
    if missing:
      raise ValueError(
        f'{folder.directory} must have the tensor {missing[0]} ({len(missing)} '
        f'such are missing).{stored_embeddings.hint(names, missing)}'
      )
    unused = {
      *stored_embeddings.TABLES,
      *stored_embeddings.HEADS,
      *stored_embeddings.REPLACEMENTS,
      *(f'{stack}.embed_positions.weight' for stack in _STACKS),
    }
    left = sorted(names[name] for name in set(names) - expected - unused)
    if left:
      raise ValueError(
        f'{folder.directory} has tensors that the network lacks: '
        f'{", ".join(left[:5])} ({len(left)} in all). A policy is an '
        'encoder-decoder that generates, without additions.'
      )
    folder.check_dtypes({names[name] for name in expected})
    shapes = jax.eval_shape(policy.Policy(self.config).init, jax.random.key(0))
    for tensor in tensors:
      wanted = _get(shapes, tensor.path).shape
      wanted = wanted[::-1] if tensor.is_kernel else wanted
      found = names.shape(tensor.name)
      found = found[-1:] if tensor.name == stored_embeddings.BIAS else found
      if found != wanted:
        raise ValueError(
          f'{names[tensor.name]} must have the shape {wanted}; got {found}.'
        )

  def read(
    self, tensors: list[tensor_names.Tensor], dtype: Any
  ) -> dict[str, Any]:
    """Reads tensors as parameters, one after the other."""
    params: dict[str, Any] = {}
    for name, path, is_kernel in tensors:
      array = np.asarray(self.names.read(name), dtype)
      array = array.T if is_kernel else array
      if path == stored_embeddings.HEAD_PATH:
        array = array * np.float32(self.embeddings.head_scale)
      elif name == stored_embeddings.BIAS:
        array = array.reshape(-1)
      _set(params, path, np.ascontiguousarray(array))
    return params


def _stored_positions(
  names: stored_embeddings.Names, config: network.NetworkConfig
) -> network.NetworkConfig:
  """The network with learned positions where a folder's are no sinusoids."""
  if config.positions.kind != 'sinusoidal':
    return config
  for stack in _STACKS:
    name = f'{stack}.embed_positions.weight'
    if name not in names:
      continue
    stored = np.asarray(names.read(name), np.float32)
    own = positions.sinusoids(
      config.positions.first,
      len(stored),
      config.emb_dim,
      config.positions.is_inclusive,
    )
    if stored.shape != own.shape or np.abs(stored - own).max() > 1e-5:
      learned = parts.PositionConfig(kind='learned', max_length=len(stored))
      return dataclasses.replace(config, positions=learned)
  return config


def _get(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
  for name in path:
    tree = tree[name]
  return tree


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = value
