"""T5 checkpoints of Hugging Face: tensors, and how they make a network.

Only these are read, never a pickle. Kernels of Hugging Face are
[output, input], ours are T5X's [input, output]; its relative position bias is
[buckets, heads] and stands in the first layer of a stack, ours is
[heads, buckets] and belongs to the stack; in umT5 each layer has one, with both.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from rest_jax import types
from rest_jax.interop import (
  family_tensors,
  huggingface_config,
  safetensors_folder,
)
from rest_jax.models import network, policy, scalar
from rest_jax.storage import files

CONFIG_FILE = huggingface_config.CONFIG_FILE
WEIGHTS_FILE = safetensors_folder.WEIGHTS_FILE
describe = huggingface_config.describe
network_config = huggingface_config.network_config

# A checkpoint has its embeddings under one of these names or several.
_EMBEDDINGS = (
  'shared.weight',
  'decoder.embed_tokens.weight',
  'encoder.embed_tokens.weight',
)
_HEAD = 'lm_head.weight'
# In files of the first T5, and used by no loader.
_UNUSED = (
  'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
)
# What wrappers put before the names of tensors.
_PREFIXES = ('module.', '_orig_mod.', 'model.', 'transformer.')
_PROJECTIONS = {'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'}
# T5X's names of a layer's blocks, and where Hugging Face has them.
_ENCODER_BLOCKS = (('pre_attention_layer_norm', 'attention', 'SelfAttention'),)
_DECODER_BLOCKS = (
  ('pre_self_attention_layer_norm', 'self_attention', 'SelfAttention'),
  (
    'pre_cross_attention_layer_norm',
    'encoder_decoder_attention',
    'EncDecAttention',
  ),
)


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
    ValueError: Hugging Face's T5 cannot express the network.
  """
  directory = pathlib.Path(directory)
  described = describe(config)
  tensors = {
    name: np.ascontiguousarray(tensor)
    for name, tensor in to_tensors(config, params).items()
  }
  text = json.dumps(described, indent=2, sort_keys=True) + '\n'
  # Both appear once both are written.
  with (
    files.atomic_write(directory / CONFIG_FILE) as config_file,
    files.atomic_write(directory / WEIGHTS_FILE) as weights_file,
  ):
    config_file.write_text(text, encoding='utf-8')
    safetensors.save_file(tensors, weights_file, metadata={'format': 'pt'})


def load_policy(
  directory: str | pathlib.Path, *, any_ids: bool = False
) -> tuple[network.NetworkConfig, types.Params]:
  """Reads a folder of Hugging Face.

  Args:
    directory: with `config.json` and `model.safetensors`, or the shards of a
      large one and their index.
    any_ids: whether special ids may be others than those of T5, and the family
      another.

  Returns:
    The network's sizes and float32 parameters, as numpy arrays.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a network that ours does not cover, or a tensor that is missing,
      of another shape, or left over.
  """
  folder = safetensors_folder.Folder(directory)
  if not any_ids:
    _check_ids(folder)
  if huggingface_config.is_other_family(folder.config):
    return family_tensors.load(folder)
  checkpoint = _Checkpoint.of(folder)
  config = checkpoint.config
  shapes = jax.eval_shape(policy.Policy(config).init, jax.random.key(0))
  params = _read(checkpoint.body(), folder, shapes, np.float32)
  if not config.logits_via_embedding:
    path = ('decoder', 'logits_dense', 'kernel')
    names = [(checkpoint.head, path, True)]
    head = _read(names, folder, shapes, np.float32)
    kernel = _get(head, path) * np.float32(checkpoint.head_scale)
    _set(params, path, kernel)
  return config, params


def check_policy(directory: str | pathlib.Path) -> network.NetworkConfig:
  """As `load_policy`, from `config.json` and headers; returns the sizes.

  Embeddings stored under several names are compared by `load_policy` alone.
  """
  folder = safetensors_folder.Folder(directory)
  _check_ids(folder)
  return _Checkpoint.of(folder, compares=False).config


def _check_ids(folder: safetensors_folder.Folder) -> None:
  """Raises ValueError for families and special ids that runs cannot have yet."""
  if huggingface_config.is_other_family(folder.config):
    raise ValueError(
      f'model_type of {CONFIG_FILE} must be one of {huggingface_config.T5S} (T5, '
      f'mT5, umT5) for a run; got {folder.config["model_type"]!r}, whose numbers '
      f'can be compared so far: --check={folder.directory}.'
    )
  for described, file in (
    (folder.config, CONFIG_FILE),
    (
      safetensors_folder.read_generation_config(folder.directory),
      huggingface_config.GENERATION_FILE,
    ),
  ):
    huggingface_config.check_special_ids(described, file)


def check_scalar_model(
  folder: safetensors_folder.Folder, piece: int
) -> network.NetworkConfig:
  """As `load_scalar_model`, without reading any tensor; returns the sizes."""
  _check_ids(folder)
  checkpoint = _Checkpoint.of(folder, compares=False)
  config = checkpoint.config
  model = scalar.ScalarModel(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  for name, path, transposed in checkpoint.body():
    _check_shape(name, folder.shapes[name], _get(shapes, path), transposed)
  wanted = (config.vocab_size, config.emb_dim)
  head = checkpoint.head
  if folder.shapes[head] != wanted:
    raise ValueError(
      f'{head} must have the shape {wanted}; got {folder.shapes[head]}.'
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
  model = scalar.ScalarModel(checkpoint.config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = _read(checkpoint.body(), folder, shapes, jnp.dtype(dtype))
  row = np.asarray(folder.row(checkpoint.head, piece), np.float32)
  kernel = row[:, None] * np.float32(checkpoint.head_scale)
  _set(params, ('decoder', 'value_dense', 'kernel'), kernel)
  return params


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
  """Which tensors of a folder are read, and as what.

  Attributes:
    folder: its tensors.
    config: sizes of the network.
    embedding: name of the tensor that holds the embeddings.
    head: name of the tensor whose rows give the logits.
    head_scale: what these are multiplied by.
  """

  folder: safetensors_folder.Folder
  config: network.NetworkConfig
  embedding: str
  head: str
  head_scale: float

  @classmethod
  def of(
    cls, folder: safetensors_folder.Folder, *, compares: bool = True
  ) -> '_Checkpoint':
    """Checks all that can be known without computing.

    Args:
      folder: the checkpoint.
      compares: whether tensors that should be equal are compared, which reads
        them.
    """
    config = network_config(folder.config)
    embedding = _embedding(folder, compares)
    head, scale = _head(folder, embedding, compares)
    is_tied = head == embedding and scale != 1
    config = dataclasses.replace(config, logits_via_embedding=is_tied)
    checkpoint = cls(folder, config, embedding, head, scale)
    expected = {name for name, _, _ in checkpoint.body()} | {head}
    _check_names(folder, expected)
    folder.check_dtypes(expected)
    return checkpoint

  def body(self) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """As `_body`, by the names of this checkpoint."""
    for name, path, transposed in _body(self.config):
      own = self.embedding if name == _EMBEDDINGS[0] else name
      yield own, path, transposed


def to_tensors(
  config: network.NetworkConfig, params: types.Params
) -> dict[str, np.ndarray]:
  """Tensors of Hugging Face's names and layouts."""
  params = jax.device_get(params)
  return {
    name: np.asarray(_get(params, path), np.float32).T
    if transposed
    else np.asarray(_get(params, path), np.float32)
    for name, path, transposed in _names(config)
  }


def _read(names, tensors, shapes, dtype) -> types.Params:
  """Tensors of Hugging Face as parameters, one after the other."""
  params: dict[str, Any] = {}
  for name, path, transposed in names:
    tensor = tensors[name]
    _check_shape(name, tensor.shape, _get(shapes, path), transposed)
    tensor = np.asarray(tensor, dtype)
    _set(params, path, np.ascontiguousarray(tensor.T if transposed else tensor))
  return params


def _embedding(folder: safetensors_folder.Folder, compares: bool) -> str:
  """Returns the name of the embeddings, which a folder may have thrice."""
  found = [name for name in _EMBEDDINGS if name in folder]
  if not found:
    other = f' {_HEAD} makes logits and is not one.' if _HEAD in folder else ''
    raise ValueError(
      f'{folder.directory} must have the embeddings as one of the tensors '
      f'{", ".join(_EMBEDDINGS)}; it has none.{other}{_hint(folder, found)}'
    )
  for other in found[1:] if compares else ():
    if not folder.is_same(found[0], other):
      raise ValueError(
        f'{found[0]} and {other} of {folder.directory} must be equal, as encoder '
        'and decoder share their embeddings here; they differ.'
      )
  return found[0]


def _head(
  folder: safetensors_folder.Folder, embedding: str, compares: bool
) -> tuple[str, float]:
  """The tensor whose rows give the logits, and what these are multiplied by."""
  logits = huggingface_config.Logits.of(folder.config)
  scale = (
    network_config(folder.config).emb_dim ** -0.5 if logits.is_scaled else 1.0
  )
  if not logits.is_tied:
    return _HEAD, scale
  if _HEAD not in folder:
    return embedding, scale
  if logits.version == 5 and not logits.is_scaled:
    # The usual form of those with logits of their own.
    is_same = compares and folder.is_same(_HEAD, embedding)
    return (embedding if is_same else _HEAD), scale
  if not compares or folder.is_same(_HEAD, embedding):
    return embedding, scale
  where = f'tie_word_embeddings of {folder.directory / CONFIG_FILE}'
  if logits.version is None:
    raise ValueError(
      f'{where} must be false, as {_HEAD} and {embedding} differ; it is true, '
      f'and transformers 4 would then ignore {_HEAD}, 5 use it. Set it to false '
      'if logits are to be made by it, or say by "transformers_version" what '
      'wrote the folder.'
    )
  used = _HEAD if logits.version == 5 else embedding
  logging.warning(
    '%s is true, but %s and %s differ: logits are made by %s%s, as in '
    'transformers %d, which wrote it',
    where,
    _HEAD,
    embedding,
    used,
    ' / sqrt(d_model)' if logits.is_scaled else '',
    logits.version,
  )
  return used, scale


def _check_names(folder: safetensors_folder.Folder, expected: set[str]) -> None:
  """Raises ValueError unless a checkpoint has the network's tensors alone."""
  missing = sorted(expected - set(folder))
  if missing:
    raise ValueError(
      f'{folder.directory} must have the tensor {missing[0]} ({len(missing)} '
      f'such are missing).{_hint(folder, missing)}'
    )
  unread = set(folder) - {*_EMBEDDINGS, *_UNUSED, _HEAD} - expected
  if unread:
    raise ValueError(
      f'{folder.directory} has tensors that the network lacks: '
      f'{", ".join(sorted(unread)[:5])} ({len(unread)} in all). A policy is a '
      'T5ForConditionalGeneration without additions.'
    )


def _hint(folder: safetensors_folder.Folder, missing: Sequence[str]) -> str:
  """What a checkpoint may be whose tensors are missing."""
  if not any('decoder' in name for name in folder):
    return (
      ' It has an encoder alone, which is no policy: use an encoder-decoder.'
    )
  for prefix in _PREFIXES:
    if any(name.startswith(prefix) for name in folder):
      return (
        f' Its names begin with {prefix!r}: it was saved from a wrapper or as '
        'another class. Save the T5ForConditionalGeneration itself.'
      )
  said = folder.config.get('architectures')
  if missing == [_HEAD]:
    return (
      ' tie_word_embeddings is false, so logits have their own matrix; save the '
      f'model with its head (architectures: {said}).'
    )
  return (
    f' Look at the sizes in {CONFIG_FILE} (architectures: {said}), or fetch the '
    'checkpoint again.'
  )


def _check_shape(name, shape, ours, transposed) -> None:
  wanted = ours.shape[::-1] if transposed else ours.shape
  if tuple(shape) != wanted:
    raise ValueError(
      f'{name} must have the shape {wanted}; got {tuple(shape)}.'
    )


def _names(
  config: network.NetworkConfig,
) -> Iterator[tuple[str, tuple[str, ...], bool]]:
  """Yields Hugging Face's name, our path, and whether it is transposed."""
  yield from _body(config)
  if not config.logits_via_embedding:
    yield 'lm_head.weight', ('decoder', 'logits_dense', 'kernel'), True


def _body(
  config: network.NetworkConfig,
) -> Iterator[tuple[str, tuple[str, ...], bool]]:
  """As `_names`, without a head."""
  yield 'shared.weight', ('token_embedder', 'embedding'), False
  yield from _stack('encoder', config.num_encoder_layers, config)
  yield from _stack('decoder', config.num_decoder_layers, config)


def _stack(stack, num_layers, config):
  blocks = _ENCODER_BLOCKS if stack == 'encoder' else _DECODER_BLOCKS
  for layer in range(num_layers if config.relative_bias_per_layer else 1):
    owner = (f'layers_{layer}',) if config.relative_bias_per_layer else ()
    yield (
      f'{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias'
      '.weight',
      (stack, *owner, 'relpos_bias', 'rel_embedding'),
      True,
    )
  yield (
    f'{stack}.final_layer_norm.weight',
    (stack, f'{stack}_norm', 'scale'),
    False,
  )
  for layer in range(num_layers):
    ours, theirs = (stack, f'layers_{layer}'), f'{stack}.block.{layer}.layer'
    for number, (norm, attention, name) in enumerate(blocks):
      yield (
        f'{theirs}.{number}.layer_norm.weight',
        (*ours, norm, 'scale'),
        False,
      )
      for projection, letter in _PROJECTIONS.items():
        yield (
          f'{theirs}.{number}.{name}.{letter}.weight',
          (*ours, attention, projection, 'kernel'),
          True,
        )
    theirs = f'{theirs}.{len(blocks)}'
    yield (
      f'{theirs}.layer_norm.weight',
      (*ours, 'pre_mlp_layer_norm', 'scale'),
      False,
    )
    branches = ['wi']
    if len(config.mlp_activations) > 1:
      branches = [f'wi_{i}' for i in range(len(config.mlp_activations))]
    for name in (*branches, 'wo'):
      yield (
        f'{theirs}.DenseReluDense.{name}.weight',
        (*ours, 'mlp', name, 'kernel'),
        True,
      )


def _get(tree: Any, path: tuple[str, ...]) -> Any:
  for name in path:
    tree = tree[name]
  return tree


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = value
