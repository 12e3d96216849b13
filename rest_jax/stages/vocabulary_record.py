"""The vocabulary of a finished stage: its digest, its file, and checks.

Stages that make a policy, a reward or samples record the digest. Earlier
versions recorded the digest of the data, whose folder may be in the same run.
"""

import pathlib
from typing import Any

from absl import logging

from rest_jax.data import prepared_digest, vocabularies
from rest_jax.interop import huggingface_config, t5x_checkpoints
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import prepare
from rest_jax.storage import paths

_MAX_DEPTH = 3  # Depth of a stage's folder in its run.
_SHOWN = 12  # Digits of a digest in messages.


def digest(directory: str | pathlib.Path) -> str | None:
  """Returns the digest of a finished stage's vocabulary; None if unknown."""
  manifest = folder_lib.read_manifest(directory)
  recorded = manifest.get('vocabulary') or {}
  if recorded.get('digest'):
    return recorded['digest']
  if 'vocabulary_digest' in manifest:  # Of a Grow.
    return manifest['vocabulary_digest']
  data = _data_beside(directory, manifest)
  return data.vocabulary.digest if data else None


def languages(directory: str | pathlib.Path) -> vocabularies.Languages:
  """Returns the languages that a finished stage's policy was trained with."""
  recorded = folder_lib.read_manifest(directory).get('vocabulary') or {}
  return vocabularies.Languages(**recorded.get('languages', {}))


def find(
  directory: str | pathlib.Path, given: str | None = None
) -> pathlib.Path | None:
  """Returns the file or folder of the vocabulary of a finished stage.

  Args:
    given: the user's `--vocabulary`; None for none.

  Returns:
    The path; None if none is given and none is found near the policy.

  Raises:
    ValueError: `given` is another vocabulary than the policy's.
  """
  own = digest(directory)
  if given:
    named = vocabularies.Vocabulary(given).digest
    if own not in (None, named):
      raise ValueError(
        f'--vocabulary must be the vocabulary that {directory} was made with '
        f'({own[:_SHOWN]}); {given} is another one ({named[:_SHOWN]}). Leave '
        '--vocabulary out.'
      )
    return paths.of(given)
  if own is None:
    return None
  path = paths.of(directory).absolute()
  data_folders = (parent / 'data' for parent in path.parents[:_MAX_DEPTH])
  for folder in (path, *data_folders):
    candidate = vocabularies.stored(folder)
    if candidate.exists() and vocabularies.Vocabulary(candidate).digest == own:
      return candidate
  return None


def check(
  name: str,
  directory: str | pathlib.Path,
  vocabulary: str | None,
  used: str,
  data: str | None = None,
) -> None:
  """Refuses a folder of another run with another vocabulary.

  Args:
    name: name of the setting of the folder, such as BC_DIR.
    directory: folder of a finished stage; other folders are not checked.
    vocabulary: digest of the run's vocabulary; None if it is not trained yet.
    used: description of the run's vocabulary, for messages.
    data: digest of the run's data; None if they are not prepared.

  Raises:
    ValueError: the vocabularies differ, or the folder is of an imported policy
      without a record, or of a checkpoint that is not imported yet.
  """
  path = paths.of(directory)
  if not folder_lib.is_finished(path):
    for file in (
      huggingface_config.CONFIG_FILE,
      t5x_checkpoints.CHECKPOINT_FILE,
    ):
      if (path / file).is_file():
        raise ValueError(
          f'{name} = {path} must be a finished stage; it is a checkpoint of '
          f'another library ({file}). Import it first: '
          f'rest-jax convert --from={path} --to=...'
        )
    return
  settings = folder_lib.read_manifest(path)['settings']
  own, is_imported = digest(path), 'imported' in settings
  if own is None and is_imported:
    raise ValueError(
      f'{name} = {path} does not say which vocabulary its policy was trained '
      'with: an earlier version imported it. Import it again: '
      f'rest-jax convert --from=... --to={path} --replace, with --vocabulary if '
      'there is no sentencepiece model beside its weights.'
    )
  if own is None:
    if data is not None and settings.get('data') != data:
      logging.warning(
        '%s = %s does not say which vocabulary it was made with; if it is '
        'another than %s, its token ids mean other pieces',
        name,
        path,
        used,
      )
    return
  # A vocabulary that is trained on the same text again is the same.
  if own == vocabulary or (vocabulary is None and not is_imported):
    return
  where = find(path)
  remedy = (
    f'--gin.VocabularyConfig.model_file={where}'
    if where
    else '--gin.DATA_DIR=... with the data that it was made from'
  )
  shown = f' ({vocabulary[:_SHOWN]})' if vocabulary else ''
  raise ValueError(
    f'{name} = {path} has the vocabulary {where or "of its run"} '
    f'({own[:_SHOWN]}), and this run has {used}{shown}: token ids mean other '
    f'pieces. Use the vocabulary that it was made with: {remedy}, in a new '
    '--model_dir.'
  )


def check_samples(
  name: str, directory: str | pathlib.Path, data: prepare.PreparedData
) -> None:
  """Refuses samples of other sources than those of the run's data.

  Args:
    name: name of the setting of the folder, GROW_DIR.
    directory: folder of a finished Grow.
    data: the run's data.

  Raises:
    ValueError: the samples are of other data.
  """
  manifest = folder_lib.read_manifest(directory)
  if not prepared_digest.is_of(
    manifest, data=data.digest, vocabulary=data.vocabulary.digest
  ):
    raise ValueError(
      f'{name} = {directory} has samples of other sources than {data.directory}: '
      'it was made with other text, or other limits of lengths. Set the data '
      'that it was made with: --gin.DATA_DIR=...'
    )


def _data_beside(
  directory: str | pathlib.Path, manifest: dict[str, Any]
) -> prepare.PreparedData | None:
  """Returns the data of a stage if they are in its run's folder."""
  digest_of_data = manifest['settings'].get('data')
  for parent in paths.of(directory).absolute().parents[:_MAX_DEPTH]:
    path = parent / 'data'
    if digest_of_data and folder_lib.is_finished(path):
      data = prepare.load(path)
      if data.digest == digest_of_data:
        return data
  return None
