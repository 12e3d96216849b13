"""Words of a text, in scripts with and without spaces."""

from collections.abc import Sequence
import re

# Scripts written without spaces; each of their characters counts as a word.
_UNSPACED = '\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef'
_WORD = re.compile(f'[{_UNSPACED}]|[^\\s{_UNSPACED}]+')
_NEEDLESS_SPACE = re.compile(f'(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])')


def split_words(text: str) -> list[str]:
  """Splits at spaces, and scripts without spaces into characters."""
  return _WORD.findall(text)


def join_words(words: Sequence[str]) -> str:
  """Joins by spaces, save between characters of a script without them."""
  return _NEEDLESS_SPACE.sub('', ' '.join(words))
