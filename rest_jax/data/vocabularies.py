"""Vocabularies: trained from the task's text by sentencepiece, or given."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib

import numpy as np

from rest_jax.data import special_ids as ids_lib
from rest_jax.data import text_files, vocabulary_training
from rest_jax.data.tokenizers import base, kinds, pieces
from rest_jax.storage import files, paths

# In the folder that holds a vocabulary: one sentencepiece model, or a tokeniser's
# files.
FILE, FOLDER = 'vocab.model', 'vocabulary'

Languages = base.Languages
OF_EACH_PAIR = base.OF_EACH_PAIR
VocabularyConfig = vocabulary_training.VocabularyConfig
SizeError = vocabulary_training.SizeError


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

  def sides(self, languages: Languages | None) -> tuple[Side, Side]:
    """Returns how sources and targets in some languages become token ids.

    The sides of all languages differ in special ids alone, not in their number.

    Args:
      languages: those that a pair of text names; None if it names none.

    Raises:
      ValueError: if the tokeniser has no such language, or the pair must name
        languages, or may not.
    """
    if languages is not None:
      raise ValueError(f'text may not name languages; got {languages.name}.')
    return self.source, self.target


class Vocabulary(Encoder):
  """Text to token ids and back; see `Side` for the special ids of a row.

  Attributes:
    path: where it was read from.
    digest: of its files; what ids mean depends on nothing else.
    special_ids: with the languages that are set.
    languages: codes of the languages that are set; `OF_EACH_PAIR` if each pair
      of text names its own.
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
    self.path = paths.of(path)
    self.languages = languages
    self._tokenizer = kinds.read(path)
    if languages == OF_EACH_PAIR and not self._tokenizer.languages:
      raise ValueError(
        f'pairs of text may not name languages, as the tokeniser {path} has no '
        'language codes. Leave `languages` and the language columns of their '
        'sources out.'
      )
    if languages != _NO_LANGUAGES and not self._tokenizer.languages:
      raise ValueError(
        'source_language and target_language must be None, as the tokeniser '
        f'{path} has no language codes; got {languages.source!r} and '
        f'{languages.target!r}. Leave SOURCE_LANGUAGE and TARGET_LANGUAGE out.'
      )
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
  def language_ids(self) -> Mapping[str, int]:
    """Ids of the languages that may be set, by their codes."""
    return self._tokenizer.languages

  @property
  def needs_languages(self) -> bool:
    """Whether text cannot be tokenised before languages are set."""
    try:
      self._tokenizer.around(Languages())
    except ValueError:
      return True
    return False

  @functools.cached_property
  def source(self) -> Side:
    """How sources become token ids.

    Raises:
      ValueError: if the tokeniser needs a language and none is set, or each
        pair names its own.
    """
    return self.sides(None)[0]

  @functools.cached_property
  def target(self) -> Side:
    """How targets become token ids; as `source`."""
    return self.sides(None)[1]

  def sides(self, languages: Languages | None) -> tuple[Side, Side]:
    """Returns how sources and targets become token ids; see `Encoder`."""
    must_name = self.languages == OF_EACH_PAIR
    if must_name and languages is None:
      raise ValueError(
        'text must name its languages, as the pairs of this task do; this text '
        'names none.'
      )
    if languages is not None and not must_name:
      raise ValueError(
        f'text may not name languages here; got {languages.name}. Set '
        '`languages` of all sources of pairs, or leave them out and set '
        'SOURCE_LANGUAGE and TARGET_LANGUAGE. A source of another kind must have '
        'an attribute `languages`.'
      )
    languages = languages or self.languages

    def side(as_target: bool) -> Side:
      around = self._tokenizer.around(languages)[as_target]

      def encode_batch(texts: Sequence[str]) -> list[np.ndarray]:
        rows = self._tokenizer.encode(list(texts), as_target)
        return [np.asarray(ids, np.int32) for ids in rows]

      return Side(encode_batch, around.before, around.after)

    return side(False), side(True)

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
  folder = paths.of(directory) / FOLDER
  return folder if folder.is_dir() else paths.of(directory) / FILE


def copy(vocabulary: Vocabulary, directory: str | pathlib.Path) -> None:
  """Copies the files of a vocabulary into a stage's folder; see `stored`."""
  directory = paths.of(directory)
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
  languages: Languages | None = None,
) -> Vocabulary:
  """Writes the vocabulary of a task into a stage's folder; see `train`.

  Args:
    languages: those of the task's text; None for those of `config`.
  """
  languages = languages or config.languages
  if config.model_file is None:
    train(config, texts, paths.of(directory) / FILE)
  else:
    copy(Vocabulary(config.model_file, languages), directory)
  return Vocabulary(stored(directory), languages)


def train(
  config: VocabularyConfig, texts: Iterable[str], path: str | pathlib.Path
) -> Vocabulary:
  """Writes the vocabulary that `config` asks for; atomic, and repeatable.

  The same texts and settings give the same bytes. An existing model is checked
  and copied; the texts are then not read.

  Args:
    config: what to train or copy.
    texts: the task's text, source and reference alike.

  Raises:
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
    serialized = vocabulary_training.train(
      config, itertools.chain(texts, extra)
    )
  with files.atomic_write(path) as temporary:
    temporary.write_bytes(serialized)
  return Vocabulary(path)


def _digest(path: pathlib.Path, tokenizer: base.Tokenizer) -> str:
  """Of the bytes of a file, or of what the ids of a folder mean.

  How decoding starts, and settings of the model, do not count.
  """
  if not path.is_dir():
    return files.sha256(path)
  special = tokenizer.special_ids
  described = {
    'files': {
      file.name: files.sha256(file)
      for file in tokenizer.files
      if file.name not in base.SETTINGS_FILES
    },
    'size': tokenizer.size,
    'special_ids': [special.pad, special.eos, special.unk],
    'languages': dict(tokenizer.languages),
  }
  text = json.dumps(described, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _first(found: np.ndarray) -> int:
  """Returns the position of the first True, or the length."""
  return int(found.argmax()) if found.any() else len(found)
