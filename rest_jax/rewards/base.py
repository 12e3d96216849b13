"""The interface of every reward R(x, y), and the checks that all share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Float32, Int64
import numpy as np

from rest_jax import settings
from rest_jax.data import pair_store, vocabularies
from rest_jax.models import network
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import normalize

# Characters of a text that an error message shows.
_SHOWN = 120

# A reference for each hypothesis, where a reward compares with one.
References = Sequence[str] | None

# Stored samples of a source, by its row: the same for all policies compared.
Evidence = Callable[[int], Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peers:
  """The samples of each source, by which a reward may judge a hypothesis.

  Attributes:
    samples: for each group the samples of one source, repeated as they were
      drawn.
    group: int64 [n], the group of each hypothesis.
    is_member: bool [n], whether a hypothesis is itself one of its group's
      samples; it is then left out once.
  """

  samples: Sequence[Sequence[str]]
  group: Int64[np.ndarray, ' n']
  is_member: Bool[np.ndarray, ' n']

  @classmethod
  def own(
    cls,
    ids: Sequence[int] | np.ndarray,
    hypotheses: Sequence[str],
    is_sample: Bool[np.ndarray, ' n'] | None = None,
  ) -> 'Peers':
    """Takes the hypotheses of each source as their own group.

    Args:
      ids: int [n], the source of each hypothesis.
      hypotheses: n texts.
      is_sample: bool [n], which of them are samples; the others, such as
        references, belong to no group but are judged by it. None for all.
    """
    numbers, group = np.unique(np.asarray(ids), return_inverse=True)
    group = group.astype(np.int64)
    if is_sample is None:
      is_sample = np.ones(len(hypotheses), bool)
    samples: list[list[str]] = [[] for _ in numbers]
    for row in np.flatnonzero(is_sample).tolist():
      samples[group[row]].append(hypotheses[row])
    return cls(samples=samples, group=group, is_member=is_sample)

  @classmethod
  def fixed(
    cls, ids: Sequence[int] | np.ndarray, evidence: Evidence
  ) -> 'Peers':
    """Takes stored samples of each source, of which no hypothesis is one.

    Args:
      ids: int [n], the source of each hypothesis.
      evidence: gives the samples of a source.
    """
    numbers, group = np.unique(np.asarray(ids), return_inverse=True)
    return cls(
      samples=[evidence(number) for number in numbers.tolist()],
      group=group.astype(np.int64),
      is_member=np.zeros(len(group), bool),
    )


class Reward(Protocol):
  """Scores hypotheses of sources, as text; higher is better."""

  @property
  def name(self) -> str:
    """The word for it in file names and results, such as 'learned'."""
    ...

  @property
  def digest(self) -> str:
    """Of all that its rewards depend on, for the manifests of what it scored."""
    ...

  @property
  def needs_references(self) -> bool:
    """Whether `score` has to be given references."""
    ...

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis of the source at the same position.

    Args:
      sources: n texts.
      hypotheses: n texts; an empty one is a hypothesis like any other.
      references: n texts by people, one for each hypothesis; unused by a
        reward that does not need them.

    Returns:
      n finite rewards in the order of the inputs, unit of the reward.

    Raises:
      ValueError: if the lists differ in length or hold something but text, or
        references are missing.
      FloatingPointError: if a reward is not finite; the message names the first
        such hypothesis.
    """
    ...


class GroupReward(Protocol):
  """A reward R(x, y | y_1..y_N), which compares the samples of a source.

  It is a `Reward` but for what `score` takes, and for `needs_samples`, which the
  settings of such a reward have as well. `score` below calls either.
  """

  @property
  def needs_samples(self) -> bool:
    """Whether `score` has to be given the samples of each source."""
    ...

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: References = None,
    peers: Peers | None = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis of the source at the same position.

    Args:
      sources: see `Reward.score`.
      hypotheses: see `Reward.score`.
      references: see `Reward.score`.
      peers: the samples of each source; None is refused.

    Returns:
      See `Reward.score`.

    Raises:
      ValueError: also if peers are missing.
    """
    ...


@runtime_checkable
class Composed(Protocol):
  """What a reward made of others has beside `Reward`."""

  @property
  def scales(self) -> Mapping[str, normalize.Normalizer]:
    """The scale of each column but its own, by name."""
    ...

  @property
  def floor(self) -> float | None:
    """The reward of what is vetoed, below all others; None without vetoes."""
    ...

  def columns(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: References = None,
    peers: Peers | None = None,
  ) -> dict[str, Float32[np.ndarray, ' n']]:
    """Its own rewards by its name, then all that they were made of."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
  """What a run offers to the rewards that it loads.

  Attributes:
    mesh: devices and rules.
    vocabulary: of the policy.
    pairs: D.
    network: sizes of the policy.
    policy: the folder of BC, finished.
    trained: the folder of stage `reward`; finished where a reward is trained.
  """

  mesh: mesh_lib.MeshConfig
  vocabulary: vocabularies.Vocabulary
  pairs: pair_store.PairStore
  network: network.NetworkConfig
  policy: pathlib.Path
  trained: pathlib.Path


@runtime_checkable
class RewardConfig(Protocol):
  """The settings of a reward, a frozen dataclass that gin builds."""

  @property
  def name(self) -> str:
    """The name of the reward, known before it is loaded."""
    ...

  @property
  def needs_references(self) -> bool: ...

  @property
  def parts(self) -> tuple['RewardConfig', ...]:
    """The rewards that it is made of; empty for most."""
    ...

  def check(self) -> str:
    """Looks at all that it reads, without loading it.

    Returns:
      A few words for the plan of a run.

    Raises:
      ValueError: for files or settings that cannot work.
      FileNotFoundError: for a file that is not there.
    """
    ...

  def load(self, resources: Resources) -> Reward:
    """Makes the reward ready to score; raises what `check` raises."""
    ...


class OwnReward:
  """The base of frozen dataclasses that are settings and reward in one."""

  name: str
  needs_references = False
  parts: tuple[RewardConfig, ...] = ()

  def described(self) -> dict[str, Any]:
    """Returns all that its rewards depend on."""
    return settings.describe(self)

  @property
  def digest(self) -> str:
    text = json.dumps(self.described(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def load(self, resources: Resources) -> Any:
    del resources
    return self


def all_parts(config: RewardConfig) -> Iterator[RewardConfig]:
  """Yields a reward's settings, and those of all that it is made of."""
  yield config
  for part in config.parts:
    yield from all_parts(part)


def check_names(config: RewardConfig) -> None:
  """Raises unless all parts are rewards that files can tell apart.

  Raises:
    TypeError: if a part is no reward.
    ValueError: if a name is taken twice, or no name for a file.
  """
  for part in config.parts:
    if not isinstance(part, RewardConfig):
      raise TypeError(
        f'{config.name} must be made of rewards; got {part!r}. See '
        'gin_configs/rewards/.'
      )
  names = [part.name for part in all_parts(config)]
  for name in names:
    if not re.fullmatch(r'\w[\w.-]*', name):
      raise ValueError(
        'the name of a reward must be letters, digits, and _ . - after those; '
        f'got {name!r}.'
      )
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(
      'each part of a reward needs a name of its own for its column of the '
      f'store; got {twice[0]!r} more than once. Set the name of one.'
    )


def needs_samples(reward: Any) -> bool:
  """Whether a reward, or that of settings, compares samples of a source."""
  return getattr(reward, 'needs_samples', False)


def score(
  reward: Any,
  sources: Sequence[str],
  hypotheses: Sequence[str],
  references: References = None,
  peers: Peers | None = None,
) -> Float32[np.ndarray, ' n']:
  """Scores by a `Reward` or a `GroupReward`, which alone is given peers."""
  if needs_samples(reward):
    return reward.score(sources, hypotheses, references, peers)
  return reward.score(sources, hypotheses, references)


def columns(
  reward: Reward,
  sources: Sequence[str],
  hypotheses: Sequence[str],
  references: References = None,
  peers: Peers | None = None,
) -> dict[str, Float32[np.ndarray, ' n']]:
  """All columns of the store that a reward has something for, its own first.

  Raises:
    FloatingPointError: if any number is not finite; see `check_finite`.
  """
  if not isinstance(reward, Composed):
    found = {reward.name: score(reward, sources, hypotheses, references, peers)}
  elif needs_samples(reward):
    found = reward.columns(sources, hypotheses, references, peers)
  else:
    found = reward.columns(sources, hypotheses, references)
  for name, rewards in found.items():
    check_finite(name, sources, hypotheses, rewards)
  return found


def scales(reward: Reward) -> Mapping[str, normalize.Normalizer]:
  """The scale of each column of `columns` but the reward's own."""
  return reward.scales if isinstance(reward, Composed) else {}


def floor(reward: Reward) -> float | None:
  """The reward of what is vetoed; None where nothing is."""
  return reward.floor if isinstance(reward, Composed) else None


def describe(reward: Reward) -> dict[str, dict[str, Any]]:
  """What the manifest of a store says of each of its columns."""
  own: dict[str, Any] = {'digest': reward.digest}
  if floor(reward) is not None:
    own['floor'] = floor(reward)
  parts = {
    name: {'scale': scale.to_json()} for name, scale in scales(reward).items()
  }
  return {reward.name: own, **parts}


def check_texts(
  sources: Sequence[str],
  hypotheses: Sequence[str],
  references: References = None,
) -> None:
  """Raises ValueError unless all are lists of text of one length."""
  given = {'sources': sources, 'hypotheses': hypotheses}
  if references is not None:
    given['references'] = references
  for name, texts in given.items():
    if isinstance(texts, str):
      raise ValueError(
        f'{name} must be a list of texts; got the single text '
        f'{texts[:_SHOWN]!r}. Put it into a list.'
      )
    for position, text in enumerate(texts):
      if not isinstance(text, str):
        raise ValueError(
          f'{name} must hold texts; position {position} is {text!r} of type '
          f'{type(text).__name__}. Decode token ids, and drop rows that have '
          'no text.'
        )
  if len(sources) != len(hypotheses):
    raise ValueError(
      'sources and hypotheses must have one length, a source for each '
      f'hypothesis; got {len(sources)} and {len(hypotheses)}. Repeat a source '
      'for each of its hypotheses.'
    )
  if references is not None and len(references) != len(hypotheses):
    raise ValueError(
      'references must have one for each hypothesis; got '
      f'{len(references)} and {len(hypotheses)}. Repeat a reference for each '
      'hypothesis of its source.'
    )


def needed(name: str, references: References) -> Sequence[str]:
  """Returns references, or raises ValueError where a reward lacks them."""
  if references is None:
    raise ValueError(
      f'reward {name!r} compares with references, and needs one for each '
      'hypothesis; got none. Grow from pairs with references, or choose a '
      'reward without them.'
    )
  return references


def needed_peers(
  name: str, peers: Peers | None, hypotheses: Sequence[str]
) -> Peers:
  """Returns peers, or raises ValueError where a reward lacks them.

  Args:
    name: name of the reward.
    peers: the samples of each source, if there are any.
    hypotheses: n texts.
  """
  if peers is None:
    raise ValueError(
      f'reward {name!r} compares the samples of a source with each other, and '
      'needs those of each hypothesis; got none. Give peers, see '
      'rest_jax.rewards.base.Peers, or choose a reward of single hypotheses.'
    )
  if not len(peers.group) == len(peers.is_member) == len(hypotheses):
    raise ValueError(
      'peers must say the group of each hypothesis, and whether it is a member; '
      f'got {len(peers.group)} and {len(peers.is_member)} for '
      f'{len(hypotheses)} hypotheses.'
    )
  return peers


def check_finite(
  name: str,
  sources: Sequence[str],
  hypotheses: Sequence[str],
  rewards: Float[np.ndarray, ' n'],
) -> None:
  """Raises FloatingPointError if a reward is NaN or infinite.

  A missing reward is never read as 0: on a normalised scale that is a rating
  like any other.

  Args:
    name: of the reward.
    sources: n texts.
    hypotheses: n texts.
    rewards: n numbers.
  """
  bad = np.flatnonzero(~np.isfinite(rewards))
  if bad.size:
    first = int(bad[0])
    raise FloatingPointError(
      f'reward {name!r} must be finite; it is {rewards[first]} at position '
      f'{first} ({bad.size} such among {len(rewards)}), for the source '
      f'{sources[first][:_SHOWN]!r} and the hypothesis '
      f'{hypotheses[first][:_SHOWN]!r}. Look at the parameters of the reward '
      'model; train it again if they are not finite.'
    )
