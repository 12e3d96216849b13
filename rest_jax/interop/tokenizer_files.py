"""The tokenizer of a Hugging Face folder, as a vocabulary and from one.

A T5's is its sentencepiece model; that of another family is its folder, whose files
`data.tokenizers` reads and which are written as they are.

`transformers.AutoTokenizer` loads what is written here. It gives the same ids. Text
that spells a special token, `</s>`, `<pad>` or `<unk>`, is the exception:
transformers reads the token there, this package its letters.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import pathlib
import re
from typing import Any

from rest_jax.data import special_ids, vocabularies
from rest_jax.data.tokenizers import fairseq, kinds, marian, pieces, spm
from rest_jax.interop import huggingface_config
from rest_jax.storage import files

VOCABULARY_FILE = 'spiece.model'
TOKENIZER_FILE = 'tokenizer_config.json'
SPECIAL_TOKENS_FILE = 'special_tokens_map.json'
GENERATION_FILE = huggingface_config.GENERATION_FILE
_ADDED_FILE = 'added_tokens.json'
_ADDED = 'added_tokens_decoder'
_MAX_LENGTH = 128
_NO_LANGUAGES = vocabularies.Languages()
# Settings of generation by the special ids that they are.
_GENERATION_IDS = {
  'decoder_start_token_id': 'decoder_start',
  'pad_token_id': 'pad',
  'eos_token_id': 'eos',
  'forced_bos_token_id': 'forced_first',
}
# Those that the language of targets may be.
_LANGUAGE_IDS = ('forced_bos_token_id', 'decoder_start_token_id')
# Names of sentencepiece models.
_MODELS = (*spm.FILES, fairseq.FILE, marian.SOURCE)
# Both are there in M2M-100 alone.
_M2M_100 = (fairseq.FILE, fairseq.VOCABULARY)
# Families whose vocabulary may be a sentencepiece model alone.
_T5 = ('t5', 'mt5', 'umt5')


def find(
  directory: str | pathlib.Path,
  described: Mapping[str, Any],
  given: str | pathlib.Path | None = None,
) -> pathlib.Path:
  """Returns the vocabulary that a checkpoint was trained with.

  Args:
    directory: of the checkpoint.
    described: its `config.json`.
    given: the vocabulary that the user names, for a folder without one.

  Returns:
    A sentencepiece model, or a folder with a tokenizer: the checkpoint's own.

  Raises:
    FileNotFoundError: there is none, and none is named.
    ValueError: the one named is not the one there, or the one there cannot be
      read.
  """
  directory = pathlib.Path(directory)
  beside = [directory / name for name in _MODELS]
  has_model = any(path.exists() or path.is_symlink() for path in beside)
  if given is not None and not has_model:
    return pathlib.Path(given)
  own = _own(directory, described)
  if own is not None:
    _check_given(own, given)
    return own
  raise FileNotFoundError(
    f'{directory} has no tokenizer beside its weights, such as a sentencepiece '
    f'model ({VOCABULARY_FILE}), by which its token ids are read. Name the one '
    'that it was trained with: --vocabulary=/path/to/spiece.model, or a folder.'
  )


def _own(
  directory: pathlib.Path, described: Mapping[str, Any]
) -> pathlib.Path | None:
  """Returns the vocabulary beside the weights; None if there is none."""
  beside = [directory / name for name in spm.FILES]
  models = [path for path in beside if path.exists() or path.is_symlink()]
  if models and _is_t5(described):
    try:
      size = spm.File(models[0]).size
    except (ValueError, FileNotFoundError):
      return models[0]  # Whoever reads it says what is wrong.
    if not added_tokens(directory, size):
      return models[0]
  try:
    kinds.read(directory)
  except FileNotFoundError:
    return None
  except (ImportError, ValueError) as error:
    raise ValueError(
      f'the tokenizer of {directory} cannot be read: {error}. Or name the one '
      'that it was trained with: --vocabulary=/path/to/spiece.model, or a folder.'
    ) from error
  return directory


def _is_t5(described: Mapping[str, Any]) -> bool:
  """Whether a `config.json` has T5's special ids, and may be of a T5."""
  ids = {
    'pad_token_id': special_ids.T5.pad,
    'eos_token_id': special_ids.T5.eos,
  }
  return described.get('model_type', 't5') in _T5 and all(
    described.get(name, number) == number for name, number in ids.items()
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
  entries = settings.get(_ADDED) or {}
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
  """Raises ValueError if one is named that is not the one there."""
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
  languages: vocabularies.Languages = _NO_LANGUAGES,
) -> None:
  """Writes the files of a tokenizer, and how the policy generates.

  Whatever searches there then leaves out what is never drawn here: PAD, UNK and
  ids beyond the pieces.

  Args:
    directory: the folder of the model.
    vocabulary: the sentencepiece model, or the folder of a tokenizer.
    vocab_size: of the network, at least as large as the vocabulary.
    languages: those that the policy was trained with, which a tokenizer that has
      languages then uses by default; no default for `OF_EACH_PAIR`.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if `T5Tokenizer` would cut text otherwise, or the network is
      too small for the vocabulary.
  """
  directory = pathlib.Path(directory)
  if pathlib.Path(vocabulary).is_dir():
    _write(directory, _of_folder(directory, vocabulary, vocab_size, languages))
    return
  spelt, unk = check(vocabulary, vocab_size), special_ids.T5.unk
  assert unk is not None
  special = {
    'pad_token': spelt[special_ids.T5.pad],
    'eos_token': spelt[special_ids.T5.eos],
    'unk_token': spelt[unk],
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
    **_read_object(directory / GENERATION_FILE),
    'suppress_tokens': [
      special_ids.T5.pad,
      special_ids.T5.unk,
      *range(len(spelt), vocab_size),
    ],
    'max_length': _MAX_LENGTH,
  }
  contents = {
    TOKENIZER_FILE: _json(described),
    SPECIAL_TOKENS_FILE: _json(special),
    GENERATION_FILE: _json(generation),
    VOCABULARY_FILE: pathlib.Path(vocabulary).read_bytes(),
  }
  _write(directory, contents)


def _of_folder(
  directory: pathlib.Path,
  vocabulary: str | pathlib.Path,
  vocab_size: int,
  languages: vocabularies.Languages,
) -> dict[str, bytes]:
  """Returns the files of a tokenizer's folder, and how the policy generates."""
  check(vocabulary, vocab_size)
  is_mixed = languages == vocabularies.OF_EACH_PAIR
  read = vocabularies.Vocabulary(
    vocabulary, languages if is_mixed else _NO_LANGUAGES
  )
  contents = {
    path.name: path.read_bytes()
    for path in read.files
    if path.name != huggingface_config.CONFIG_FILE
  }
  # The network's ids, where its files are written.
  config = _read_object(directory / huggingface_config.CONFIG_FILE)
  config |= _read_object(directory / GENERATION_FILE)
  ids = dataclasses.asdict(read.special_ids)
  generation = {
    name: config.get(name, ids[field])
    for name, field in _GENERATION_IDS.items()
    if config.get(name, ids[field]) is not None
  }
  generation['suppress_tokens'] = [
    *read.special_ids.undrawable,
    *range(read.size, vocab_size),
  ]
  generation['max_length'] = _MAX_LENGTH
  contents[GENERATION_FILE] = _json(generation)
  started = {generation.get(name) for name in _LANGUAGE_IDS}
  codes = {
    'src_lang': None if is_mixed else languages.source,
    'tgt_lang': next(
      (code for code, i in read.language_ids.items() if i in started), None
    ),
  }
  said = {name: code for name, code in codes.items() if code is not None}
  said |= _listed(read, vocab_size)
  if said:
    settings = _read_object(read.path / TOKENIZER_FILE)
    contents[TOKENIZER_FILE] = _json({**settings, **said})
  return contents


def _listed(
  vocabulary: vocabularies.Vocabulary, vocab_size: int
) -> dict[str, Any]:
  """Settings of M2M-100's tokenizer that list its languages, for CTranslate2."""
  folder = vocabulary.path
  if not all((folder / name).is_file() for name in _M2M_100):
    return {}
  flags = dict.fromkeys(
    ('lstrip', 'normalized', 'rstrip', 'single_word'), False
  )
  given = _read_object(folder / TOKENIZER_FILE).get(_ADDED) or {}
  languages = {
    str(number): {'content': f'__{code}__', 'special': True, **flags}
    for code, number in vocabulary.language_ids.items()
  }
  return {
    _ADDED: given | languages,
    # Ids of the network that mean nothing.
    'num_madeup_words': vocab_size - vocabulary.size,
  }


def _json(content: Any) -> bytes:
  return (json.dumps(content, indent=2, sort_keys=True) + '\n').encode()


def _write(directory: pathlib.Path, contents: Mapping[str, bytes]) -> None:
  with contextlib.ExitStack() as stack:  # They appear once all are written.
    for name, content in contents.items():
      path = stack.enter_context(files.atomic_write(directory / name))
      path.write_bytes(content)


def check(vocabulary: str | pathlib.Path, vocab_size: int) -> list[str]:
  """Returns the pieces of a model; see `write` for what it refuses.

  Of a tokenizer's folder, none.
  """
  read = vocabularies.Vocabulary(vocabulary)  # Special ids, or an error.
  if vocab_size < read.size:
    raise ValueError(
      f'vocabulary must have at most the {vocab_size} pieces of the network; '
      f'{vocabulary} has {read.size}.'
    )
  if read.path.is_dir():
    return []
  model = pieces.message(read.path.read_bytes())
  trainer, normalizer = model.trainer_spec, model.normalizer_spec
  for name, value, expected in (
    ('model_type', trainer.model_type, trainer.UNIGRAM),
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
