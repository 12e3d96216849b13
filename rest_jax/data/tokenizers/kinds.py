"""Recognises the tokeniser of a path by its files."""

import pathlib

from rest_jax.data.tokenizers import (
  base,
  fairseq,
  marian,
  pegasus,
  rust,
  spm,
  utf8,
)
from rest_jax.storage import paths

# Files of pieces, of any kind.
FILES = (
  *spm.FILES,
  fairseq.FILE,
  fairseq.VOCABULARY,
  marian.SOURCE,
  marian.TARGET,
  rust.MERGES,
  rust.FILE,
)
_BART = ('BartTokenizer', 'RobertaTokenizer')


def read(path: str | pathlib.Path) -> base.Tokenizer:
  """Reads a tokeniser.

  Args:
    path: a sentencepiece model, or a folder with a tokeniser's files as Hugging
      Face's libraries name them.

  Raises:
    ValueError: a file is damaged or of another kind.
    ImportError: the `tokenizers` library is needed and not installed.
  """
  path = paths.of(path)
  if not path.is_dir():
    return spm.File(path)
  folder = base.Folder(path)
  found = _of_fairseq(folder) or _of_others(folder)
  if found is not None:
    return found
  there = ', '.join(sorted(file.name for file in path.iterdir())[:6])
  raise FileNotFoundError(
    f'model_file must be a sentencepiece model or a folder with a tokeniser; '
    f'{path} has none of {", ".join(FILES)}; it holds {there or "nothing"}. '
    'Copy the files of the tokeniser there.'
  )


def _of_fairseq(folder: base.Folder) -> base.Tokenizer | None:
  has_model = folder.find(fairseq.FILE) is not None
  if has_model and folder.find(fairseq.VOCABULARY):
    return fairseq.M2M100(folder)
  is_cc25 = folder.kind == 'MBartTokenizer'
  is_mbart = folder.kind.startswith('MBart') or folder.model_type == 'mbart'
  is_nllb = folder.kind.startswith('Nllb') or folder.model_type == 'm2m_100'
  if not (is_mbart or is_nllb):
    return None
  if has_model:
    if is_nllb:
      return fairseq.NLLB(folder)
    return fairseq.MBart(folder) if is_cc25 else fairseq.MBart50(folder)
  if folder.find(rust.FILE):
    return rust.LanguageLast(folder) if is_cc25 else rust.LanguageFirst(folder)
  return None


def _of_others(folder: base.Folder) -> base.Tokenizer | None:
  if folder.find(marian.SOURCE) and folder.find(marian.TARGET):
    return marian.Marian(folder)
  if utf8.is_kind_of(folder) and not folder.find(*FILES):
    return utf8.Bytes(folder)
  is_gemma = folder.kind.startswith('Gemma') or folder.model_type.startswith(
    't5gemma'
  )
  model, has_json = folder.find(*spm.FILES), folder.find(rust.FILE)
  if is_gemma and has_json:
    return rust.Gemma(folder)
  if model is not None:
    if is_gemma:
      return spm.Gemma(folder, model)
    is_pegasus = (
      folder.kind.startswith('Pegasus') or folder.model_type == 'pegasus'
    )
    return (pegasus.Pegasus if is_pegasus else spm.T5)(folder, model)
  is_bart = folder.model_type == 'bart' or folder.kind in _BART
  if folder.find(rust.MERGES) or (is_bart and has_json):
    return rust.Bart(folder)
  return rust.Plain(folder) if has_json else None
