"""The tokenizer of a Hugging Face folder, as a vocabulary and from one.

`transformers.AutoTokenizer` loads `T5Tokenizer` from what is written here. It
gives the same ids, EOS at the end: PAD, EOS and UNK are 0, 1 and 2 there as here.
Text that spells a special token, `</s>`, `<pad>` or `<unk>`, is the exception:
transformers reads the token there, sentencepiece and this package its letters.
"""

from collections.abc import Mapping
import contextlib
import json
import pathlib
import re
from typing import Any

# Comes with sentencepiece.
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from rest_jax.data import special_ids, vocabularies
from rest_jax.interop import huggingface_config
from rest_jax.storage import files

VOCABULARY_FILE = 'spiece.model'
TOKENIZER_FILE = 'tokenizer_config.json'
SPECIAL_TOKENS_FILE = 'special_tokens_map.json'
GENERATION_FILE = huggingface_config.GENERATION_FILE
# Sentencepiece models by the names that folders of Hugging Face have for them.
_MODELS = (
  VOCABULARY_FILE,
  'sentencepiece.model',
  'tokenizer.model',
  'spm.model',
  'sentencepiece.bpe.model',
)
# Tokenizers of other kinds.
_OTHERS = (
  'tokenizer.json',
  'vocab.json',
  'vocab.txt',
  'source.spm',
  'target.spm',
  'merges.txt',
)
_ADDED_FILE = 'added_tokens.json'
_BYTES = 'ByT5Tokenizer'
# 256 bytes, 3 special ids and 125 sentinels.
_BYTE_VOCAB_SIZE = 384


def find(
  directory: str | pathlib.Path,
  described: Mapping[str, Any],
  given: str | pathlib.Path | None = None,
) -> pathlib.Path:
  """Returns the sentencepiece model that a checkpoint was trained with.

  Args:
    directory: of the checkpoint.
    described: its `config.json`.
    given: the model that the user names, for a folder without one.

  Raises:
    FileNotFoundError: there is none, and none is named.
    ValueError: the one named is not the one there, or the checkpoint reads
      bytes.
  """
  directory = pathlib.Path(directory)
  beside = [directory / name for name in _MODELS]
  found = [path for path in beside if path.exists() or path.is_symlink()]
  if found:
    _check_given(found[0], given)
    return found[0]
  settings = _read_object(directory / TOKENIZER_FILE)
  classes = [said.get('tokenizer_class') for said in (settings, described)]
  size = described.get('vocab_size')
  if _BYTES in classes or (size == _BYTE_VOCAB_SIZE and given is None):
    raise ValueError(
      f'{directory} must have a sentencepiece model; it seems to be a ByT5, '
      f'which reads bytes (vocab_size {size}, tokenizer_class '
      f'{classes[0] or classes[1]}). No vocabulary here reads bytes: use a T5, '
      'mT5 or umT5. If it is none, name its sentencepiece model: '
      '--vocabulary=/path/to/spiece.model.'
    )
  if given is not None:
    return pathlib.Path(given)
  others = [name for name in _OTHERS if (directory / name).exists()]
  there = f' Its {", ".join(others)} cannot be read.' if others else ''
  raise FileNotFoundError(
    f'{directory} has no sentencepiece model ({VOCABULARY_FILE}) beside its '
    f'weights, by which its token ids are read.{there} Name the one that it was '
    'trained with: --vocabulary=/path/to/spiece.model.'
  )


def added_tokens(directory: str | pathlib.Path, size: int) -> list[str]:
  """Returns tokens that a folder adds to its sentencepiece model.

  Sentinels, `<extra_id_0>` and so on, are left out.

  Args:
    directory: of the checkpoint.
    size: pieces of the model.
  """
  directory = pathlib.Path(directory)
  settings = _read_object(directory / TOKENIZER_FILE)
  entries = settings.get('added_tokens_decoder') or {}
  found = {entry['content']: int(key) for key, entry in entries.items()}
  found |= _read_object(directory / _ADDED_FILE)
  return [
    token
    for token, number in found.items()
    if number >= size and not re.fullmatch(r'<extra_id_\d+>', token)
  ]


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object; {} if there is no file, or another value in it."""
  content = files.read_json(path) if path.is_file() else {}
  return content if isinstance(content, dict) else {}


def _check_given(found: pathlib.Path, given: str | pathlib.Path | None) -> None:
  """Raises ValueError if a model is named that is not the one there."""
  if given is None:
    return
  digests = [vocabularies.Vocabulary(path).digest for path in (found, given)]
  if digests[0] != digests[1]:
    raise ValueError(
      f'--vocabulary must be the vocabulary of the policy, {found} '
      f'({digests[0][:12]}); {given} is another one ({digests[1][:12]}). Leave '
      '--vocabulary out.'
    )


def write(
  directory: str | pathlib.Path,
  vocabulary: str | pathlib.Path,
  vocab_size: int,
) -> None:
  """Writes the files of a tokenizer, and how the policy generates.

  Whatever searches there then leaves out what is never drawn here: PAD, UNK and
  ids beyond the pieces.

  Args:
    directory: the folder of the model.
    vocabulary: the sentencepiece model.
    vocab_size: of the network, at least as large as the vocabulary.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if `T5Tokenizer` would cut text otherwise, or the network is
      too small for the vocabulary.
  """
  directory = pathlib.Path(directory)
  pieces = check(vocabulary, vocab_size)
  special = {
    'pad_token': pieces[special_ids.T5.pad],
    'eos_token': pieces[special_ids.T5.eos],
    'unk_token': pieces[special_ids.T5.unk],
  }
  described = {
    **special,
    'tokenizer_class': 'T5Tokenizer',
    # None of its sentinels: ids beyond the pieces mean nothing.
    'extra_ids': 0,
    'additional_special_tokens': [],
    'clean_up_tokenization_spaces': False,
  }
  generation = {
    'decoder_start_token_id': special_ids.T5.decoder_start,
    'pad_token_id': special_ids.T5.pad,
    'eos_token_id': special_ids.T5.eos,
    'suppress_tokens': [
      special_ids.T5.pad,
      special_ids.T5.unk,
      *range(len(pieces), vocab_size),
    ],
    'max_length': 128,
  }
  texts = {
    name: json.dumps(content, indent=2, sort_keys=True) + '\n'
    for name, content in (
      (TOKENIZER_FILE, described),
      (SPECIAL_TOKENS_FILE, special),
      (GENERATION_FILE, generation),
    )
  }
  contents = {name: text.encode() for name, text in texts.items()}
  contents[VOCABULARY_FILE] = pathlib.Path(vocabulary).read_bytes()
  with contextlib.ExitStack() as stack:  # They appear once all are written.
    for name, content in contents.items():
      path = stack.enter_context(files.atomic_write(directory / name))
      path.write_bytes(content)


def check(vocabulary: str | pathlib.Path, vocab_size: int) -> list[str]:
  """Returns the pieces of a model; see `write` for what it refuses."""
  vocabularies.Vocabulary(vocabulary)  # PAD, EOS and UNK, or an error.
  # Its classes are made at import, where type checkers do not see them.
  message: Any = model_pb2
  model = message.ModelProto.FromString(pathlib.Path(vocabulary).read_bytes())
  trainer, normalizer = model.trainer_spec, model.normalizer_spec
  for name, value, expected in (
    ('model_type', trainer.model_type, message.TrainerSpec.UNIGRAM),
    ('byte_fallback', trainer.byte_fallback, False),
    ('add_dummy_prefix', normalizer.add_dummy_prefix, True),
    ('remove_extra_whitespaces', normalizer.remove_extra_whitespaces, True),
  ):
    if value != expected:
      raise ValueError(
        f'{name} of the sentencepiece model {vocabulary} must be {expected} '
        f'for the T5Tokenizer of transformers; got {value}. Export without a '
        "tokenizer: --vocabulary=''."
      )
  if vocab_size < len(model.pieces):
    raise ValueError(
      f'vocabulary must have at most the {vocab_size} pieces of the network; '
      f'{vocabulary} has {len(model.pieces)}.'
    )
  return [piece.piece for piece in model.pieces]
