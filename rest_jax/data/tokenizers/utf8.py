"""ByT5's tokeniser: an id for each byte of UTF-8, no file of pieces."""

from collections.abc import Sequence

from rest_jax.data.tokenizers import base

_KIND = 'ByT5Tokenizer'
_PAD, _EOS, _UNK = range(3)
_FIRST_BYTE = 3
_NUM_BYTES = 256
_NUM_SENTINELS = 125
_SIZE = _FIRST_BYTE + _NUM_BYTES + _NUM_SENTINELS


class Bytes(base.Tokenizer):
  """Byte b has the id b + 3; sentinels stand after the bytes."""

  def __init__(self, folder: base.Folder):
    self.size = _SIZE
    self.special_ids = folder.special_ids(
      {'pad': _PAD, 'eos': _EOS, 'unk': _UNK}, decoder_start=_PAD
    )
    self.files = folder.files()

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    return [[byte + _FIRST_BYTE for byte in text.encode()] for text in texts]

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    bounds = range(_FIRST_BYTE, _FIRST_BYTE + _NUM_BYTES)
    return [
      bytes(i - _FIRST_BYTE for i in row if i in bounds).decode(errors='ignore')
      for row in rows
    ]


def is_kind_of(folder: base.Folder) -> bool:
  """Whether a folder, without files of pieces, is that of a ByT5."""
  has_size = folder.config.get('vocab_size') == _SIZE
  return folder.kind == _KIND or (folder.model_type == 't5' and has_size)
