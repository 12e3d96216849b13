"""Sentencepiece vocabularies: trained from the task's text, or given."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import hashlib
import io
import itertools
import pathlib
import random
import re

import numpy as np
import sentencepiece

from rest_jax import settings, types
from rest_jax.data import text_files
from rest_jax.storage import file_kinds, files

# Sentencepiece logs from INFO (0) up; errors arrive as exceptions as well.
_QUIET = 3
# Sentencepiece drops longer sentences from the text it learns from, silently,
# and those with the character that it keeps for unknown pieces.
_MOST_BYTES = 4192
_RESERVED = '\u2585'
_CONTROL_IDS = {
  'pad_id': types.PAD_ID,
  'eos_id': types.EOS_ID,
  'unk_id': types.UNK_ID,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
  """A vocabulary to be trained, or an existing one.

  Attributes:
    model_file: an existing sentencepiece .model; the other fields are then
      unused. None trains one.
    size: number of pieces, PAD, EOS and UNK among them.
    character_coverage: share of the text's characters that get a piece, in
      (0.98, 1]; 0.9995 suits scripts of thousands of characters.
    extra_files: text files beside the task's own, plain or .gz: all text that
      the models shall read, such as that of the ratings.
    model_type: 'unigram' or 'bpe'.
    normalization_rule: how text is normalised before it is cut, one of
      sentencepiece's names: 'nmt_nfkc', 'nmt_nfkc_cf' (folds case), 'nfkc',
      'nfkc_cf', 'identity'.
    max_texts: with more texts than this, train on a random choice of as many.
    num_threads: part of the result, not of the machine: the same text gives
      another vocabulary under another number of threads.
  """

  model_file: str | None = None
  size: int = 8000
  character_coverage: float = 1.0
  extra_files: tuple[text_files.PathLike, ...] = ()
  model_type: str = 'unigram'
  normalization_rule: str = 'nmt_nfkc'
  max_texts: int = 5_000_000
  num_threads: int = 4

  def __post_init__(self):
    if self.extra_files:
      paths = text_files.as_paths('extra_files', self.extra_files)
      object.__setattr__(self, 'extra_files', paths)
    if self.size < 4:
      raise ValueError(
        f'size must be at least 4 (PAD, EOS, UNK and a piece); got {self.size}.'
      )
    settings.inside(self, '(0.98, 1]', 'character_coverage')
    settings.one_of(self, ('unigram', 'bpe'), 'model_type')
    rules = ('nmt_nfkc', 'nmt_nfkc_cf', 'nfkc', 'nfkc_cf', 'identity')
    settings.one_of(self, rules, 'normalization_rule')
    settings.at_least(self, 1, 'max_texts', 'num_threads')


class SizeError(ValueError):
  """Text cannot fill a vocabulary, or does not fit into it.

  Attributes:
    bound: the nearest size that is possible.
  """

  def __init__(self, message: str, bound: int):
    super().__init__(message)
    self.bound = bound


class Vocabulary:
  """Text to token ids and back; EOS is added by whoever stores a row."""

  def __init__(self, path: str | pathlib.Path):
    """Reads a sentencepiece .model.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no sentencepiece model, or one whose PAD, EOS and UNK
        are not 0, 1 and 2.
    """
    serialized = _read(path)
    self._processor = _load(serialized, path)
    self.digest = hashlib.sha256(serialized).hexdigest()

  @property
  def size(self) -> int:
    """Number of pieces."""
    return self._processor.get_piece_size()

  def encode(self, text: str) -> np.ndarray:
    """Returns the token ids (int32) of a text, without EOS."""
    return np.asarray(self._processor.encode(text), np.int32)

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids of each text, without EOS."""
    return [
      np.asarray(ids, np.int32) for ids in self._processor.encode(list(texts))
    ]

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text up to the first EOS.

    PAD is skipped. An id beyond the vocabulary, which a policy with a rounded
    up embedding can draw, reads as UNK.
    """
    return self._processor.decode(self._clean(ids))

  def decode_batch(
    self, rows: Iterable[Sequence[int] | np.ndarray]
  ) -> list[str]:
    """Returns the text of each row, as `decode` does."""
    rows = [self._clean(ids) for ids in rows]
    return self._processor.decode(rows) if rows else []

  def _clean(self, ids: Sequence[int] | np.ndarray) -> list[int]:
    """Cuts at EOS, drops PAD, makes UNK of ids beyond the vocabulary."""
    ids = np.asarray(ids)
    if ids.size == 0:
      return []
    ids = ids[: _first(ids == types.EOS_ID)]
    ids = ids[ids != types.PAD_ID]
    known = (ids >= 0) & (ids < self.size)
    return np.where(known, ids, types.UNK_ID).tolist()


def train(
  config: VocabularyConfig, texts: Iterable[str], path: str | pathlib.Path
) -> Vocabulary:
  """Writes the vocabulary that `config` asks for; atomic, and repeatable.

  The same texts and settings give the same bytes. An existing model is checked
  and copied; the texts are then not read.

  Args:
    config: what to train or copy.
    texts: the task's text, source and reference alike.
    path: where the .model shall be.

  Returns:
    The vocabulary at `path`.

  Raises:
    FileNotFoundError: for a missing model or extra file.
    ValueError: for an unfit model, a size the text cannot fill or that does not
      hold its characters, and for no text at all.
  """
  if config.model_file is not None:
    serialized = _read(config.model_file)
    _load(serialized, config.model_file)
  else:
    text_files.check_files('extra_files', config.extra_files)
    extra = itertools.chain.from_iterable(
      map(text_files.read_lines, config.extra_files)
    )
    serialized = _train(config, itertools.chain(texts, extra))
  with files.atomic_write(path) as temporary:
    temporary.write_bytes(serialized)
  return Vocabulary(path)


def _train(config: VocabularyConfig, texts: Iterable[str]) -> bytes:
  """Returns the bytes of a trained model."""
  chosen = _choose(texts, config.max_texts)
  if not chosen:
    raise ValueError(
      'texts must hold some text to train a vocabulary on; got none. '
      'Check the files of the train split.'
    )
  written = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(chosen),
      model_writer=written,
      vocab_size=config.size,
      character_coverage=config.character_coverage,
      model_type=config.model_type,
      normalization_rule_name=config.normalization_rule,
      num_threads=config.num_threads,
      pad_id=types.PAD_ID,
      eos_id=types.EOS_ID,
      unk_id=types.UNK_ID,
      bos_id=-1,
      minloglevel=_QUIET,
    )
  except RuntimeError as error:
    raise _explain(config, error) from error
  return written.getvalue()


def _choose(texts: Iterable[str], number: int) -> list[str]:
  """Returns the texts that are not blank; a random choice if there are more.

  Sentencepiece reads all of them: long ones are in parts.
  """
  chosen: list[str] = []
  draw = random.Random(0)
  for count, text in enumerate(_readable(texts)):
    if count < number:
      chosen.append(text)
      continue
    # Every text so far stays with the same chance (reservoir sampling).
    place = draw.randrange(count + 1)
    if place < number:
      chosen[place] = text
  return chosen


def _readable(texts: Iterable[str]) -> Iterator[str]:
  for text in texts:
    if _num_bytes(text) <= _MOST_BYTES:
      parts = [text]
    else:
      parts = _cut(text)
    for part in parts:
      part = part.replace(_RESERVED, ' ')
      if part.strip():
        yield part


def _cut(text: str) -> Iterator[str]:
  """Yields the parts of a long text, cut at blanks where there are any."""
  most = _MOST_BYTES // 4  # Of the bytes a character has.
  start = 0
  while start < len(text):
    stop = min(start + most, len(text))
    blank = text.rfind(' ', start, stop)
    if stop < len(text) and blank > start:
      stop = blank
    yield text[start:stop]
    start = stop


def _num_bytes(text: str) -> int:
  try:
    return len(text.encode())
  except UnicodeEncodeError as error:
    raise ValueError(
      'texts must be valid Unicode; one has half of a surrogate pair at '
      f'character {error.start}: {text[:80]!r}. Correct or remove it.'
    ) from error


def _explain(config: VocabularyConfig, error: RuntimeError) -> Exception:
  """Says what sentencepiece's refusal means here."""
  message = str(error)
  largest = re.search(r'size too high .*<= (\d+)', message)
  if largest:
    return SizeError(
      f'size must be at most {largest[1]} for this text; got {config.size}. '
      'Lower it, or add text with extra_files.',
      int(largest[1]),
    )
  smallest = re.search(r'smaller than required_chars\. \d+ vs (\d+)', message)
  if smallest:
    return SizeError(
      f'size must be at least {smallest[1]} to hold every character of this '
      f'text; got {config.size}. Raise it, or lower character_coverage '
      f'(now {config.character_coverage}).',
      int(smallest[1]),
    )
  if 'all_chars_count' in message:
    return ValueError(
      'texts must hold text that is left once it is normalised by '
      f'{config.normalization_rule}; got none. Check the files of the train '
      'split.'
    )
  return ValueError(
    f'sentencepiece could not train a vocabulary from texts: {message} '
    'Check that they hold text, and the settings of VocabularyConfig.'
  )


def _read(path: str | pathlib.Path) -> bytes:
  """Returns the bytes of a model; another kind of file is named."""
  is_missing = not pathlib.Path(path).is_file()
  kind = file_kinds.describe(path)
  if is_missing and not kind:
    text_files.check_files('model_file', [path])
  if kind:
    error = FileNotFoundError if is_missing else ValueError
    raise error(
      f'model_file must be a sentencepiece model, such as spiece.model; {path} '
      f'is {kind}.'
    )
  return pathlib.Path(path).read_bytes()


def _load(
  serialized: bytes, path: str | pathlib.Path
) -> sentencepiece.SentencePieceProcessor:
  """Makes a processor and checks the ids that the framework relies on."""
  try:
    processor = sentencepiece.SentencePieceProcessor(model_proto=serialized)
  except RuntimeError as error:
    raise ValueError(
      f'model_file must be a sentencepiece model; {path} is not, or is damaged. '
      'Fetch it again.'
    ) from error
  found = {name: getattr(processor, name)() for name in _CONTROL_IDS}
  if found != _CONTROL_IDS:
    raise ValueError(
      f'model_file must have {_list_ids(_CONTROL_IDS)}; {path} has '
      f'{_list_ids(found)} (-1: absent). Use a model trained with '
      '--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1, such as those of T5 and '
      'mT5, or leave model_file out to train one.'
    )
  return processor


def _list_ids(ids: dict[str, int]) -> str:
  return ', '.join(f'{name} {value}' for name, value in ids.items())


def _first(found: np.ndarray) -> int:
  """Returns the position of the first True, or the length."""
  return int(found.argmax()) if found.any() else len(found)
