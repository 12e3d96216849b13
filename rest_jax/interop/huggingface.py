"""T5 checkpoints of Hugging Face: `config.json` and safetensors.

Only these are read, never a pickle. Kernels of Hugging Face are
[output, input], ours are T5X's [input, output]; its relative position bias is
[buckets, heads] and stands in the first layer of a stack, ours is
[heads, buckets] and belongs to the stack; in umT5 each layer has one, with both.
"""

from collections.abc import Iterator, Mapping
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from rest_jax import types
from rest_jax.interop import safetensors_folder
from rest_jax.models import network, policy, scalar

CONFIG_FILE = safetensors_folder.CONFIG_FILE
WEIGHTS_FILE = safetensors_folder.WEIGHTS_FILE

# Activations of the feed-forward block, by Hugging Face's names.
_FEED_FORWARD = {
  'gated-gelu': ('gelu', 'linear'),
  'gated-silu': ('silu', 'linear'),
  'relu': ('relu',),
}
_NORM_EPSILON = 1e-6
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
  directory.mkdir(parents=True, exist_ok=True)
  safetensors.save_file(
    tensors, directory / WEIGHTS_FILE, metadata={'format': 'pt'}
  )
  (directory / CONFIG_FILE).write_text(
    json.dumps(described, indent=2, sort_keys=True) + '\n', encoding='utf-8'
  )


def load_policy(
  directory: str | pathlib.Path,
) -> tuple[network.NetworkConfig, types.Params]:
  """Reads a T5 folder of Hugging Face.

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
  folder = safetensors_folder.Folder(directory)
  config = network_config(folder.config)
  shapes = jax.eval_shape(policy.Policy(config).init, jax.random.key(0))
  _check_names(config, folder)
  names = list(_body(config))
  if not config.logits_via_embedding:
    path = ('decoder', 'logits_dense', 'kernel')
    names.append((_head(config, folder), path, True))
  elif config.relative_bias_per_layer:
    _check_tied(folder)
  return config, _read(names, folder, shapes, np.float32)


def check_scalar_model(
  folder: safetensors_folder.Folder, piece: int
) -> network.NetworkConfig:
  """As `load_scalar_model`, without reading any tensor; returns the sizes."""
  config = network_config(folder.config)
  _check_names(config, folder)
  model = scalar.ScalarModel(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  for name, path, transposed in _body(config):
    _check_shape(name, folder.shapes[name], _get(shapes, path), transposed)
  wanted = (config.vocab_size, config.emb_dim)
  head = _head(config, folder)
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
  config = check_scalar_model(folder, piece)
  model = scalar.ScalarModel(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = _read(_body(config), folder, shapes, jnp.dtype(dtype))
  kernel = np.asarray(folder.row(_head(config, folder), piece), np.float32)[
    :, None
  ]
  if config.logits_via_embedding:
    # Tied logits are inner products over sqrt(D).
    kernel = kernel / np.float32(np.sqrt(config.emb_dim))
  _set(params, ('decoder', 'value_dense', 'kernel'), kernel)
  return params


def describe(config: network.NetworkConfig) -> dict[str, Any]:
  """The `config.json` of a network.

  Raises:
    ValueError: Hugging Face's T5 has no such feed-forward block or logits.
  """
  names = {value: key for key, value in _FEED_FORWARD.items()}
  activations = tuple(config.mlp_activations)
  if activations not in names:
    raise ValueError(
      f'mlp_activations must be one of {sorted(names)} for Hugging Face; got '
      f'{activations}.'
    )
  if config.relative_bias_per_layer and not config.logits_via_embedding:
    raise ValueError(
      'logits_via_embedding must be True where relative_bias_per_layer is: '
      'transformers 5 scales the logits of every umT5 as tied ones.'
    )
  family = 'umt5' if config.relative_bias_per_layer else 't5'
  return {
    'architectures': [f'{family.upper()}ForConditionalGeneration'],
    'model_type': family,
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_heads': config.num_heads,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'feed_forward_proj': names[activations],
    'tie_word_embeddings': config.logits_via_embedding,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'dropout_rate': config.dropout_rate,
    'layer_norm_epsilon': _NORM_EPSILON,
    'decoder_start_token_id': types.DECODER_START_ID,
    'pad_token_id': types.PAD_ID,
    'eos_token_id': types.EOS_ID,
    'is_encoder_decoder': True,
    'use_cache': True,
  }


def network_config(described: Mapping[str, Any]) -> network.NetworkConfig:
  """The sizes that a `config.json` describes.

  Raises:
    ValueError: another architecture, or a setting that ours lacks.
  """
  expected = {
    'model_type': ('t5', 'mt5', 'umt5'),
    'feed_forward_proj': tuple(_FEED_FORWARD),
    'layer_norm_epsilon': (_NORM_EPSILON,),
    'decoder_start_token_id': (types.DECODER_START_ID, None),
  }
  for name, allowed in expected.items():
    if described.get(name, allowed[-1]) not in allowed:
      raise ValueError(
        f'{name} must be one of {allowed}; got {described[name]!r}.'
      )
  layers = described['num_layers']
  return network.NetworkConfig(
    vocab_size=described['vocab_size'],
    emb_dim=described['d_model'],
    head_dim=described['d_kv'],
    mlp_dim=described['d_ff'],
    num_heads=described['num_heads'],
    num_encoder_layers=layers,
    num_decoder_layers=described.get('num_decoder_layers') or layers,
    # T5 of 2019 said nothing and meant relu.
    mlp_activations=_FEED_FORWARD[described.get('feed_forward_proj', 'relu')],
    logits_via_embedding=_is_scaled(described),
    relative_attention_num_buckets=described['relative_attention_num_buckets'],
    relative_attention_max_distance=described.get(
      'relative_attention_max_distance', 128
    ),
    dropout_rate=described.get('dropout_rate', 0.1),
    relative_bias_per_layer=described.get('model_type') == 'umt5',
  )


def _is_scaled(described: Mapping[str, Any]) -> bool:
  """Whether logits are products with the embeddings over sqrt(D).

  Up to version 4 of transformers a T5 with tied embeddings is. Version 5 writes
  that all are tied, and says apart from it whether they are scaled: mT5 never.
  """
  tied = described.get('tie_word_embeddings', True)
  return described.get(
    'scale_decoder_outputs', tied and described.get('model_type') != 'mt5'
  )


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


def _check_names(
  config: network.NetworkConfig, folder: safetensors_folder.Folder
) -> None:
  """Raises ValueError unless a checkpoint has the network's tensors alone."""
  expected = {name for name, _, _ in _body(config)} | {_head(config, folder)}
  missing = sorted(expected - set(folder))
  if missing:
    raise ValueError(
      f'the checkpoint must have the tensor {missing[0]} ({len(missing)} such '
      'are missing). Fetch it again, or look at the sizes in its config.json.'
    )
  # The embeddings are stored under up to four names.
  copies = {'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'}
  if config.logits_via_embedding:
    copies.add('lm_head.weight')
  unread = set(folder) - copies - expected
  if unread:
    raise ValueError(
      f'the checkpoint has tensors that the network lacks: {sorted(unread)}'
    )


def _check_tied(folder: safetensors_folder.Folder) -> None:
  """Raises ValueError if an umT5 has logits of its own after all.

  Version 5 of transformers writes that every umT5 is tied.
  """
  if 'lm_head.weight' not in folder:
    return
  if not np.array_equal(folder['lm_head.weight'], folder['shared.weight']):
    raise ValueError(
      f'tie_word_embeddings of {folder.directory / CONFIG_FILE} must be false, '
      'as lm_head.weight and shared.weight differ; got true. That of the umT5 '
      'of Google is false.'
    )


def _check_shape(name, shape, ours, transposed) -> None:
  wanted = ours.shape[::-1] if transposed else ours.shape
  if tuple(shape) != wanted:
    raise ValueError(
      f'{name} must have the shape {wanted}; got {tuple(shape)}.'
    )


def _head(
  config: network.NetworkConfig, folder: safetensors_folder.Folder
) -> str:
  """The tensor whose rows give the logits."""
  tied = config.logits_via_embedding or (
    folder.config.get('tie_word_embeddings', True)
    and 'lm_head.weight' not in folder
  )
  return 'shared.weight' if tied else 'lm_head.weight'


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
