"""Words of a text, in scripts with and without spaces."""

from collections.abc import Sequence
import re

# Scripts written without spaces; each of their characters counts as a word.
_UNSPACED = '\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef'
_WORD = re.compile(f'[{_UNSPACED}]|[^\\s{_UNSPACED}]+')
_TOKEN = re.compile(f'[{_UNSPACED}]|[^\\W{_UNSPACED}]+|[^\\w\\s]')
_MARKS_BEFORE, _MARKS_AFTER = re.compile(r'^\W+'), re.compile(r'\W+$')
_NEEDLESS_SPACE = re.compile(f'(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])')


def split_words(text: str) -> list[str]:
  """Splits at spaces, and scripts without spaces into characters."""
  return _WORD.findall(text)


def split_tokens(text: str) -> list[str]:
  """Like `split_words`, with each punctuation mark as a token of its own."""
  return _TOKEN.findall(text)


def join_words(words: Sequence[str]) -> str:
  """Joins with spaces, except between characters of scripts without them."""
  return _NEEDLESS_SPACE.sub('', ' '.join(words))


def replace_word(text: str, position: int, new: str) -> str:
  """Replaces one of `split_words`, and keeps all whitespace.

  Args:
    new: the replacement; if empty, the space before it is removed too.
  """
  start, stop = spans(text)[position]
  before, after = text[:start], text[stop:]
  if new:
    return f'{before}{new}{after}'
  return f'{before.rstrip()}{after}' if before.strip() else after.lstrip()


def spans(text: str) -> list[tuple[int, int]]:
  """Returns start and end of each of `split_words`."""
  return [match.span() for match in _WORD.finditer(text)]


def split_marks(word: str) -> tuple[str, str, str]:
  """Returns the marks before a word, the word, and the marks after it."""
  start = len(word) - len(_MARKS_BEFORE.sub('', word))
  core = _MARKS_AFTER.sub('', word[start:])
  return word[:start], core, word[start + len(core) :]


def is_unspaced(character: str) -> bool:
  """Returns whether a character is of a script without spaces."""
  return bool(re.fullmatch(f'[{_UNSPACED}]', character))
