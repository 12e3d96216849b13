"""Which tensors of a Hugging Face folder its tokens and logits are made by.

Folders have their embeddings under one of three names or under several, which may be
copies or differ, and logits by them or by a matrix of their own.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import re

from absl import logging
import numpy as np

from rest_jax.interop import (
  config_values,
  safetensors_folder,
  t5_config,
  tensor_names,
)
from rest_jax.models import network_config

# What is before names of a base model or of the text within a larger one.
_DROPPED = (r'^model\.', r'(?<=^encoder\.)text_model\.')
# What is no part of the text network, is computed, or is used by no loader.
_UNREAD = (
  r'encoder\.vision_tower\.',
  r'encoder\.multi_modal_projector\.',
  r'(encoder|decoder)\.version$',
  r'.*\.rotary_emb\.inv_freq$',
  r'(encoder|decoder)\.embed_positions\.weights$',
  r'decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.',
)
ENCODER, DECODER, SHARED = (
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
  'shared.weight',
)
TABLES = (SHARED, DECODER, ENCODER)
HEADS = ('lm_head.weight', 'lm_head.out_proj.weight')
BIAS = 'final_logits_bias'
REPLACEMENTS = (
  'encoder.embed_tokens.eoi_embedding',
  'decoder.embed_tokens.eoi_embedding',
)
HEAD_PATH = ('decoder', 'logits_dense', 'kernel')


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
    """Whether two tensors are equal."""
    if name == other:
      return True
    return self.folder.is_same(self[name], self[other])

  def read(self, name: str) -> np.ndarray:
    return self.folder[self[name]]

  def shape(self, name: str) -> tuple[int, ...]:
    return self.folder.shapes[self[name]]


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """Which tensors tokens and logits are made by.

  Attributes:
    encoder: what the encoder reads tokens by.
    decoder: likewise.
    head: what makes logits; None if the decoder's embeddings do.
    head_scale: what logits by `head` are multiplied by.
    is_shared: whether encoder and decoder have the same embeddings.
  """

  encoder: str
  decoder: str
  head: str | None
  head_scale: float = 1.0
  is_shared: bool = True

  @classmethod
  def of(
    cls,
    names: Names,
    config: network_config.NetworkConfig,
    *,
    compares: bool = True,
  ) -> 'Embeddings':
    """Finds them.

    Args:
      names: the tensors of a folder.
      config: of the network, as far as `config.json` tells.
      compares: whether tensors that should be equal are compared, which reads
        them; otherwise they are taken to be.

    Raises:
      ValueError: there are none, or some differ that should be equal.
    """
    if config.positions.kind == 'relative':
      return _of_t5(names, config, compares)
    return _of_others(names, config, compares)

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
  ) -> Iterator[tensor_names.Tensor]:
    """The tensors of tokens and logits."""
    yield tensor_names.Tensor(self.decoder, ('token_embedder', 'embedding'))
    if not config.embeddings.is_shared:
      yield tensor_names.Tensor(self.encoder, ('encoder_embedder', 'embedding'))
    if self.head is not None:
      yield tensor_names.Tensor(self.head, HEAD_PATH, is_kernel=True)
    if config.embeddings.has_logits_bias and BIAS in names:
      yield tensor_names.Tensor(BIAS, ('decoder', 'logits_bias'))
    if config.embeddings.replaced_id is not None:
      name = names.first(*REPLACEMENTS) or REPLACEMENTS[0]
      yield tensor_names.Tensor(name, ('token_embedder', 'replacement'))


def _of_t5(
  names: Names, config: network_config.NetworkConfig, compares: bool
) -> Embeddings:
  directory, found = names.folder.directory, [n for n in TABLES if n in names]
  if not found:
    others = [f' {name} makes logits and is not one.' for name in HEADS[:1]]
    raise ValueError(
      f'{directory} must have the embeddings as one of the tensors '
      f'{", ".join(TABLES)}; it has none.{others[0] if HEADS[0] in names else ""}'
      f'{hint(names, found)}'
    )
  table = found[0]
  for other in found[1:] if compares else ():
    if not names.is_same(table, other):
      raise ValueError(
        f'{table} and {other} of {directory} must be equal, as encoder and '
        'decoder share their embeddings here; they differ.'
      )
  head, scale = _head_of_t5(names, table, config.emb_dim, compares)
  # What is scaled and made by the embeddings is tied, as in the first T5.
  is_tied = head == table and scale != 1
  return Embeddings(table, table, None if is_tied else head, scale)


def _head_of_t5(
  names: Names, table: str, emb_dim: int, compares: bool
) -> tuple[str, float]:
  """The tensor whose rows give the logits, and what these are multiplied by."""
  folder, head = names.folder, HEADS[0]
  logits = t5_config.Logits.of(folder.config)
  scale = emb_dim**-0.5 if logits.is_scaled else 1.0
  if not logits.is_tied:
    return head, scale
  if head not in names:
    return table, scale
  if logits.version == 5 and not logits.is_scaled:
    # The usual form of those with logits of their own.
    is_same = compares and names.is_same(head, table)
    return (table if is_same else head), scale
  if not compares or names.is_same(head, table):
    return table, scale
  where = (
    f'tie_word_embeddings of {folder.directory / config_values.CONFIG_FILE}'
  )
  if logits.version is None:
    raise ValueError(
      f'{where} must be false, as {head} and {table} differ; it is true, and '
      f'transformers 4 would then ignore {head}, 5 use it. Set it to false if '
      'logits are to be made by it, or say by "transformers_version" what wrote '
      'the folder.'
    )
  used = head if logits.version == 5 else table
  logging.warning(
    '%s is true, but %s and %s differ: logits are made by %s%s, as in '
    'transformers %d, which wrote it',
    where,
    head,
    table,
    used,
    ' / sqrt(d_model)' if logits.is_scaled else '',
    logits.version,
  )
  return used, scale


def _of_others(
  names: Names, config: network_config.NetworkConfig, compares: bool
) -> Embeddings:
  def is_same(name, other):
    return not compares or names.is_same(name, other)

  head = names.first(*HEADS)
  is_shared = config.embeddings.is_shared
  is_tied = config.logits_via_embedding
  if not is_tied and head is None:
    raise ValueError(
      f'{names.folder.directory} must have the tensor {HEADS[0]}, as '
      'tie_word_embeddings is false; save the model with its head.'
    )
  heads = (head,) if head is not None and is_tied else ()
  others = (*TABLES, *heads) if is_shared else ()
  encoder = names.first(ENCODER, *others)
  decoder = names.first(DECODER, *(others or heads))
  if encoder is None or decoder is None:
    there = ', '.join(name for name in TABLES if name in names)
    raise ValueError(
      f'{names.folder.directory} must have the embeddings as the tensors '
      f'{", ".join(TABLES)}, or one for all where they are shared; it has '
      f'{there or "none"}.'
    )
  if is_tied:
    # Tied to what all share, whatever the decoder reads tokens by.
    shared = names.first(SHARED, decoder) if is_shared else decoder
    head = head or shared
    assert head is not None
    if is_same(head, decoder):
      head = None
  return Embeddings(
    encoder,
    decoder,
    head,
    is_shared=is_shared and is_same(encoder, decoder),
  )


# What wrappers put before the names of tensors.
_PREFIXES = ('module.', '_orig_mod.', 'transformer.')


def hint(names: Names, missing: list[str]) -> str:
  """Says what a checkpoint may be whose tensors are missing."""
  if not any('decoder' in name for name in names):
    return (
      ' It has an encoder alone, which is no policy: use an encoder-decoder.'
    )
  for prefix in _PREFIXES:
    if any(name.startswith(prefix) for name in names):
      return (
        f' Its names begin with {prefix!r}: it was saved from a wrapper or as '
        'another class. Save the model itself.'
      )
  said = names.folder.config.get('architectures')
  if missing == [HEADS[0]]:
    return (
      ' tie_word_embeddings is false, so logits have their own matrix; save the '
      f'model with its head (architectures: {said}).'
    )
  return (
    f' Look at the sizes in {config_values.CONFIG_FILE} (architectures: {said}), '
    'or fetch the checkpoint again.'
  )
