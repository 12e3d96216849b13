"""Marian's tokeniser: a sentencepiece model per side, ids in `vocab.json`."""

from collections.abc import Sequence
import re

from rest_jax.data.tokenizers import base, pieces
from rest_jax.storage import files

SOURCE, TARGET = 'source.spm', 'target.spm'
VOCABULARY = 'vocab.json'
_BLANK = '\u2581'
# Names the target's language before a source of a model with several.
_TAG = re.compile(r'>>(.*?)<<')


class Marian(base.Tagged):
  """OPUS-MT's tokeniser.

  Languages are those of tags such as '>>deu<<', with or without the brackets;
  the tag of the target stands before each source.
  """

  def __init__(self, folder: base.Folder):
    if folder.settings.get('separate_vocabs'):
      raise ValueError(
        f'separate_vocabs in {folder.path / base.SETTINGS} must be false: both '
        'sides of a vocabulary have the same ids here. Use a model with one '
        f'{VOCABULARY}.'
      )
    self._models = [
      pieces.processor(pieces.read(folder.path / name), folder.path / name)
      for name in (SOURCE, TARGET)
    ]
    self._ids: dict[str, int] = files.read_json(folder.path / VOCABULARY)
    self._pieces = {number: piece for piece, number in self._ids.items()}
    self.size = max(self._pieces) + 1
    ids = {
      name: self._ids[folder.token(f'{name}_token', default)]
      for name, default in (('pad', '<pad>'), ('eos', '</s>'), ('unk', '<unk>'))
    }
    self.special_ids = folder.special_ids(ids, decoder_start=ids['pad'])
    self.languages = base.by_code(self._ids, _TAG)
    self.files = folder.files(SOURCE, TARGET, VOCABULARY)

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    return [self._encode(text, self._models[as_target]) for text in texts]

  def _encode(self, text: str, model) -> list[int]:
    unk = self._ids_unk
    found = _TAG.match(text)
    tag = [found[0]] if found else []
    spelt = model.encode(text[len(tag[0]) if tag else 0 :], out_type=str)
    return [self._ids.get(piece, unk) for piece in (*tag, *spelt)]

  @property
  def _ids_unk(self) -> int:
    assert self.special_ids.unk is not None
    return self.special_ids.unk

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    tags = set(self.languages.values())
    spelt = [
      [self._pieces[i] for i in row if i in self._pieces and i not in tags]
      for row in rows
    ]
    # Pieces of the other side's model are unknown to this one.
    texts = (self._models[1].decode_pieces(row) for row in spelt)
    return [text.replace(_BLANK, ' ').strip() for text in texts]
