"""Describes a wrong file by its first bytes, for error messages."""

import codecs
import json
import os
import pathlib
import re

from rest_jax.storage import paths

_HEAD_BYTES = 512
_KINDS = (
  (
    rb'version https://git-lfs\.github\.com/',
    'a git-lfs pointer, which stands for the file; run `git lfs pull` there, or '
    'download the file itself',
  ),
  (
    rb'\s*<(!doctype|html|\?xml|head|body)',
    'a web page, such as an error page saved under that name; download the file '
    'again',
  ),
  (rb'GGUF', 'a GGUF file of llama.cpp, which is not read'),
  (rb'PK\x03\x04|\x80[\x02-\x05]', 'a pickle of PyTorch, which is not read'),
  (rb'\x89HDF', 'an HDF5 file of TensorFlow, which is not read'),
  (rb'\x1f\x8b', 'a gzip file; unpack it'),
)


def describe(path: str | os.PathLike[str]) -> str:
  """Returns what a file is and what to do; '' if unknown.

  Args:
    path: the file.
  """
  path = paths.of(path)
  if path.is_dir():
    return 'a folder; name the file inside'
  if not paths.is_remote(path) and path.is_symlink() and not path.exists():
    return 'a link to a file that is not there; download the file'
  if not path.exists():
    return ''
  with path.open('rb') as opened:
    head = opened.read(_HEAD_BYTES)
  if not head:
    return 'empty; download it again'
  for pattern, words in _KINDS:
    if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
      return words
  if head.lstrip()[:1] in (b'{', b'['):
    return _describe_json(path)
  return 'a text file' if _is_text(head) else ''


def _is_text(head: bytes) -> bool:
  try:
    # The last character may be truncated.
    text = codecs.getincrementaldecoder('utf-8')().decode(head)
  except UnicodeDecodeError:
    return False
  return all(c.isprintable() or c in '\t\r\n' for c in text)


def _describe_json(path: pathlib.Path) -> str:
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError):
    return ''
  if isinstance(content, dict) and {'model', 'added_tokens'} <= set(content):
    return (
      'a tokenizer.json of the tokenizers library, which is not read; name the '
      'sentencepiece model that it was made from, mostly called spiece.model'
    )
  return 'a JSON file'
