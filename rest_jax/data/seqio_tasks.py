"""Pairs of a SeqIO task or mixture.

The only module that imports SeqIO and TensorFlow, and only when pairs are read.
Their text is taken as it was before tokenisation: this package tokenises with a
vocabulary of its own.
"""

from collections.abc import Iterator
import dataclasses
import difflib
import importlib
from typing import Any

from rest_jax.data import sources

# Where seqio.preprocessors.tokenize keeps the text it was given.
_PRETOKENIZED = '_pretokenized'

# Only stochastic preprocessors and the order of a mixture depend on it.
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeqioPairs:
  """Pairs of text of a SeqIO task or mixture, in a fixed order.

  Attributes:
    task: name of the registered task or mixture.
    split: name of the split.
    module: module to import first, for what it registers; None if the task is
      registered already.
    limit: read at most this many pairs; None reads all. A mixture needs one: it
      draws from its tasks by their rates without end.
    inputs_key: feature with the source text. `<key>_pretokenized` is taken where
      the task has it.
    targets_key: likewise with the reference; None for sources alone.
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
    if self.split not in task.splits:
      raise ValueError(
        f'split must be one of {sorted(task.splits)} for {self.task!r}; '
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
    return task.get_dataset(
      split=self.split, shuffle=False, seed=_SEED, **options
    )

  def _text_feature(self, spec: Any, argument: str, key: str) -> str:
    """Returns the feature that holds the text of `key`."""
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


def _is_text(feature: Any) -> bool:
  return feature.dtype.name == 'string' and feature.shape.rank == 0


def _import_seqio() -> Any:
  """Imports SeqIO, and keeps TensorFlow off the accelerators."""
  try:
    # An extra, which not every environment has.
    import seqio  # pyright: ignore[reportMissingImports]
    import tensorflow as tf
  except ImportError as error:
    raise ImportError(
      f'SeqIO tasks need SeqIO and TensorFlow: {error}. Install them: '
      'pip install seqio tensorflow-datasets'
    ) from error
  # TensorFlow would take all memory of the GPUs that JAX is to use.
  tf.config.set_visible_devices([], 'GPU')
  return seqio
