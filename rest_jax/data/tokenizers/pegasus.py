"""Pegasus' tokeniser: sentencepiece's ids, shifted by its own special ids."""

from collections.abc import Sequence
import pathlib

from rest_jax.data.tokenizers import base, pieces

_OFFSET = 103
# PAD and EOS keep their ids.
_NUM_KEPT = 2


class Pegasus(base.Tokenizer):
  """Ids of pieces begin at 105, after tokens of the pre-training."""

  def __init__(self, folder: base.Folder, path: pathlib.Path):
    self._model = pieces.processor(pieces.read(path), path)
    self._offset = folder.settings.get('offset', _OFFSET)
    self.size = self._model.get_piece_size() + self._offset
    ids = {'pad': self._model.pad_id(), 'eos': self._model.eos_id()}
    if sorted(ids.values()) != [0, 1]:
      raise ValueError(
        f'PAD and EOS of {path} must be its first two pieces; got {ids}. It is '
        'not the sentencepiece model of a Pegasus.'
      )
    unk = self._model.unk_id() + self._offset
    self.special_ids = folder.special_ids(
      {**ids, 'unk': unk}, decoder_start=ids['pad']
    )
    self.files = folder.files(path.name)

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    rows = self._model.encode(list(texts))
    return [[i + self._offset for i in row] for row in rows]

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    least = self._offset + _NUM_KEPT
    kept = [[i - self._offset for i in row if i >= least] for row in rows]
    return self._model.decode(kept) if kept else []
