"""Sentencepiece models: reading them, and text with added tokens."""

from collections.abc import Mapping, Sequence
import functools
import pathlib
import re
from typing import Any

import sentencepiece

# Comes with sentencepiece.
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from rest_jax.storage import file_kinds, paths


def read(path: str | pathlib.Path) -> bytes:
  """Returns the bytes of a model; another kind of file is named.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is a file of another kind.
  """
  path = paths.of(path)
  kind = file_kinds.describe(path)
  if path.is_file() and not kind:
    return path.read_bytes()
  error = ValueError if path.is_file() else FileNotFoundError
  raise error(
    f'model_file must be a sentencepiece model, such as spiece.model; {path} is '
    f'{kind or "not there"}.'
  )


def processor(
  serialized: bytes, path: str | pathlib.Path
) -> sentencepiece.SentencePieceProcessor:
  """Returns what cuts text by a model.

  Raises:
    ValueError: if it is none.
  """
  try:
    return sentencepiece.SentencePieceProcessor(model_proto=serialized)
  except RuntimeError as error:
    raise ValueError(
      f'model_file must be a sentencepiece model; {path} is not, or is damaged. '
      'Fetch it again.'
    ) from error


def message(serialized: bytes) -> Any:
  """Returns a model as its protocol buffer."""
  # Its classes are made at import, where type checkers do not see them.
  messages: Any = model_pb2
  return messages.ModelProto.FromString(serialized)


class Cutter:
  """Cuts text by a sentencepiece model, and by tokens added to it.

  An added token that a text spells is that token; what stands between two is
  cut as a text of its own.
  """

  def __init__(
    self,
    model: sentencepiece.SentencePieceProcessor,
    added: Mapping[str, int],
  ):
    """Takes what cuts.

    Args:
      model: cuts the text between.
      added: id of each added token, among those that `encode` returns.
    """
    self.model = model
    self._added = dict(added)
    longest_first = sorted(map(re.escape, added), key=len, reverse=True)
    self._pattern = re.compile('|'.join(longest_first)) if added else None

  def encode(
    self, texts: Sequence[str], convert: Any = None
  ) -> list[list[int]]:
    """Returns the ids of each text.

    Args:
      convert: from the pieces of a text (list[str]) to ids; None for the
        model's own ids.
    """
    cut = functools.partial(self.model.encode, out_type=str if convert else int)
    convert = convert or list
    if self._pattern is None or not any(map(self._pattern.search, texts)):
      return [convert(row) for row in cut(list(texts))]
    return [self._around_added(text, cut, convert) for text in texts]

  def _around_added(self, text: str, cut: Any, convert: Any) -> list[int]:
    assert self._pattern is not None
    ids, at = [], 0
    for found in self._pattern.finditer(text):
      ids += convert(cut(text[at : found.start()]))
      ids.append(self._added[found[0]])
      at = found.end()
    return ids + convert(cut(text[at:]))
