"""Names of Hugging Face's tensors, and the parameters that they are.

Kernels of Hugging Face are [output, input], ours are T5X's [input, output]; T5's
relative position bias is [buckets, heads] there and stands in the first layer of a
stack, ours is [heads, buckets] and belongs to the stack; in umT5 each layer has one,
with both.
"""

from collections.abc import Iterator
import dataclasses
from typing import NamedTuple

from rest_jax.models import network_config

_STACKS = ('encoder', 'decoder')
_PROJECTIONS = {'q': 'query', 'k': 'key', 'v': 'value', 'out': 'out'}
# T5X's names of a layer's blocks, and where T5 has them there.
_T5_BLOCKS = {
  'encoder': (('pre_attention_layer_norm', 'attention', 'SelfAttention'),),
  'decoder': (
    ('pre_self_attention_layer_norm', 'self_attention', 'SelfAttention'),
    (
      'pre_cross_attention_layer_norm',
      'encoder_decoder_attention',
      'EncDecAttention',
    ),
  ),
}


class Tensor(NamedTuple):
  """Where one parameter comes from.

  Attributes:
    name: of the tensor, without the prefix that most families have.
    path: of the parameter.
    is_kernel: whether it is [output, input] there, and here the other way.
  """

  name: str
  path: tuple[str, ...]
  is_kernel: bool = False


def layers(config: network_config.NetworkConfig) -> Iterator[Tensor]:
  """All tensors but those of tokens and logits."""
  makers = {'relative': _T5Stack, 'rotary': _GemmaStack}
  for name in _STACKS:
    stack = config.encoder_stack if name == 'encoder' else config.decoder_stack
    make = makers.get(stack.positions.kind, _BartStack)
    yield from make(name, stack).tensors()


@dataclasses.dataclass(frozen=True)
class _T5Stack:
  """Tensors of an encoder or decoder of T5.

  Attributes:
    name: 'encoder' or 'decoder'.
    stack: its parts.
  """

  name: str
  stack: network_config.Stack

  def tensors(self) -> Iterator[Tensor]:
    is_by_layer = self.stack.is_relative_by_layer
    for layer in range(self.stack.num_layers if is_by_layer else 1):
      owner = (f'layers_{layer}',) if is_by_layer else ()
      yield Tensor(
        f'{self.name}.block.{layer}.layer.0.SelfAttention'
        '.relative_attention_bias.weight',
        (self.name, *owner, 'relpos_bias', 'rel_embedding'),
        is_kernel=True,
      )
    yield Tensor(
      f'{self.name}.final_layer_norm.weight',
      (self.name, f'{self.name}_norm', 'scale'),
    )
    for layer in range(self.stack.num_layers):
      yield from self._layer(layer)

  def _layer(self, layer: int) -> Iterator[Tensor]:
    ours = (self.name, f'layers_{layer}')
    theirs = f'{self.name}.block.{layer}.layer'
    blocks = _T5_BLOCKS[self.name]
    for number, (norm, attention, name) in enumerate(blocks):
      yield Tensor(
        f'{theirs}.{number}.layer_norm.weight', (*ours, norm, 'scale')
      )
      for letter, projection in _PROJECTIONS.items():
        yield Tensor(
          f'{theirs}.{number}.{name}.{letter[0]}.weight',
          (*ours, attention, projection, 'kernel'),
          is_kernel=True,
        )
    theirs = f'{theirs}.{len(blocks)}'
    yield Tensor(
      f'{theirs}.layer_norm.weight', (*ours, 'pre_mlp_layer_norm', 'scale')
    )
    branches = ['wi']
    if len(self.stack.mlp_activations) > 1:
      branches = [f'wi_{i}' for i in range(len(self.stack.mlp_activations))]
    for name in (*branches, 'wo'):
      yield Tensor(
        f'{theirs}.DenseReluDense.{name}.weight',
        (*ours, 'mlp', name, 'kernel'),
        is_kernel=True,
      )


@dataclasses.dataclass(frozen=True)
class _BartStack:
  """Tensors of an encoder or decoder of BART's kind.

  Attributes:
    name: 'encoder' or 'decoder'.
    stack: its parts.
  """

  name: str
  stack: network_config.Stack

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
      for letter, projection in _PROJECTIONS.items():
        yield from self._dense(
          f'{theirs}.{name}.{letter}_proj', (ours, path, projection)
        )
    yield from self._norm(
      f'{theirs}.final_layer_norm', ours, f'{place}_mlp_layer_norm'
    )
    for name, projection in (('fc1', 'wi'), ('fc2', 'wo')):
      yield from self._dense(f'{theirs}.{name}', (ours, 'mlp', projection))

  def _dense(self, name: str, path: tuple[str, ...]) -> Iterator[Tensor]:
    path = (self.name, *path)
    name = f'{self.name}.{name}'
    yield Tensor(f'{name}.weight', (*path, 'kernel'), is_kernel=True)
    yield Tensor(f'{name}.bias', (*path, 'bias'))


class _GemmaStack(_BartStack):
  """Tensors of an encoder or decoder of T5Gemma or T5Gemma 2."""

  def tensors(self) -> Iterator[Tensor]:
    yield from self._norm('norm', f'{self.name}_norm')
    for layer in range(self.stack.num_layers):
      yield from self._layer(layer)

  def _norm(self, name: str, *path: str) -> Iterator[Tensor]:
    yield Tensor(f'{self.name}.{name}.weight', (self.name, *path, 'scale'))

  def _layer(self, layer: int) -> Iterator[Tensor]:
    theirs, ours = f'layers.{layer}', f'layers_{layer}'
    attention = self.stack.attention
    blocks = [('self_attn', 'attention', 'attention')]
    if self.name == 'decoder':
      blocks = [('self_attn', 'self_attention', 'self_attention')]
      if not attention.is_merged:
        blocks.append(
          ('cross_attn', 'encoder_decoder_attention', 'cross_attention')
        )
    for name, path, norm in blocks:
      for place in ('pre', 'post'):
        yield from self._norm(
          f'{theirs}.{place}_{name}_layernorm',
          ours,
          f'{place}_{norm}_layer_norm',
        )
      for letter, projection in _PROJECTIONS.items():
        yield from self._dense(
          f'{theirs}.{name}.{letter[0]}_proj', (ours, path, projection)
        )
      for letter in ('q', 'k') if attention.normalizes_heads else ():
        yield from self._norm(
          f'{theirs}.{name}.{letter}_norm',
          ours,
          path,
          f'{_PROJECTIONS[letter]}_norm',
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

  def _dense(self, name: str, path: tuple[str, ...]) -> Iterator[Tensor]:
    has_bias = self.stack.attention.has_bias and '.mlp.' not in name
    for tensor in super()._dense(name, path):
      if has_bias or tensor.is_kernel:
        yield tensor
