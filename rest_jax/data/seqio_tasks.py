"""SeqIO tasks as pairs of a run, and a run's data as SeqIO tasks.

From other tasks and mixtures the text before tokenisation is read, since this
package tokenises with its own vocabulary. Conversely, `register_pairs` and
`register_store` make tasks of prepared pairs and of D_g, with tokens, for T5X
and other SeqIO trainers.

SeqIO and TensorFlow are imported only on use.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import difflib
import importlib
import math
import os
from typing import Any

import numpy as np

from rest_jax.data import sources, stored_rows, vocabularies

# Suffix under which seqio.preprocessors.tokenize keeps the text.
_PRETOKENIZED = '_pretokenized'

# Affects only stochastic preprocessors and the order of a mixture.
_SEED = 0

# TFDS's default folder, and the variable that sets another.
_TFDS_DIR = '~/tensorflow_datasets'
_TFDS_VARIABLE = 'TFDS_DATA_DIR'

# Tasks registered here, by name, and their settings.
_registered: dict[str, dict[str, Any]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeqioPairs:
  """Pairs of text of a SeqIO task or mixture, in a fixed order.

  Attributes:
    task: name of the registered task or mixture.
    split: name of the split.
    module: module to import first, which registers the task; None if it is
      already registered.
    limit: read at most this many pairs; None reads all. Required for a mixture,
      which is endless.
    inputs_key: feature with the source text; `<key>_pretokenized` is used if it
      exists.
    targets_key: the same for the reference; None for sources only.
  """

  task: str
  split: str = 'train'
  module: str | None = None
  limit: int | None = None
  inputs_key: str = 'inputs'
  targets_key: str | None = 'targets'

  def __post_init__(self):
    if not self.task:
      raise ValueError('task must name a SeqIO task or mixture; got none.')
    if self.limit is not None and self.limit < 1:
      raise ValueError(
        f'limit must be at least 1; got {self.limit}. Leave it out to read all.'
      )

  def read(self) -> Iterator[sources.Pair]:
    """Yields the pairs.

    Raises:
      ImportError: if SeqIO, TensorFlow or `module` cannot be imported.
      ValueError: for an unknown task, split or feature, a mixture without
        `limit`, a feature that is not text, or invalid UTF-8.
    """
    dataset = self._dataset(_import_seqio())
    spec = dataset.element_spec
    inputs = self._text_feature(spec, 'inputs_key', self.inputs_key)
    targets = None
    if self.targets_key is not None:
      targets = self._text_feature(spec, 'targets_key', self.targets_key)
    keys = [key for key in (inputs, targets) if key is not None]
    if self.limit is not None:
      dataset = dataset.take(self.limit)
    dataset = dataset.map(lambda example: [example[key] for key in keys])
    for index, texts in enumerate(dataset.as_numpy_iterator()):
      source, *reference = (self._decode(text, index) for text in texts)
      yield sources.Pair(source, reference[0] if reference else None)

  def _dataset(self, seqio: Any) -> Any:
    """Returns the examples of the split, preprocessed but not shuffled."""
    if self.module is not None:
      importlib.import_module(self.module)
    names = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
    if self.task not in names:
      raise ValueError(
        f'no SeqIO task or mixture is named {self.task!r}; the nearest are '
        f'{difflib.get_close_matches(self.task, names, cutoff=0.4)} of '
        f'{len(names)}. Name the module that registers it in module; got '
        f'{self.module!r}.'
      )
    task = seqio.get_mixture_or_task(self.task)
    with _explained(seqio, task):
      splits = task.splits
    if self.split not in splits:
      raise ValueError(
        f'split must be one of {sorted(splits)} for {self.task!r}; '
        f'got {self.split!r}.'
      )
    options: dict[str, Any] = {'num_epochs': 1}
    if isinstance(task, seqio.Mixture):
      if self.limit is None:
        raise ValueError(
          f'limit must be given for the mixture {self.task!r}: a mixture draws '
          'from its tasks by their rates without end.'
        )
      keys = [self.inputs_key, self.targets_key or self.inputs_key]
      options = {
        'num_epochs': None,
        'passthrough_features': keys + [key + _PRETOKENIZED for key in keys],
      }
    with _explained(seqio, task):
      return task.get_dataset(
        split=self.split, shuffle=False, seed=_SEED, **options
      )

  def _text_feature(self, spec: Any, argument: str, key: str) -> str:
    """Returns the feature that contains the text of `key`."""
    for name in (key + _PRETOKENIZED, key):
      if name in spec and _is_text(spec[name]):
        return name
    found = {name: feature.dtype.name for name, feature in spec.items()}
    raise ValueError(
      f'{argument} must name a feature of {self.task!r} with one text; got '
      f'{key!r}, and the features are {found}. Tokenise with '
      'seqio.preprocessors.tokenize, which keeps the text, or name another '
      'feature.'
    )

  def _decode(self, text: bytes, index: int) -> str:
    try:
      return text.decode('utf-8')
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{self.task!r}, split {self.split!r}, example {index} (from 0) is not '
        f'valid UTF-8: {error}.'
      ) from error


def register_store(
  name: str,
  grow_directory: stored_rows.PathLike,
  *,
  threshold: float = -math.inf,
  reward_name: str | None = None,
  data_directory: stored_rows.PathLike | None = None,
  include_references: bool = True,
  include_unfinished: bool = False,
  reference_weight: float = 1.0,
) -> str:
  """Registers the rows of D_g above a reward threshold as a SeqIO task.

  Its split is 'train'; `stored_rows` describes an example. Examples are in the
  order of the store, or shuffled as a whole by the seed. Registering it again
  with the same settings has no effect.

  Args:
    name: name of the task.
    grow_directory: for this and the other arguments see `stored_rows.of_store`.

  Returns:
    The name, by which SeqIO and T5X find the task.

  Raises:
    FileNotFoundError: if the Grow step or its data do not exist.
    ImportError: if SeqIO or TensorFlow is not installed.
    ValueError: if the store does not fit, or another task has the name.
  """
  settings = {
    'grow_directory': grow_directory,
    'threshold': threshold,
    'reward_name': reward_name,
    'data_directory': data_directory,
    'include_references': include_references,
    'include_unfinished': include_unfinished,
    'reference_weight': reference_weight,
  }
  return _register(name, settings, lambda: stored_rows.of_store(**settings))


def register_pairs(name: str, data_directory: stored_rows.PathLike) -> str:
  """Registers a run's prepared pairs as a SeqIO task, with all splits.

  Args:
    name: name of the task.
    data_directory: a finished `data/` folder.

  Returns:
    The name; see `register_store`.

  Raises:
    FileNotFoundError: if the folder is not finished.
    ImportError: if SeqIO or TensorFlow is not installed.
    ValueError: if another task has the name.
  """
  settings = {'data_directory': data_directory}
  return _register(name, settings, lambda: stored_rows.of_pairs(**settings))


def vocabulary(data_directory: stored_rows.PathLike) -> Any:
  """Returns a run's vocabulary as a `seqio.SentencePieceVocabulary`.

  It equals the vocabulary of the registered tasks; SeqIO compares them by path.

  Args:
    data_directory: a finished `data/` folder.
  """
  path = stored_rows.vocabulary_path(data_directory)
  if path.is_dir():
    raise ValueError(
      f'data_directory must have a sentencepiece model alone, as T5X reads it; '
      f'{data_directory} has the tokeniser of another family ({path}). Prepare '
      "the data with a T5's vocabulary."
    )
  vocabularies.Vocabulary(path)  # Raises if something is wrong with it.
  return _import_seqio().SentencePieceVocabulary(str(path), extra_ids=0)


def _register(
  name: str,
  settings: dict[str, Any],
  read: Callable[[], stored_rows.StoredRows],
) -> str:
  """Registers a task of stored rows, once; returns its name."""
  seqio = _import_seqio()
  if name in seqio.TaskRegistry.names():
    if _registered.get(name) != settings:
      raise ValueError(
        f'name must be that of no other SeqIO task; {name!r} is registered '
        'already, with other settings. Choose another.'
      )
    return name
  stored = read()
  splits = stored.splits
  feature = seqio.Feature(vocabulary(stored.data_directory))
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: _dataset(
        splits[split], shuffle_files, seed
      ),
      splits=tuple(splits),
      num_input_examples={split: rows.count for split, rows in splits.items()},
    ),
    # The data is already tokenised, with EOS.
    preprocessors=[],
    output_features={'inputs': feature, 'targets': feature},
  )
  _registered[name] = settings
  return name


def _dataset(
  rows: stored_rows.Rows, is_shuffled: bool, seed: int | None
) -> Any:
  """Returns a `tf.data.Dataset` of the rows."""
  # Optional; the registration has already imported it.
  import tensorflow as tf  # pyright: ignore[reportMissingImports]

  signature = {
    key: tf.TensorSpec([], tf.string)
    if isinstance(value, str)
    else tf.TensorSpec([None] * value.ndim, value.dtype)
    for key, value in rows.example(0).items()
  }

  def examples():
    order = np.arange(rows.count)
    if is_shuffled:
      order = np.random.default_rng(seed).permutation(rows.count)
    return map(rows.example, order.tolist())

  return tf.data.Dataset.from_generator(examples, output_signature=signature)


@contextlib.contextmanager
def _explained(seqio: Any, task: Any) -> Iterator[None]:
  """Adds what to run, and where, if TFDS data is missing."""
  try:
    yield
  except Exception as error:
    tasks = task.tasks if isinstance(task, seqio.Mixture) else [task]
    loaders = [
      part.source.tfds_dataset
      for part in tasks
      if isinstance(part.source, seqio.TfdsDataSource)
    ]
    if not loaders:
      raise
    place = os.environ.get(_TFDS_VARIABLE, _TFDS_DIR)
    commands = [
      f"tfds.load('{loader.name}', data_dir='{loader.data_dir or place}')"
      for loader in loaders
    ]
    raise FileNotFoundError(
      f'the data of {task.name!r} cannot be read: {error}. They are of TFDS, '
      'which makes them where there is a network; run there, and bring the '
      'folder to the same place here:\n  python -c "import tensorflow_datasets '
      f'as tfds; {"; ".join(commands)}"'
    ) from error


def _is_text(feature: Any) -> bool:
  return feature.dtype.name == 'string' and feature.shape.rank == 0


def _import_seqio() -> Any:
  """Imports SeqIO, and keeps TensorFlow off the accelerators."""
  try:
    # Optional; not every environment has it.
    import seqio  # pyright: ignore[reportMissingImports]
    import tensorflow as tf
  except ImportError as error:
    raise ImportError(
      f'SeqIO tasks need SeqIO and TensorFlow: {error}. Install them: '
      'pip install seqio tensorflow-datasets'
    ) from error
  # TensorFlow would reserve all memory of the GPUs for itself.
  tf.config.set_visible_devices([], 'GPU')
  return seqio
