"""Special ids are named in one place."""

import pathlib
import re

import rest_jax
from rest_jax import types
from rest_jax.data import special_ids

_ROOT = pathlib.Path(rest_jax.__file__).parent
_NAMES = re.compile(r'\b(PAD|EOS|UNK|BOS|DECODER_START)_ID\b')
_NUMBERS = re.compile(r'\b(tokens?|targets|\w*ids|previous)\]? (==|!=) [0-3]\b')
# What reads the files of a family knows its ids.
_OF_FAMILIES = ('data/special_ids.py', 'data/tokenizers/', 'interop/')


def test_no_module_names_a_special_id():
  assert not [name for name in vars(types) if name.endswith('_ID')]
  found = []
  for path in sorted(_ROOT.rglob('*.py')):
    name = path.relative_to(_ROOT).as_posix()
    if name.startswith(_OF_FAMILIES):
      continue
    text = path.read_text(encoding='utf-8')
    found += [f'{name}: {m[0]}' for m in _NAMES.finditer(text)]
    found += [f'{name}: {m[0]}' for m in _NUMBERS.finditer(text)]
  assert not found


def test_the_defaults_are_those_of_t5():
  ids = special_ids.T5
  assert (ids.pad, ids.eos, ids.unk, ids.decoder_start) == (0, 1, 2, 0)
  assert ids.undrawable == (0, 2)
