"""Tensors of encoder-decoders other than T5: their names, and how they are read."""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from rest_jax import types
from rest_jax.interop import families, safetensors_folder
from rest_jax.models import network_config, parts, policy, positions

# What is before names of a base model or of the text within a larger one.
_DROPPED = (r'^model\.', r'(?<=^encoder\.)text_model\.')
# What is no part of the text network, or is computed.
_UNREAD = (
  r'encoder\.vision_tower\.',
  r'encoder\.multi_modal_projector\.',
  r'(encoder|decoder)\.version$',
  r'.*\.rotary_emb\.inv_freq$',
  r'(encoder|decoder)\.embed_positions\.weights$',
)
_ENCODER, _DECODER, _SHARED = (
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
  'shared.weight',
)
_TABLES = (_ENCODER, _DECODER, _SHARED)
_HEADS = ('lm_head.weight', 'lm_head.out_proj.weight')
_BIAS = 'final_logits_bias'
_REPLACEMENTS = (
  'encoder.embed_tokens.eoi_embedding',
  'decoder.embed_tokens.eoi_embedding',
)


class Tensor(NamedTuple):
  """Where one parameter comes from.

  Attributes:
    name: of the tensor, without prefixes.
    path: of the parameter.
    is_kernel: whether it is [output, input] there, and here the other way.
    factor: what it is multiplied by.
    offset: what is added before.
  """

  name: str
  path: tuple[str, ...]
  is_kernel: bool = False
  factor: float = 1.0
  offset: float = 0.0

  def read(self, tensor: np.ndarray) -> np.ndarray:
    """The parameter, float32."""
    tensor = np.asarray(tensor, np.float32)
    if self.offset:
      tensor = tensor + np.float32(self.offset)
    if self.factor != 1:
      tensor = tensor * np.float32(self.factor)
    return np.ascontiguousarray(tensor.T if self.is_kernel else tensor)


class Names(Mapping[str, str]):
  """The tensors of a folder by their names without prefixes."""

  def __init__(self, folder: safetensors_folder.Folder):
    self.folder = folder
    self._own = {}
    for name in folder:
      short = name
      for pattern in _DROPPED:
        short = re.sub(pattern, '', short)
      if not any(re.match(pattern, short) for pattern in _UNREAD):
        self._own[short] = name

  def __getitem__(self, name: str) -> str:
    return self._own[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._own)

  def __len__(self) -> int:
    return len(self._own)

  def first(self, *names: str) -> str | None:
    """The first of some names that is there."""
    return next((name for name in names if name in self), None)

  def is_same(self, name: str, other: str) -> bool:
    if name == other:
      return True
    return self.folder.is_same(self[name], self[other])

  def read(self, name: str) -> np.ndarray:
    return self.folder[self[name]]

  def shape(self, name: str) -> tuple[int, ...]:
    return self.folder.shapes[self[name]]


def load(
  folder: safetensors_folder.Folder,
) -> tuple[network_config.NetworkConfig, types.Params]:
  """Reads a checkpoint of one of `families.FAMILIES`.

  Returns:
    The network and float32 parameters, as numpy arrays.

  Raises:
    ValueError: a value of `config.json` that no part covers; a tensor that is
      missing, of another shape, or left over.
  """
  described = families.network_config(folder.config)
  names = Names(folder)
  embeddings = _Embeddings.of(names, described)
  config = _stored_positions(names, embeddings.config(described))
  wanted = [*embeddings.tensors(names, config), *_layers(config, folder.config)]
  _check_names(names, wanted)
  folder.check_dtypes({names[tensor.name] for tensor in wanted})
  shapes = jax.eval_shape(policy.Policy(config).init, jax.random.key(0))
  params: dict[str, Any] = {}
  for tensor in wanted:
    own = shapes
    for key in tensor.path:
      own = own[key]
    found = names.shape(tensor.name)
    if tensor.name == _BIAS:
      found = found[-1:]
    expected = own.shape[::-1] if tensor.is_kernel else own.shape
    if found != expected:
      raise ValueError(
        f'{names[tensor.name]} must have the shape {expected}; got {found}.'
      )
  for tensor in wanted:
    node = params
    for key in tensor.path[:-1]:
      node = node.setdefault(key, {})
    array = tensor.read(names.read(tensor.name))
    node[tensor.path[-1]] = array.reshape(-1) if tensor.name == _BIAS else array
  if config.embeddings.has_logits_bias:
    # Transformers does not miss one.
    zeros = np.zeros(config.vocab_size, np.float32)
    params['decoder'].setdefault('logits_bias', zeros)
  return config, params


@dataclasses.dataclass(frozen=True)
class _Embeddings:
  """Which tensors a folder has its tokens and logits by.

  Attributes:
    encoder: what the encoder reads tokens by.
    decoder: likewise.
    head: what makes logits; None if the decoder's embeddings do.
    is_shared: whether encoder and decoder have the same embeddings.
  """

  encoder: str
  decoder: str
  head: str | None
  is_shared: bool

  @classmethod
  def of(
    cls, names: Names, config: network_config.NetworkConfig
  ) -> '_Embeddings':
    head = names.first(*_HEADS)
    is_shared = config.embeddings.is_shared
    is_tied = names.folder.config.get('tie_word_embeddings')
    is_tied = True if is_tied is None else is_tied
    if not is_tied and head is None:
      raise ValueError(
        f'{names.folder.directory} must have the tensor {_HEADS[0]}, as '
        'tie_word_embeddings is false; save the model with its head.'
      )
    heads = (head,) if head is not None and is_tied else ()
    others = (_SHARED, _DECODER, _ENCODER, *heads) if is_shared else ()
    encoder = names.first(_ENCODER, *others)
    decoder = names.first(_DECODER, *(others or heads))
    if encoder is None or decoder is None:
      raise ValueError(
        f'{names.folder.directory} must have the embeddings as the tensors '
        f'{", ".join(_TABLES)}, or one for all where they are shared; it has '
        f'{", ".join(n for n in _TABLES if n in names) or "none"}.'
      )
    if is_tied:
      # Tied to what all share, whatever the decoder reads tokens by.
      shared = names.first(_SHARED, decoder) if is_shared else decoder
      head = head or shared
      assert head is not None
      if names.is_same(head, decoder):
        head = None
    is_shared = is_shared and names.is_same(encoder, decoder)
    return cls(encoder, decoder, head, is_shared)

  def config(
    self, described: network_config.NetworkConfig
  ) -> network_config.NetworkConfig:
    """The network with the embeddings that are there."""
    return dataclasses.replace(
      described,
      logits_via_embedding=self.head is None,
      embeddings=dataclasses.replace(
        described.embeddings, is_shared=self.is_shared
      ),
    )

  def tensors(
    self, names: Names, config: network_config.NetworkConfig
  ) -> Iterator[Tensor]:
    yield Tensor(self.decoder, ('token_embedder', 'embedding'))
    if not config.embeddings.is_shared:
      yield Tensor(self.encoder, ('encoder_embedder', 'embedding'))
    if self.head is not None:
      path = ('decoder', 'logits_dense', 'kernel')
      yield Tensor(self.head, path, is_kernel=True)
    if config.embeddings.has_logits_bias and _BIAS in names:
      yield Tensor(_BIAS, ('decoder', 'logits_bias'))
    if config.embeddings.replaced_id is not None:
      name = names.first(*_REPLACEMENTS) or _REPLACEMENTS[0]
      yield Tensor(name, ('token_embedder', 'replacement'))


def _check_names(names: Names, wanted: list[Tensor]) -> None:
  expected = {tensor.name for tensor in wanted}
  missing = sorted(expected - set(names))
  if missing:
    raise ValueError(
      f'{names.folder.directory} must have the tensor {missing[0]} '
      f'({len(missing)} such are missing). Look at the sizes in '
      f'{safetensors_folder.CONFIG_FILE}, or fetch the checkpoint again.'
    )
  unused = {*_TABLES, *_HEADS, *_REPLACEMENTS}
  unused |= {f'{stack}.embed_positions.weight' for stack in _STACKS}
  left = sorted(names[name] for name in set(names) - expected - unused)
  if left:
    raise ValueError(
      f'{names.folder.directory} has tensors that the network lacks: '
      f'{", ".join(left[:5])} ({len(left)} in all).'
    )


_STACKS = ('encoder', 'decoder')


def _stored_positions(
  names: Names, config: network_config.NetworkConfig
) -> network_config.NetworkConfig:
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


def _layers(
  config: network_config.NetworkConfig, described: Mapping[str, Any]
) -> Iterator[Tensor]:
  """All tensors but those of `_Embeddings`."""
  is_gemma = 'gemma' in described['model_type']
  for name in _STACKS:
    stack = config.encoder_stack if name == 'encoder' else config.decoder_stack
    make = _GemmaStack if is_gemma else _BartStack
    yield from make(name, stack, described).tensors()


@dataclasses.dataclass(frozen=True)
class _BartStack:
  """Tensors of an encoder or decoder of BART's kind.

  Attributes:
    name: 'encoder' or 'decoder'.
    stack: its parts.
    described: `config.json`.
  """

  name: str
  stack: network_config.Stack
  described: Mapping[str, Any]

  def tensors(self) -> Iterator[Tensor]:
    stack = self.stack
    if stack.positions.kind == 'learned':
      yield Tensor(
        f'{self.name}.embed_positions.weight',
        (self.name, 'position_embedder', 'embedding'),
      )
    if stack.norm.after_embeddings:
      yield from self._norm('layernorm_embedding', 'embeddings_norm')
    if stack.norm.at_end:
      yield from self._norm('layer_norm', f'{self.name}_norm')
    for layer in range(stack.num_layers):
      yield from self._layer(layer)

  def _norm(self, name: str, *path: str) -> Iterator[Tensor]:
    for theirs, ours in (('weight', 'scale'), ('bias', 'bias')):
      yield Tensor(f'{self.name}.{name}.{theirs}', (self.name, *path, ours))

  def _layer(self, layer: int) -> Iterator[Tensor]:
    theirs, ours = f'layers.{layer}', f'layers_{layer}'
    place = self.stack.norm.placement
    blocks = [('self_attn', 'attention', 'attention')]
    if self.name == 'decoder':
      blocks = [
        ('self_attn', 'self_attention', 'self_attention'),
        ('encoder_attn', 'encoder_decoder_attention', 'cross_attention'),
      ]
    for name, path, norm in blocks:
      yield from self._norm(
        f'{theirs}.{name}_layer_norm', ours, f'{place}_{norm}_layer_norm'
      )
      factor = self.stack.head_dim**-0.5
      for letter, projection in _PROJECTIONS.items():
        yield from self._dense(
          f'{theirs}.{name}.{letter}_proj',
          (ours, path, projection),
          factor if letter == 'q' else 1.0,
        )
    yield from self._norm(
      f'{theirs}.final_layer_norm', ours, f'{place}_mlp_layer_norm'
    )
    for name, projection in (('fc1', 'wi'), ('fc2', 'wo')):
      yield from self._dense(f'{theirs}.{name}', (ours, 'mlp', projection))

  def _dense(
    self, name: str, path: tuple[str, ...], factor: float = 1.0
  ) -> Iterator[Tensor]:
    path = (self.name, *path)
    name = f'{self.name}.{name}'
    yield Tensor(f'{name}.weight', (*path, 'kernel'), True, factor)
    yield Tensor(f'{name}.bias', (*path, 'bias'), factor=factor)


_PROJECTIONS = {'q': 'query', 'k': 'key', 'v': 'value', 'out': 'out'}


class _GemmaStack(_BartStack):
  """Tensors of an encoder or decoder of T5Gemma or T5Gemma 2."""

  def tensors(self) -> Iterator[Tensor]:
    yield from self._norm('norm', f'{self.name}_norm')
    for layer in range(self.stack.num_layers):
      yield from self._layer(layer)

  def _norm(
    self, name: str, *path: str, factor: float = 1.0
  ) -> Iterator[Tensor]:
    # The scale is 1 more than the weight.
    yield Tensor(
      f'{self.name}.{name}.weight',
      (self.name, *path, 'scale'),
      factor=factor,
      offset=1.0,
    )

  def _layer(self, layer: int) -> Iterator[Tensor]:
    theirs, ours = f'layers.{layer}', f'layers_{layer}'
    attention = self.stack.attention
    scale = families.query_scale(self.described, self.name)
    blocks = [('self_attn', 'attention', 'attention')]
    if self.name == 'decoder':
      blocks = [('self_attn', 'self_attention', 'self_attention')]
      if not attention.is_merged:
        blocks.append(
          ('cross_attn', 'encoder_decoder_attention', 'cross_attention')
        )
    is_normed = attention.normalizes_heads
    for name, path, norm in blocks:
      for place in ('pre', 'post'):
        yield from self._norm(
          f'{theirs}.{place}_{name}_layernorm',
          ours,
          f'{place}_{norm}_layer_norm',
        )
      for letter, projection in _PROJECTIONS.items():
        is_query = letter == 'q'
        yield from self._dense(
          f'{theirs}.{name}.{letter[0]}_proj',
          (ours, path, projection),
          scale if is_query and not is_normed else 1.0,
        )
      for letter in ('q', 'k') if is_normed else ():
        yield from self._norm(
          f'{theirs}.{name}.{letter}_norm',
          ours,
          path,
          f'{_PROJECTIONS[letter]}_norm',
          factor=scale if letter == 'q' else 1.0,
        )
    for place in ('pre', 'post'):
      yield from self._norm(
        f'{theirs}.{place}_feedforward_layernorm',
        ours,
        f'{place}_mlp_layer_norm',
      )
    mlp = (('gate', 'wi_0'), ('up', 'wi_1'), ('down', 'wo'))
    for name, projection in mlp:
      yield from self._dense(
        f'{theirs}.mlp.{name}_proj', (ours, 'mlp', projection)
      )

  def _dense(
    self, name: str, path: tuple[str, ...], factor: float = 1.0
  ) -> Iterator[Tensor]:
    has_bias = self.stack.attention.has_bias and '.mlp.' not in name
    for tensor in super()._dense(name, path, factor):
      if has_bias or tensor.is_kernel:
        yield tensor
