"""Vocabularies: trained from the task's text by sentencepiece, or given."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import pathlib
import random
import re

import numpy as np
import sentencepiece

from rest_jax import settings
from rest_jax.data import special_ids as ids_lib
from rest_jax.data import text_files
from rest_jax.data.tokenizers import base, kinds, pieces
from rest_jax.storage import files

# Sentencepiece logs from INFO (0) up; errors arrive as exceptions as well.
_QUIET = 3
# Sentencepiece drops longer sentences from the text it learns from, silently,
# and those with the character that it keeps for unknown pieces.
_MOST_BYTES = 4192
_RESERVED = '\u2585'
# In the folder that holds a vocabulary: one sentencepiece model, or a tokeniser's
# files.
FILE, FOLDER = 'vocab.model', 'vocabulary'

Languages = base.Languages


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
  """A vocabulary to be trained, or an existing one.

  Attributes:
    model_file: an existing sentencepiece .model, or a folder with the files of a
      tokeniser in Hugging Face's layout; the fields from `size` on are then
      unused. None trains one.
    source_language: code of the sources' language, such as 'deu_Latn', for a
      tokeniser that stands it beside them; None for one that does not.
    target_language: likewise of the targets.
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
  source_language: str | None = settings.added(default=None)
  target_language: str | None = settings.added(default=None)

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
    named = [self.source_language, self.target_language]
    if self.model_file is None and any(named):
      raise ValueError(
        'source_language and target_language must be None where a vocabulary is '
        f'trained; got {named}. Only a given tokeniser (model_file) has languages.'
      )

  @property
  def languages(self) -> Languages:
    return Languages(self.source_language, self.target_language)


class SizeError(ValueError):
  """Text cannot fill a vocabulary, or does not fit into it.

  Attributes:
    bound: the nearest size that is possible.
  """

  def __init__(self, message: str, bound: int):
    super().__init__(message)
    self.bound = bound


@dataclasses.dataclass(frozen=True)
class Side:
  """How sources, or targets, become token ids.

  Attributes:
    encode_batch: returns the token ids of each text, without special ids.
    before: special ids before those of a text, such as its language.
    after: special ids after them, such as EOS.
  """

  encode_batch: Callable[[Sequence[str]], list[np.ndarray]]
  before: tuple[int, ...] = ()
  after: tuple[int, ...] = (ids_lib.T5.eos,)

  @property
  def num_special(self) -> int:
    """Number of special ids of each row."""
    return len(self.before) + len(self.after)

  def complete(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the ids of a text (int32) with the special ids around them."""
    parts = (self.before, ids, self.after)
    return np.concatenate([np.asarray(part, np.int32) for part in parts])


_NO_LANGUAGES = Languages()


class Encoder:
  """Text to token ids; both sides alike, EOS at their ends.

  Attributes:
    special_ids: ids that are no pieces of text.
  """

  special_ids: ids_lib.SpecialIds = ids_lib.T5

  @property
  def size(self) -> int:
    """Number of ids."""
    raise NotImplementedError

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids (int32) of each text, without special ids."""
    raise NotImplementedError

  @property
  def source(self) -> Side:
    """How sources become token ids."""
    return Side(self.encode_batch, after=(self.special_ids.eos,))

  @property
  def target(self) -> Side:
    """How targets become token ids."""
    return Side(self.encode_batch, after=(self.special_ids.eos,))


class Vocabulary(Encoder):
  """Text to token ids and back; see `Side` for the special ids of a row.

  Attributes:
    path: where it was read from.
    digest: of its files; what ids mean depends on nothing else.
    special_ids: with the languages that are set.
    languages: codes of the languages that are set.
  """

  def __init__(
    self, path: str | pathlib.Path, languages: Languages = _NO_LANGUAGES
  ):
    """Reads a sentencepiece model, or a folder with a tokeniser.

    Args:
      path: the model, or a folder in Hugging Face's layout.
      languages: of the two sides, for a tokeniser that stands them around text.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a file is damaged or of another kind, or the tokeniser has
        no such language.
      ImportError: if the tokeniser needs a library that is not installed.
    """
    self.path = pathlib.Path(path)
    self.languages = languages
    self._tokenizer = kinds.read(path)
    self.special_ids = self._tokenizer.special_ids_of(languages)
    self.digest = _digest(self.path, self._tokenizer)

  @property
  def files(self) -> tuple[pathlib.Path, ...]:
    """The files that it was read from."""
    return self._tokenizer.files

  @property
  def size(self) -> int:
    """Number of pieces."""
    return self._tokenizer.size

  @property
  def language_codes(self) -> list[str]:
    """Codes of the languages that may be set."""
    return sorted(self._tokenizer.languages)

  @functools.cached_property
  def source(self) -> Side:
    """How sources become token ids.

    Raises:
      ValueError: if the tokeniser needs a language and none is set.
    """
    return self._side(as_target=False)

  @functools.cached_property
  def target(self) -> Side:
    """How targets become token ids; as `source`."""
    return self._side(as_target=True)

  def _side(self, as_target: bool) -> Side:
    around = self._tokenizer.around(self.languages)[as_target]

    def encode_batch(texts: Sequence[str]) -> list[np.ndarray]:
      rows = self._tokenizer.encode(list(texts), as_target)
      return [np.asarray(ids, np.int32) for ids in rows]

    return Side(encode_batch, around.before, around.after)

  def encode(self, text: str) -> np.ndarray:
    """Returns the token ids (int32) of a text, as of a target, without EOS."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids of each text, as of a target, without EOS."""
    rows = self._tokenizer.encode(list(texts), True)
    return [np.asarray(ids, np.int32) for ids in rows]

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text up to the first EOS.

    PAD is skipped. An id beyond the vocabulary, which a policy with a rounded
    up embedding can draw, reads as UNK.
    """
    return self.decode_batch([ids])[0]

  def decode_batch(
    self, rows: Iterable[Sequence[int] | np.ndarray]
  ) -> list[str]:
    """Returns the text of each row, as `decode` does."""
    return self._tokenizer.decode([self._clean(ids) for ids in rows])

  def _clean(self, ids: Sequence[int] | np.ndarray) -> list[int]:
    """Cuts at EOS, drops PAD, makes UNK of ids beyond the vocabulary."""
    ids, special = np.asarray(ids), self.special_ids
    if ids.size == 0:
      return []
    ids = ids[: _first(ids == special.eos)]
    ids = ids[ids != special.pad]
    known = (ids >= 0) & (ids < self.size)
    if special.unk is None:
      return ids[known].tolist()
    return np.where(known, ids, special.unk).tolist()


def stored(directory: str | pathlib.Path) -> pathlib.Path:
  """Returns the path of the vocabulary that a stage's folder holds."""
  folder = pathlib.Path(directory) / FOLDER
  return folder if folder.is_dir() else pathlib.Path(directory) / FILE


def copy(vocabulary: Vocabulary, directory: str | pathlib.Path) -> None:
  """Copies the files of a vocabulary into a stage's folder; see `stored`."""
  directory = pathlib.Path(directory)
  if vocabulary.path.is_dir():
    targets = {
      path: directory / FOLDER / path.name for path in vocabulary.files
    }
  else:
    targets = {vocabulary.path: directory / FILE}
  for path, target in targets.items():
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(target) as temporary:
      temporary.write_bytes(path.read_bytes())


def make(
  config: VocabularyConfig,
  texts: Iterable[str],
  directory: str | pathlib.Path,
) -> Vocabulary:
  """Writes the vocabulary of a task into a stage's folder; see `train`."""
  if config.model_file is None:
    train(config, texts, pathlib.Path(directory) / FILE)
  else:
    copy(Vocabulary(config.model_file, config.languages), directory)
  return Vocabulary(stored(directory), config.languages)


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
    serialized = pieces.read(config.model_file)
    Vocabulary(config.model_file)  # Raises if something is wrong with it.
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
      pad_id=ids_lib.T5.pad,
      eos_id=ids_lib.T5.eos,
      unk_id=ids_lib.T5.unk,
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


def _digest(path: pathlib.Path, tokenizer: base.Tokenizer) -> str:
  """Of the bytes of a file, or of what the ids of a folder mean.

  Settings of a model beside its tokeniser do not count.
  """
  if not path.is_dir():
    return files.sha256(path)
  described = {
    'files': {
      file.name: files.sha256(file)
      for file in tokenizer.files
      if file.name not in base.SETTINGS_FILES
    },
    'size': tokenizer.size,
    'special_ids': dataclasses.asdict(tokenizer.special_ids),
    'languages': dict(tokenizer.languages),
  }
  text = json.dumps(described, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _first(found: np.ndarray) -> int:
  """Returns the position of the first True, or the length."""
  return int(found.argmax()) if found.any() else len(found)
