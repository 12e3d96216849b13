"""Tokenisers of fairseq's models: NLLB, mBART, M2M-100.

A sentencepiece model begins with UNK, BOS and EOS; fairseq's ids with BOS, PAD,
EOS and UNK. Languages stand after the pieces.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

from rest_jax.data import special_ids as ids_lib
from rest_jax.data.tokenizers import base, language_codes, pieces
from rest_jax.storage import files

FILE = 'sentencepiece.bpe.model'
VOCABULARY = 'vocab.json'
_BOS, _PAD, _EOS, _UNK = range(4)
# Pieces of sentencepiece that are special ids here.
_SPECIAL: dict[int, int] = {0: _UNK, 1: _BOS, 2: _EOS}
_SHIFT = 1
_NUM_SPECIAL = 4
_CODE = re.compile(r'[a-z]{2,3}_[A-Z][A-Za-z]+')


class Translation(base.Tokenizer):
  """Stands a language before each text: [language] x [eos].

  Subclasses read files; `around` is theirs.
  """

  def around(
    self, languages: base.Languages
  ) -> tuple[base.Around, base.Around]:
    eos = (self.special_ids.eos,)
    source = self.language_id('source_language', languages.source)
    target = self.language_id('target_language', languages.target)
    return base.Around((source,), eos), base.Around((target,), eos)

  def special_ids_of(self, languages: base.Languages) -> ids_lib.SpecialIds:
    """The target's language is the forced first token."""
    if languages.target is None:
      return self.special_ids
    if languages == base.OF_EACH_PAIR:
      return dataclasses.replace(
        self.special_ids, forced_first=None, is_first_given=True
      )
    return dataclasses.replace(
      self.special_ids,
      forced_first=self.language_id('target_language', languages.target),
    )


class LanguageLast(Translation):
  """Stands a language after each source: x [eos] [language].

  The decoder starts with that of the target.
  """

  def around(
    self, languages: base.Languages
  ) -> tuple[base.Around, base.Around]:
    source, _ = super().around(languages)
    eos = self.special_ids.eos
    return base.Around(after=(eos, *source.before)), base.Around(after=(eos,))

  def special_ids_of(self, languages: base.Languages) -> ids_lib.SpecialIds:
    if languages.target is None:
      return self.special_ids
    if languages == base.OF_EACH_PAIR:
      raise ValueError(
        f'pairs of text may not name languages for {self.files[0].parent}, '
        "mBART-cc25's tokeniser: its decoder starts with the target's language, "
        'which is one for the whole run. Set SOURCE_LANGUAGE and TARGET_LANGUAGE, '
        'or use mBART-50.'
      )
    return dataclasses.replace(
      self.special_ids,
      decoder_start=self.language_id('target_language', languages.target),
      forced_first=None,
    )


class _Shifted(base.Tokenizer):
  """Sentencepiece's ids, shifted."""

  def __init__(self, folder: base.Folder, numbers: Mapping[str, int]):
    """Reads a model.

    Args:
      numbers: ids of languages.
    """
    self._model = _model(folder)
    self.languages = dict(numbers)
    # MASK is beyond the pieces as well.
    beyond = self._model.get_piece_size() + _SHIFT + len(numbers)
    self.size = max([beyond, *folder.added_tokens.values()]) + 1
    self.special_ids = fairseq_ids(folder)
    self.files = folder.files(FILE, 'tokenizer.json')

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    rows: list[list[int]] = self._model.encode(list(texts))
    return [[_SPECIAL.get(i, i + _SHIFT) for i in row] for row in rows]

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    count = self._model.get_piece_size()

    def piece(i: int) -> int | None:
      if i == _UNK:
        return self._model.unk_id()
      is_piece = _NUM_SPECIAL <= i < count + _SHIFT
      return i - _SHIFT if is_piece else None

    kept = [[p for p in map(piece, row) if p is not None] for row in rows]
    return self._model.decode(kept) if kept else []


class NLLB(_Shifted, Translation):
  """NLLB-200."""

  def __init__(self, folder: base.Folder):
    count = _model(folder).get_piece_size() + _SHIFT
    super().__init__(folder, _nllb_languages(folder, count))
    if folder.settings.get('legacy_behaviour'):
      raise ValueError(
        f'legacy_behaviour in {folder.path / base.SETTINGS} must be false, so '
        'that the language stands before a source; got true. Remove it.'
      )


class MBart50(_Shifted, Translation):
  """mBART-50: as NLLB."""

  codes: Sequence[str] = language_codes.MBART_50

  def __init__(self, folder: base.Folder):
    count = _model(folder).get_piece_size() + _SHIFT
    super().__init__(
      folder, {code: count + i for i, code in enumerate(self.codes)}
    )


class MBart(LanguageLast, MBart50):
  """mBART-cc25.

  Note: text is split at blanks and not normalised, as transformers has it; a
    full-width comma is none.
  """

  codes = language_codes.MBART

  def __init__(self, folder: base.Folder):
    super().__init__(folder)
    message = pieces.message(self._model.serialized_model_proto())
    message.normalizer_spec.ClearField('precompiled_charsmap')
    message.normalizer_spec.name = 'identity'
    self._model = pieces.processor(message.SerializeToString(), self.files[0])

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    return super().encode([' '.join(t.split()) for t in texts], as_target)


class M2M100(Translation):
  """M2M-100: the ids of pieces are in `vocab.json`, codes are such as 'de'."""

  def __init__(self, folder: base.Folder):
    self._model = _model(folder)
    self._ids: dict[str, int] = files.read_json(folder.path / VOCABULARY)
    self._unk = folder.token('unk_token', '<unk>')
    self._pieces = {number: piece for piece, number in self._ids.items()}
    known = {
      'm2m100': language_codes.M2M_100,
      'wmt21': language_codes.WMT21,
    }[folder.settings.get('language_codes', 'm2m100')]
    count = len(self._ids)
    self.languages = {
      code: folder.added_tokens.get(f'__{code}__', count + i)
      for i, code in enumerate(known)
    }
    self.size = max(self.languages.values()) + 1
    self.special_ids = fairseq_ids(
      folder,
      **{
        name: self._ids[folder.token(f'{name}_token', default)]
        for name, default in (
          ('pad', '<pad>'),
          ('eos', '</s>'),
          ('unk', '<unk>'),
        )
      },
    )
    self.files = folder.files(FILE, VOCABULARY)

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    unk = self._ids[self._unk]
    rows = self._model.encode(list(texts), out_type=str)
    return [[self._ids.get(piece, unk) for piece in row] for row in rows]

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    dropped = {self._ids.get('<s>')}
    kept = [
      [self._pieces[i] for i in row if i in self._pieces and i not in dropped]
      for row in rows
    ]
    return [self._model.decode_pieces(row) for row in kept]


def _model(folder: base.Folder) -> Any:
  path = folder.path / FILE
  return pieces.processor(pieces.read(path), path)


def fairseq_ids(folder: base.Folder, **ids: int) -> ids_lib.SpecialIds:
  """Returns special ids, fairseq's if no others are given."""
  ids = ids or {'pad': _PAD, 'eos': _EOS, 'unk': _UNK}
  return folder.special_ids(ids, decoder_start=ids['eos'])


def language_tokens(tokens: Mapping[str, int]) -> dict[str, int]:
  """Returns the tokens that are codes such as 'deu_Latn' or 'de_DE'."""
  return {
    token: number for token, number in tokens.items() if _CODE.fullmatch(token)
  }


def _nllb_languages(folder: base.Folder, count: int) -> dict[str, int]:
  numbered = language_tokens(folder.added_tokens)
  if numbered:
    return numbered
  listed = [
    token for token in folder.extra_tokens or () if _CODE.fullmatch(token)
  ]
  # As transformers numbers a list, after MASK; in releases MASK is last.
  codes, first = (listed, count + 1) if listed else (language_codes.NLLB, count)
  return {code: first + i for i, code in enumerate(codes)}
