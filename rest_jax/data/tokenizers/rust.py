"""Tokenisers that the `tokenizers` library reads: BART's, `tokenizer.json`."""

from collections.abc import Sequence
import importlib
import pathlib
from typing import Any

from rest_jax.data.tokenizers import base, fairseq
from rest_jax.storage import cache

FILE = 'tokenizer.json'
VOCABULARY, MERGES = 'vocab.json', 'merges.txt'


class _Rust(base.Tokenizer):
  """Cuts by the library.

  A text that spells PAD or EOS is cut into letters, so that these ids stand at
  the ends of rows alone.
  """

  def __init__(self, folder: base.Folder, tokenizer: Any):
    self._folder, self._tokenizer = folder, tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    self.size = (
      max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1
    )
    self.files = folder.files(FILE, VOCABULARY, MERGES)

  def id_of(self, name: str, default: str) -> int:
    """Returns the id of a special token; ValueError if there is none."""
    token = self._folder.token(f'{name}_token', default)
    number = self._tokenizer.token_to_id(token)
    if number is None:
      raise ValueError(
        f'{name}_token of {self._folder.path} must be a token of its tokeniser; '
        f'got {token!r}. Set it in {base.SETTINGS}.'
      )
    return number

  def ids_of(self, **tokens: str) -> dict[str, int]:
    return {name: self.id_of(name, token) for name, token in tokens.items()}

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    del as_target
    rows = self._cut(list(texts))
    ends = {self.special_ids.pad, self.special_ids.eos}
    for number, row in enumerate(rows):
      if not ends.isdisjoint(row):
        self._tokenizer.encode_special_tokens = True
        [rows[number]] = self._cut([texts[number]])
        self._tokenizer.encode_special_tokens = False
    return rows

  def _cut(self, texts: list[str]) -> list[list[int]]:
    cut = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [row.ids for row in cut]

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    return self._tokenizer.decode_batch(list(rows), skip_special_tokens=True)


class Bart(_Rust):
  """BART: [bos] x [eos] on both sides."""

  def __init__(self, folder: base.Folder):
    super().__init__(folder, _bart(folder))
    ids = self.ids_of(pad='<pad>', eos='</s>', unk='<unk>')
    self.special_ids = folder.special_ids(ids, decoder_start=ids['eos'])
    self._bos = self.id_of('bos', '<s>')

  def around(
    self, languages: base.Languages
  ) -> tuple[base.Around, base.Around]:
    del languages
    both = base.Around((self._bos,), (self.special_ids.eos,))
    return both, both


class Gemma(_Rust):
  """Gemma's `tokenizer.json`."""

  def __init__(self, folder: base.Folder):
    super().__init__(folder, _read(folder.path / FILE))
    ids = self.ids_of(pad='<pad>', eos='<eos>', unk='<unk>')
    bos = self.id_of('bos', '<bos>')
    self.special_ids = folder.special_ids(ids, decoder_start=bos)
    source = self._tokenizer.encode('').ids
    self._source = base.Around(
      tuple(i for i in source if i == bos),
      tuple(i for i in source if i == ids['eos']),
    )

  def around(
    self, languages: base.Languages
  ) -> tuple[base.Around, base.Around]:
    del languages
    return self._source, base.Around(after=(self.special_ids.eos,))


class Plain(_Rust):
  """A `tokenizer.json` of T5's kind or Pegasus': x [eos]."""

  def __init__(self, folder: base.Folder):
    super().__init__(folder, _read(folder.path / FILE))
    ids = self.ids_of(pad='<pad>', eos='</s>', unk='<unk>')
    self.special_ids = folder.special_ids(ids, decoder_start=ids['pad'])


class _Translation(_Rust):
  """A `tokenizer.json` of fairseq's models."""

  def __init__(self, folder: base.Folder):
    super().__init__(folder, _read(folder.path / FILE))
    ids = self.ids_of(pad='<pad>', eos='</s>', unk='<unk>')
    self.special_ids = fairseq.fairseq_ids(folder, **ids)
    self.languages = fairseq.language_tokens(self._tokenizer.get_vocab())


class LanguageFirst(_Translation, fairseq.Translation):
  """NLLB and mBART-50."""


class LanguageLast(_Translation, fairseq.LanguageLast):
  """mBART-cc25."""


def _library() -> Any:
  try:
    return importlib.import_module('tokenizers')
  except ImportError as error:
    raise ImportError(
      f'a tokeniser of {FILE}, or of {MERGES}, needs the tokenizers library, '
      'which is not installed: pip install tokenizers'
    ) from error


def _read(path: pathlib.Path) -> Any:
  try:
    return _library().Tokenizer.from_file(str(cache.local(path)))
  except ImportError:
    raise
  except Exception as error:  # The library raises no narrower class.
    raise ValueError(
      f'{path} must be a file of the tokenizers library; {error}. It is '
      'damaged, or of a later version: pip install --upgrade tokenizers'
    ) from error


def _bart(folder: base.Folder) -> Any:
  if (folder.path / FILE).is_file():
    return _read(folder.path / FILE)
  library = _library()
  made = library.Tokenizer(
    library.models.BPE.from_file(
      str(cache.local(folder.path / VOCABULARY)),
      str(cache.local(folder.path / MERGES)),
    )
  )
  is_spaced = folder.settings.get('add_prefix_space', False)
  made.pre_tokenizer = library.pre_tokenizers.ByteLevel(
    add_prefix_space=is_spaced
  )
  made.decoder = library.decoders.ByteLevel()
  made.add_special_tokens(
    [
      folder.token(f'{name}_token', token)
      for name, token in (
        ('bos', '<s>'),
        ('pad', '<pad>'),
        ('eos', '</s>'),
        ('unk', '<unk>'),
      )
    ]
  )
  return made
