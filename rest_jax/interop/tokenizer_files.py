"""A run's vocabulary as the tokenizer of a Hugging Face folder.

`transformers.AutoTokenizer` then loads `T5Tokenizer`, which gives the same ids,
EOS at the end: PAD, EOS and UNK are 0, 1 and 2 there as here.
"""

import json
import pathlib
import shutil
from typing import Any

# Comes with sentencepiece.
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from rest_jax import types
from rest_jax.data import vocabularies

VOCABULARY_FILE = 'spiece.model'
TOKENIZER_FILE = 'tokenizer_config.json'
SPECIAL_TOKENS_FILE = 'special_tokens_map.json'
GENERATION_FILE = 'generation_config.json'


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
  pieces = _check(vocabulary)
  if vocab_size < len(pieces):
    raise ValueError(
      f'vocabulary must have at most the {vocab_size} pieces of the network; '
      f'{vocabulary} has {len(pieces)}.'
    )
  special = {
    'pad_token': pieces[types.PAD_ID],
    'eos_token': pieces[types.EOS_ID],
    'unk_token': pieces[types.UNK_ID],
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
    'decoder_start_token_id': types.DECODER_START_ID,
    'pad_token_id': types.PAD_ID,
    'eos_token_id': types.EOS_ID,
    'suppress_tokens': [
      types.PAD_ID,
      types.UNK_ID,
      *range(len(pieces), vocab_size),
    ],
    'max_length': 128,
  }
  directory.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(vocabulary, directory / VOCABULARY_FILE)
  for name, content in (
    (TOKENIZER_FILE, described),
    (SPECIAL_TOKENS_FILE, special),
    (GENERATION_FILE, generation),
  ):
    (directory / name).write_text(
      json.dumps(content, indent=2, sort_keys=True) + '\n', encoding='utf-8'
    )


def _check(vocabulary: str | pathlib.Path) -> list[str]:
  """Returns the pieces of a model that `T5Tokenizer` reads as it is meant."""
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
  return [piece.piece for piece in model.pieces]
