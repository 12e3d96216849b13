"""The task: pairs, Grow sources, vocabulary, ratings and judge."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Protocol, runtime_checkable

from rest_jax import settings
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import sources, vocabularies

TRAIN, VALIDATION, TEST, GROW = 'train', 'validation', 'test', 'grow'


@runtime_checkable
class Judge(Protocol):
  """An independent judge of quality, never used in training.

  Any settings of a reward will do, see `rewards.base.RewardConfig`. Its scores
  should be in [0, 1].
  """

  @property
  def name(self) -> str:
    """The name of the judge in results."""
    ...

  @property
  def needs_references(self) -> bool:
    """Whether it compares hypotheses with references."""
    ...

  @property
  def parts(self) -> tuple[Any, ...]:
    """The judges that it consists of; empty for most."""
    ...

  def check(self) -> str:
    """Raises an error if it cannot work."""
    ...

  def load(self, resources: Any) -> Any:
    """Returns what scores hypotheses, see `rewards.base.Reward`."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A sequence-to-sequence task, such as translation.

  Attributes:
    name: name of the task in results.
    train: training pairs of BC, D in the paper.
    validation: pairs for early stopping and the choice of checkpoints.
    test: pairs for final results only.
    more_tests: further test sets by name, such as {'test_2017': ...}. They are
      evaluated if `EvaluateConfig.splits` names them.
    vocabulary: the vocabulary of both sides.
    grow: other sources for the Grow steps, with or without references; None for
      those of `train`.
    max_source_length: maximum tokens with EOS; longer pairs are dropped.
    max_target_length: maximum tokens with EOS; longer pairs are dropped.
    max_length_ratio: pairs whose longer side has more than this many times the
      tokens of the shorter are dropped; None keeps them.
    ratings: ratings from which the reward model learns.
    judge: an independent judge, if there is one.
  """

  name: str
  train: sources.PairSource
  validation: sources.PairSource
  test: sources.PairSource
  vocabulary: vocabularies.VocabularyConfig
  more_tests: Mapping[str, sources.PairSource] | None = settings.added(
    default=None
  )
  grow: sources.PairSource | None = None
  max_source_length: int = 128
  max_target_length: int = 128
  max_length_ratio: float | None = None
  ratings: ratings_lib.RatingsSource | None = None
  judge: Judge | None = None

  @property
  def languages(self) -> vocabularies.Languages:
    """Languages of the text; `OF_EACH_PAIR` if its pairs name their own."""
    parts = sources.parts(self.train)
    if any(map(sources.names_languages, parts)):
      return vocabularies.OF_EACH_PAIR
    return self.vocabulary.languages

  def __post_init__(self):
    if not self.name:
      raise ValueError("name must not be empty; got ''.")
    for name in self.more_tests or ():
      is_word = isinstance(name, str) and name.isidentifier()
      if not is_word or name in (TRAIN, VALIDATION, TEST, GROW):
        raise ValueError(
          'more_tests must name test sets by letters, digits and "_", other '
          f'than {TRAIN}, {VALIDATION}, {TEST} and {GROW}; got {name!r}.'
        )
    for split, source in self.splits.items():
      if not isinstance(source, sources.PairSource):
        raise TypeError(
          f'{split} must be a source of pairs, such as sources.ParallelText; '
          f'got {source!r}.'
        )
    for field, expected in (
      ('vocabulary', vocabularies.VocabularyConfig),
      ('ratings', ratings_lib.RatingsSource | None),
      ('judge', Judge | None),
    ):
      if not isinstance(getattr(self, field), expected):
        raise TypeError(
          f'{field} must be {expected}; got {getattr(self, field)!r}.'
        )
    self._check_languages()
    for field in ('max_source_length', 'max_target_length'):
      if getattr(self, field) < 2:
        raise ValueError(
          f'{field} must be at least 2, a token and EOS; '
          f'got {getattr(self, field)}.'
        )
    if self.max_length_ratio is not None and self.max_length_ratio < 1:
      raise ValueError(
        'max_length_ratio is longer over shorter and must be at least 1; '
        f'got {self.max_length_ratio}.'
      )

  def _check_languages(self) -> None:
    """Raises ValueError unless all text has languages of its own, or none."""
    parts = [
      (split, part)
      for split, source in self.splits.items()
      for part in sources.parts(source)
    ]
    named = [sources.names_languages(part) for _, part in parts]
    if not any(named):
      return
    if not all(named):
      split, part = parts[named.index(False)]
      raise ValueError(
        f'{split} must name the languages of all of its text, as other text of '
        f'this task has its own; this source names none: {str(part)[:200]}. Set '
        'its `languages`, or the language columns of TsvText.'
      )
    if self.vocabulary.languages != vocabularies.Languages():
      raise ValueError(
        'source_language and target_language of the vocabulary must be None '
        'where the pairs of text name their own languages; got '
        f'{self.vocabulary.languages.name}. Leave SOURCE_LANGUAGE and '
        'TARGET_LANGUAGE out.'
      )
    if self.vocabulary.model_file is None:
      raise ValueError(
        'only a given tokeniser has languages: VocabularyConfig.model_file must '
        'name one where the pairs of text name languages; got None.'
      )

  @property
  def splits(self) -> dict[str, sources.PairSource]:
    """The pairs by the names of their splits; `grow` only if there is one."""
    named = {
      TRAIN: self.train,
      VALIDATION: self.validation,
      TEST: self.test,
      **(self.more_tests or {}),
    }
    return named if self.grow is None else {**named, GROW: self.grow}
