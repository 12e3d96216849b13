"""Tokenisers whose ids are those of one sentencepiece model: T5, Gemma."""

from collections.abc import Sequence
import pathlib
import re

from rest_jax.data import special_ids as ids_lib
from rest_jax.data.tokenizers import base, pieces
from rest_jax.storage import paths

_CONTROL_IDS = {
  'pad_id': ids_lib.T5.pad,
  'eos_id': ids_lib.T5.eos,
  'unk_id': ids_lib.T5.unk,
}
# By the names that folders of Hugging Face have for a model.
FILES = (
  'spiece.model',
  'sentencepiece.model',
  'tokenizer.model',
  'spm.model',
)
_EXTRA_IDS = 100
# The type of pieces that text is cut at, such as MADLAD's `<2de>`.
_USER_DEFINED = 4
# Such a piece, and the code of its language.
_TAG = re.compile(r'<2(\w+)>')


class File(base.Tokenizer):
  """A sentencepiece model alone, with the special ids of T5."""

  def __init__(self, path: str | pathlib.Path):
    """Reads a model.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no sentencepiece model, or one whose PAD, EOS and UNK
        are not those of T5.
    """
    serialized = pieces.read(path)
    self._model = pieces.processor(serialized, path)
    found = {name: getattr(self._model, name)() for name in _CONTROL_IDS}
    if found != _CONTROL_IDS:
      raise ValueError(
        f'model_file must have {_list_ids(_CONTROL_IDS)}; {path} has '
        f'{_list_ids(found)} (-1: absent). Use a model trained with '
        '--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1, such as those of T5 and '
        'mT5, or leave model_file out to train one. Of another family, name the '
        'folder with all of its files.'
      )
    self.size = self._model.get_piece_size()
    self.special_ids = ids_lib.T5
    self.files = (paths.of(path),)

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    return self._model.encode(list(texts))

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    return self._model.decode(list(rows)) if rows else []


class T5(base.Tagged):
  """A sentencepiece model and the tokens that its folder adds to it.

  T5's sentinels `<extra_id_0>` and so on stand beyond the pieces, the first
  last. Text is cut at them, and at pieces that are whole symbols. Languages are
  those of tags such as MADLAD's '<2de>', with or without '<2' and '>'.
  """

  def __init__(self, folder: base.Folder, path: pathlib.Path):
    serialized = pieces.read(path)
    model = pieces.processor(serialized, path)
    self._count = count = model.get_piece_size()
    added = self._added(folder, model, count)
    listed = enumerate(pieces.message(serialized).pieces)
    own = {piece.piece: i for i, piece in listed if piece.type == _USER_DEFINED}
    self._cutter = pieces.Cutter(model, own | added)
    self.languages = base.by_code(own | added, _TAG)
    self.size = max([count - 1, *added.values()]) + 1
    self.special_ids = folder.special_ids(
      {
        'pad': _id(folder, model, 'pad', '<pad>', ids_lib.T5.pad),
        'eos': _id(folder, model, 'eos', '</s>', model.eos_id()),
        'unk': model.unk_id(),
      },
      decoder_start=_id(folder, model, 'pad', '<pad>', ids_lib.T5.pad),
    )
    self.files = folder.files(path.name)

  def _added(self, folder, model, count) -> dict[str, int]:
    numbered = {
      token: number
      for token, number in folder.added_tokens.items()
      if number >= count
    }
    extra = folder.settings.get('extra_ids', _EXTRA_IDS)
    if model.piece_to_id('<extra_id_0>') != model.unk_id():
      extra = 0  # Pieces, as in mT5.
    if count + extra > folder.config.get('vocab_size', count + extra):
      extra = 0  # The network has none.
    sentinels = {
      f'<extra_id_{number}>': count + extra - 1 - number
      for number in range(extra)
    }
    return sentinels | numbered

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    return self._cutter.encode(texts)

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    kept = [[i for i in row if i < self._count] for row in rows]
    return self._cutter.model.decode(kept) if kept else []


class Gemma(base.Tokenizer):
  """Gemma's sentencepiece model, with byte pieces and BOS before a source."""

  def __init__(self, folder: base.Folder, path: pathlib.Path):
    self._model = pieces.processor(pieces.read(path), path)
    self.size = self._model.get_piece_size()
    bos = self._model.bos_id()
    self.special_ids = folder.special_ids(
      {
        'pad': self._model.pad_id(),
        'eos': self._model.eos_id(),
        'unk': self._model.unk_id(),
      },
      decoder_start=bos,
    )
    self._around = gemma_around(folder, bos, self.special_ids.eos)
    self.files = folder.files(path.name)

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    return self._model.encode(list(texts))

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    return self._model.decode(list(rows)) if rows else []

  def around(
    self, languages: base.Languages
  ) -> tuple[base.Around, base.Around]:
    del languages
    return self._around


def gemma_around(
  folder: base.Folder, bos: int, eos: int
) -> tuple[base.Around, base.Around]:
  """Returns what stands around a source and a target of Gemma's."""
  source = base.Around(
    before=(bos,) if folder.settings.get('add_bos_token', False) else (),
    after=(eos,) if folder.settings.get('add_eos_token', False) else (),
  )
  return source, base.Around(after=(eos,))


def _id(folder, model, name: str, default: str, otherwise: int) -> int:
  """Returns the id of a special token, by its name or by `config.json`."""
  said = folder.config.get(f'{name}_token_id')
  if said is not None:
    return said
  token = folder.token(f'{name}_token', default)
  number = model.piece_to_id(token)
  return otherwise if number == model.unk_id() else number


def _list_ids(ids: dict[str, int]) -> str:
  return ', '.join(f'{name} {value}' for name, value in ids.items())
