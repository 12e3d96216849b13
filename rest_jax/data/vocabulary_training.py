"""Vocabularies to be: their settings, and training by sentencepiece."""

from collections.abc import Iterable, Iterator
import dataclasses
import io
import random
import re

import sentencepiece

from rest_jax import settings
from rest_jax.data import special_ids, text_files
from rest_jax.data.tokenizers import base

# Sentencepiece logs from INFO (0) up; errors arrive as exceptions as well.
_QUIET = 3
# Sentencepiece drops longer sentences from the text it learns from, silently,
# and those with the character that it keeps for unknown pieces.
_MOST_BYTES = 4192
_RESERVED = '\u2585'


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
  def languages(self) -> base.Languages:
    return base.Languages(self.source_language, self.target_language)


class SizeError(ValueError):
  """Text cannot fill a vocabulary, or does not fit into it.

  Attributes:
    bound: the nearest size that is possible.
  """

  def __init__(self, message: str, bound: int):
    super().__init__(message)
    self.bound = bound


def train(config: VocabularyConfig, texts: Iterable[str]) -> bytes:
  """Returns the bytes of a sentencepiece model trained on texts."""
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
      pad_id=special_ids.T5.pad,
      eos_id=special_ids.T5.eos,
      unk_id=special_ids.T5.unk,
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
