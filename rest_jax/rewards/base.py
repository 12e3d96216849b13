"""The interface of all rewards R(x, y), and their common checks."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Float32
import numpy as np

from rest_jax import settings
from rest_jax.data import pair_store, vocabularies
from rest_jax.models import network
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import normalize
from rest_jax.rewards import peers as peers_lib

# Maximum number of characters of a text in an error message.
_SHOWN = 120

Peers = peers_lib.Peers
# One reference per hypothesis, for rewards that compare with references.
References = Sequence[str] | None


class Reward(Protocol):
  """Scores hypotheses of sources, as text; higher is better.

  A reward R(x, y | y_1..y_N) that compares the samples of a source has, like
  its settings, `needs_samples = True`. Its `score` has a fourth argument,
  `peers`, and raises ValueError without it. The function `score` below calls
  either kind.
  """

  @property
  def name(self) -> str:
    """Name of the reward in file names and results, such as 'learned'."""
    ...

  @property
  def digest(self) -> str:
    """Digest of everything that the rewards depend on, for manifests."""
    ...

  @property
  def needs_references(self) -> bool:
    """Whether `score` needs references."""
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
      hypotheses: n texts, which may be empty.
      references: n human texts, one per hypothesis; ignored by rewards that do
        not need them.

    Returns:
      n finite raw rewards in the order of the inputs.

    Raises:
      ValueError: if the lists differ in length or contain anything but text, or
        references are missing.
      FloatingPointError: if a reward is not finite; the message names the first
        such hypothesis.
    """
    ...


class NeedsOfParts:
  """Base of rewards and of their settings: a reward needs what its parts need.

  Attributes:
    parts: the rewards that it consists of; empty for most.
  """

  parts: Sequence[Any] = ()

  @property
  def needs_references(self) -> bool:
    return any(part.needs_references for part in self.parts)

  @property
  def needs_samples(self) -> bool:
    return any(map(needs_samples, self.parts))


class Composed(NeedsOfParts):
  """Base of rewards that consist of other rewards."""

  def __init__(
    self,
    name: str,
    parts: Sequence[Reward],
    *,
    scales: Mapping[str, normalize.Normalizer],
    digest: str,
    floor: float | None = None,
  ):
    """Takes what `Reward` and the store need.

    Args:
      name: see `Reward`.
      parts: the other rewards.
      scales: scale of each column except its own, by name.
      digest: see `Reward`.
      floor: reward of vetoed samples, below all others; None without vetoes.
    """
    self.name = name
    self.parts = parts
    self.scales = scales
    self.digest = digest
    self.floor = floor

  def columns(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: References = None,
    peers: Peers | None = None,
  ) -> dict[str, Float32[np.ndarray, ' n']]:
    """Returns its rewards by its name, then those of its parts."""
    raise NotImplementedError

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: References = None,
    peers: Peers | None = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `Reward.score`."""
    return self.columns(sources, hypotheses, references, peers)[self.name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
  """Parts of a run that rewards may load.

  Attributes:
    mesh: devices and sharding rules.
    vocabulary: vocabulary of the policy.
    pairs: D.
    network: sizes of the policy.
    policy: folder of the finished BC stage.
    trained: folder of the `reward` stage; finished if a reward is trained.
  """

  mesh: mesh_lib.MeshConfig
  vocabulary: vocabularies.Vocabulary
  pairs: pair_store.PairStore
  network: network.NetworkConfig
  policy: pathlib.Path
  trained: pathlib.Path


@runtime_checkable
class RewardConfig(Protocol):
  """The settings of a reward, a frozen dataclass that gin builds.

  `NeedsOfParts` has the defaults of `parts` and of what a reward needs.
  """

  @property
  def name(self) -> str:
    """The name of the reward, known before it is loaded."""
    ...

  @property
  def needs_references(self) -> bool: ...

  @property
  def parts(self) -> Sequence['RewardConfig']:
    """The rewards that it consists of; empty for most."""
    ...

  def check(self) -> str:
    """Checks all files and settings without loading them.

    Returns:
      A short description for the plan of a run.

    Raises:
      ValueError: if files or settings cannot work.
      FileNotFoundError: if a file is missing.
    """
    ...

  def load(self, resources: Resources) -> Reward:
    """Loads the reward for scoring; raises the errors of `check`."""
    ...


class OwnReward(NeedsOfParts):
  """Base of frozen dataclasses that are both settings and reward."""

  name: str

  def described(self) -> dict[str, Any]:
    """Returns all settings that the rewards depend on."""
    return settings.describe(self)

  @property
  def digest(self) -> str:
    return digest_of(self.described(), sort_keys=True)

  def load(self, resources: Resources) -> Any:
    del resources
    return self


def digest_of(described: Any, *, sort_keys: bool = False) -> str:
  """Returns the SHA-256 of JSON values, in hexadecimal digits."""
  text = json.dumps(described, sort_keys=sort_keys)
  return hashlib.sha256(text.encode()).hexdigest()


def all_parts(config: Any) -> Iterator[Any]:
  """Yields a reward, or its settings, and all its parts."""
  yield config
  for part in getattr(config, 'parts', ()):
    yield from all_parts(part)


def check_agreement(reward: Reward) -> None:
  """Raises ValueError if a learned part of a reward is at chance.

  The attribute `refusal` of a part, if it has one, is the message: why Improve
  steps must not follow it, or None; see `reward_agreement.refusal`.
  """
  for part in all_parts(reward):
    if message := getattr(part, 'refusal', None):
      raise ValueError(message)


def check_names(config: RewardConfig) -> None:
  """Raises unless all parts are rewards with distinct names.

  Raises:
    TypeError: if a part is not a reward.
    ValueError: if a name is used twice, or is not a valid file name.
  """
  for part in config.parts:
    if not isinstance(part, RewardConfig):
      raise TypeError(
        f'{config.name} must consist of rewards; got {part!r}. See '
        'gin_configs/rewards/.'
      )
  names = [part.name for part in all_parts(config)]
  for name in names:
    if not re.fullmatch(r'\w[\w.-]*', name):
      raise ValueError(
        'the name of a reward must consist of letters, digits, _ . and -, and '
        f'not start with . or -; got {name!r}.'
      )
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise ValueError(
      'parts of a reward must have distinct names for their columns in the '
      f'store; got {repeated[0]!r} more than once. Set the name of one.'
    )


def needs_samples(reward: Any) -> bool:
  """Returns whether a reward or its settings need samples of a source."""
  return getattr(reward, 'needs_samples', False)


def score(
  reward: Any,
  sources: Sequence[str],
  hypotheses: Sequence[str],
  references: References = None,
  peers: Peers | None = None,
) -> Float32[np.ndarray, ' n']:
  """Scores with a reward, and with peers if it needs samples."""
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
  """Returns the columns of a reward in the store, its own first.

  Raises:
    FloatingPointError: if a number is not finite; see `check_finite`.
  """
  if isinstance(reward, Composed):
    by_name = reward.columns(sources, hypotheses, references, peers)
  else:
    rewards = score(reward, sources, hypotheses, references, peers)
    by_name = {reward.name: rewards}
  for name, rewards in by_name.items():
    check_finite(name, sources, hypotheses, rewards)
  return by_name


def scales(reward: Reward) -> Mapping[str, normalize.Normalizer]:
  """Returns the scale of each column of `columns` except the reward's own."""
  return reward.scales if isinstance(reward, Composed) else {}


def floor(reward: Reward) -> float | None:
  """Returns the reward of vetoed samples; None without vetoes."""
  return reward.floor if isinstance(reward, Composed) else None


def describe(reward: Reward) -> dict[str, dict[str, Any]]:
  """Returns the description of each column for the manifest of a store."""
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
  """Raises ValueError unless all are lists of texts of equal length."""
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
          f'{type(text).__name__}. Decode token ids, and drop rows without '
          'text.'
        )
  if len(sources) != len(hypotheses):
    raise ValueError(
      'sources and hypotheses must have the same length; got '
      f'{len(sources)} and {len(hypotheses)}. Repeat a source for each of its '
      'hypotheses.'
    )
  if references is not None and len(references) != len(hypotheses):
    raise ValueError(
      'references must have one for each hypothesis; got '
      f'{len(references)} and {len(hypotheses)}. Repeat a reference for each '
      'hypothesis of its source.'
    )


def needed(name: str, references: References) -> Sequence[str]:
  """Returns references; raises ValueError if they are missing."""
  if references is None:
    raise ValueError(
      f'reward {name!r} compares with references, and needs one for each '
      'hypothesis; got none. Grow from pairs with references, or choose a '
      'reward that needs none.'
    )
  return references


def check_finite(
  name: str,
  sources: Sequence[str],
  hypotheses: Sequence[str],
  rewards: Float[np.ndarray, ' n'],
) -> None:
  """Raises FloatingPointError if a reward is NaN or infinite.

  A missing reward must not count as 0, which is a valid reward on the
  normalised scale.

  Args:
    name: name of the reward.
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
      f'{hypotheses[first][:_SHOWN]!r}. Check the parameters of the reward '
      'model; train it again if they are not finite.'
    )
