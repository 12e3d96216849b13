"""Guards: simple rules that veto hypotheses which may fool a reward model.

Each detects one known failure: a hypothesis that is too long or too short,
repeats itself, copies the source, or is in the source's language.

Source: ReST (arXiv 2308.08998), A.4, lists such failures as "unit tests" of a
reward model. Vetoing samples by them is ours.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float32
import numpy as np

from rest_jax import settings
from rest_jax.data import pair_store
from rest_jax.data import words as words_lib
from rest_jax.rewards import base, language, normalize
from rest_jax.rewards import peers as peers_lib

# (sources, hypotheses) -> whether each hypothesis passes, bool [n].
Passes = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@runtime_checkable
class Guard(Protocol):
  """The settings of a guard, a frozen dataclass that gin builds."""

  @property
  def name(self) -> str:
    """Name of the guard in column names."""
    ...

  def prepare(self, pairs: pair_store.PairStore) -> Passes:
    """Prepares the guard from D; returns the function that applies it."""
    ...


class _Rule:
  """A guard that checks one source and hypothesis at a time."""

  def prepare(self, pairs: pair_store.PairStore) -> Passes:
    del pairs
    return lambda sources, hypotheses: np.asarray(
      [self.passes(*texts) for texts in zip(sources, hypotheses, strict=True)],
      bool,
    )

  def passes(self, source: str, hypothesis: str) -> bool:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthRatio(_Rule):
  """Vetoes by characters of the hypothesis over characters of the source.

  Attributes:
    low: smallest ratio that passes, at least 0.
    high: largest ratio that passes. Languages differ: English has about three
      times the characters of the same text in Chinese.
  """

  low: float = 0.4
  high: float = 2.5
  name = 'length_ratio'

  def __post_init__(self):
    if not 0.0 <= self.low < self.high:
      raise ValueError(
        f'low and high must satisfy 0 <= low < high; got {self.low} and '
        f'{self.high}.'
      )

  def passes(self, source: str, hypothesis: str) -> bool:
    ratio = len(hypothesis) / max(len(source), 1)
    return self.low <= ratio <= self.high


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repetition(_Rule):
  """Vetoes a hypothesis with too many repeated word n-grams.

  The share is (n-grams - distinct n-grams) / n-grams, or 0 with fewer than two
  n-grams. Characters of scripts without spaces count as words.

  Attributes:
    order: n.
    max_share: largest share that passes, in [0, 1).
  """

  order: int = 2
  max_share: float = 0.3
  name = 'repetition'

  def __post_init__(self):
    settings.at_least(self, 1, 'order')
    settings.inside(self, '[0, 1)', 'max_share')

  def passes(self, source: str, hypothesis: str) -> bool:
    del source
    words = words_lib.split_words(hypothesis.casefold())
    grams = list(zip(*(words[i:] for i in range(self.order)), strict=False))
    if len(grams) < 2:
      return True
    repeated = len(grams) - len(set(grams))
    return repeated / len(grams) <= self.max_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceCopy(_Rule):
  """Vetoes a hypothesis with too many words of the source.

  Attributes:
    max_share: largest share of its words that passes, in [0, 1).
    min_words: hypotheses with fewer words pass, since a name is often its own
      translation.
  """

  max_share: float = 0.6
  min_words: int = 4
  name = 'source_copy'

  def __post_init__(self):
    settings.inside(self, '[0, 1)', 'max_share')
    settings.at_least(self, 1, 'min_words')

  def passes(self, source: str, hypothesis: str) -> bool:
    words = words_lib.split_words(hypothesis.casefold())
    if len(words) < self.min_words:
      return True
    known = set(words_lib.split_words(source.casefold()))
    return sum(word in known for word in words) / len(words) <= self.max_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
  """Vetoes a hypothesis in the language of the sources.

  A naive Bayes classifier of character n-grams, trained on the two sides of D;
  see `language.TwoSides`. It does not know third languages.

  Attributes:
    order: length of the n-grams.
    min_evidence: smallest log-odds for the references' language that passes, in
      nats per n-gram.
    min_characters: shorter hypotheses pass, since they are little evidence.
    max_pairs: number of pairs of D to train on, evenly spread.
  """

  order: int = 3
  min_evidence: float = 0.0
  min_characters: int = 15
  max_pairs: int = 20_000
  name = 'language'

  def __post_init__(self):
    settings.at_least(self, 1, 'order', 'min_characters', 'max_pairs')

  def prepare(self, pairs: pair_store.PairStore) -> Passes:
    count = min(self.max_pairs, len(pairs))
    rows = np.linspace(0, len(pairs) - 1, count).round().astype(int)
    classifier = language.TwoSides(
      [pairs.source_text(int(row)) for row in rows],
      [pairs.reference_text(int(row)) for row in rows],
      order=self.order,
    )

    def passes(sources: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
      del sources
      return np.asarray(
        [
          len(text) < self.min_characters
          or classifier.evidence(text) >= self.min_evidence
          for text in hypotheses
        ],
        bool,
      )

    return passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarded(base.NeedsOfParts):
  """A reward under guards; a vetoed hypothesis gets `floor`.

  A vetoed sample is below all others and never trained on. Mean rewards include
  it at `floor`; the scale of the run does not. Each guard has a column in the
  store, `<name>_<guard>`: 1 if the sample passes, otherwise 0.

  Attributes:
    reward: reward of hypotheses that pass.
    guards: at least one guard.
    floor: raw reward of vetoed hypotheses. A reward that is not above it stops
      the stage; if `reward` has no bound, leave a margin.
    name: name of the guarded reward.
  """

  reward: base.RewardConfig
  guards: tuple[Guard, ...]
  floor: float
  name: str = 'guarded'

  def __post_init__(self):
    settings.make_tuples(self, 'guards')
    for guard in self.guards:
      if not isinstance(guard, Guard):
        raise TypeError(f'guards must be guards; got {guard!r}.')
    names = [guard.name for guard in self.guards]
    if not names or len(set(names)) < len(names):
      raise ValueError(
        f'guards must be at least one, each kind once; got {names}.'
      )
    if not np.isfinite(self.floor):
      raise ValueError(f'floor must be a finite number; got {self.floor}.')
    base.check_names(self)

  @property
  def parts(self) -> tuple[base.RewardConfig, ...]:
    return (self.reward,)

  def check(self) -> str:
    names = ', '.join(guard.name for guard in self.guards)
    return f'{self.reward.name}, or {self.floor:g} where vetoed by {names}'

  def load(self, resources: base.Resources) -> 'GuardedReward':
    return GuardedReward(
      self,
      self.reward.load(resources),
      {
        f'{self.name}_{guard.name}': guard.prepare(resources.pairs)
        for guard in self.guards
      },
    )


class GuardedReward(base.Composed):
  """A reward with vetoes."""

  def __init__(
    self, config: Guarded, reward: base.Reward, guards: dict[str, Passes]
  ):
    """Takes a loaded reward and prepared guards by column name."""
    described = [settings.describe(guard) for guard in config.guards]
    unit = normalize.Normalizer(0.0, 1.0)
    super().__init__(
      config.name,
      [reward],
      scales={
        reward.name: unit,
        **base.scales(reward),
        **dict.fromkeys(guards, unit),
      },
      digest=base.digest_of([described, config.floor, reward.digest]),
      floor=config.floor,
    )
    self._floor = np.float32(config.floor)
    self._reward = reward
    self._guards = guards

  def columns(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
    peers: peers_lib.Peers | None = None,
  ) -> dict[str, Float32[np.ndarray, ' n']]:
    """Returns the guarded reward, the reward and its parts, and each guard."""
    parts = base.columns(self._reward, sources, hypotheses, references, peers)
    passed = {
      name: passes(sources, hypotheses).astype(np.float32)
      for name, passes in self._guards.items()
    }
    vetoed = np.any([column == 0.0 for column in passed.values()], axis=0)
    rewards = parts[self._reward.name]
    self._check_floor(sources, hypotheses, rewards, ~vetoed)
    guarded = np.where(vetoed, self._floor, rewards)
    return {self.name: guarded.astype(np.float32), **parts, **passed}

  def _check_floor(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    rewards: Float32[np.ndarray, ' n'],
    passing: Bool[np.ndarray, ' n'],
  ) -> None:
    """Raises ValueError if a reward that passes is not above the floor."""
    low = np.flatnonzero(passing & (rewards <= self._floor))
    if low.size:
      first = int(low[0])
      raise ValueError(
        f'floor of {self.name!r} must be below every reward; it is '
        f'{self.floor:g}, and {self._reward.name!r} gave {rewards[first]:g} at '
        f'position {first} ({low.size} such among {len(rewards)}), for the '
        f'source {sources[first][:120]!r} and the hypothesis '
        f'{hypotheses[first][:120]!r}. Lower Guarded.floor.'
      )
