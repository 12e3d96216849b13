"""Settings chosen by measured facts: one pure function per number.

All constants are ours. They are close to those of the experiments in
gin_configs/ and are not tuned.
"""

from collections.abc import Mapping
import dataclasses
import math

import numpy as np

SIZES = ('tiny', 'small', 'base')
# Name of a reward -> its file in gin_configs/rewards/.
REFERENCES = 'references_likelihood'
REWARDS = {
  REFERENCES: 'references_likelihood',
  'chrf': 'chrf',
  'learned': 'learned_within_likelihood',
  'features': 'features_consensus',
  'consensus': 'consensus',
}
# Those that need a reference of each source, and those that need ratings.
OF_REFERENCES = (REFERENCES, 'chrf')
OF_RATINGS = ('learned', 'features')

_MULTIPLE = 8
_LONGEST = 512
_LONGEST_RATED = 256
_EPOCHS = 20
# Maximum number of BC steps, on a CPU and on an accelerator.
_CPU_MOST_STEPS = {'tiny': 4000, 'small': 8000, 'base': 10_000}
_MOST_STEPS = {'tiny': 20_000, 'small': 40_000, 'base': 100_000}
_LEAST_STEPS = 600
# Tokens of a batch on a CPU: in the same time, more steps of fewer tokens train
# a better policy, at a higher rate. The rows of a batch are at least eight.
_CPU_TOKENS = {'tiny': 512, 'small': 768, 'base': 2048}
_LEAST_ROWS = 8
_REWARD_TOKENS = 2048
# Longer rows are not packed: nobody has measured what their attention costs.
_LONGEST_PACKED = 128
_CPU_BC_RATES = {'tiny': 3e-2, 'small': 2e-2, 'base': 1e-2}
_BC_RATES = {'tiny': 1.5e-2, 'small': 1e-2, 'base': 1e-2}
_IMPROVE_RATES = {'tiny': 5e-3, 'small': 3e-3, 'base': 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
  """Lengths of texts, in tokens including EOS.

  Attributes:
    most: 90th percentile.
    nearly_all: 99th percentile.
  """

  mean: float
  half: int
  most: int
  nearly_all: int
  longest: int

  @classmethod
  def of(cls, lengths: np.ndarray) -> 'Lengths':
    """Measures lengths, int [n], n at least 1."""
    half, most, nearly_all = np.percentile(
      lengths, (50, 90, 99), method='inverted_cdf'
    )
    return cls(
      mean=float(lengths.mean()),
      half=int(half),
      most=int(most),
      nearly_all=int(nearly_all),
      longest=int(lengths.max()),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """Measurements of text and ratings.

  Attributes:
    num_train: number of training pairs with text on both sides.
    num_validation: number of validation pairs with text on both sides.
    num_grow: number of other sources for Grow; None for those of the training
      pairs.
    vocabulary_size: size of the vocabulary that lengths are measured with.
    folded: share of references that Unicode NFKC normalisation changes.
    longer: lengths of the longer side of each pair.
    rated: lengths of the longer of source and hypothesis; None without ratings.
    rated_within: whether a source has hypotheses with different ratings.
  """

  num_train: int
  num_validation: int
  num_characters: int
  vocabulary_size: int
  folded: float
  source: Lengths
  target: Lengths
  longer: Lengths
  num_grow: int | None = None
  num_ratings: int = 0
  rated: Lengths | None = None
  rated_within: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """The machine of a run; its platform is 'cpu', 'gpu' or 'tpu'."""

  platform: str = 'cpu'
  num_devices: int = 1

  @property
  def is_accelerated(self) -> bool:
    return self.platform != 'cpu'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
  """The settings of a gin file, named like its macros."""

  size: str
  reward: str
  vocabulary_size: int
  character_coverage: float
  normalization_rule: str
  max_source_length: int
  max_target_length: int
  buckets: tuple[int, ...]
  packed_lengths: tuple[int, ...]
  tokens_per_batch: int
  bc_steps: int
  bc_learning_rate: float
  improve_steps: int
  improve_learning_rate: float
  num_samples_per_source: int
  block_sources: int
  max_grow_sources: int | None
  max_evaluation_sources: int | None
  max_selection_sources: int
  reward_max_length: int
  reward_buckets: tuple[int, ...]
  reward_tokens_per_batch: int
  reward_pretrain_steps: int
  reward_steps: int
  reward_corruptions: int
  reward_sampled_sources: int
  dtype: str


def choose(
  facts: Facts,
  machine: Machine,
  *,
  size: str | None = None,
  reward: str | None = None,
) -> Choices:
  """Chooses all settings.

  Args:
    size: network size, one of `SIZES`; None for what fits.
    reward: one of `REWARDS`; None for what fits.
  """
  size = size or network_size(facts.num_train, machine)
  reward = reward or usual_reward(facts)
  _check(size, reward, facts)
  source = longest_kept(facts.source)
  target = longest_kept(facts.target)
  lengths = buckets(facts.longer, max(source, target), facts.num_train)
  tokens = tokens_per_batch(size, lengths[-1], machine)
  steps = bc_steps(facts, tokens, size, machine)
  scored = reward_length(facts.rated, lengths[-1])
  rates = _BC_RATES if machine.is_accelerated else _CPU_BC_RATES
  reward_tokens = max(tokens, _REWARD_TOKENS)
  return Choices(
    size=size,
    reward=reward,
    vocabulary_size=facts.vocabulary_size,
    character_coverage=character_coverage(facts.num_characters),
    normalization_rule=normalization_rule(facts.folded),
    max_source_length=source,
    max_target_length=target,
    buckets=lengths,
    packed_lengths=packed_lengths(lengths, machine),
    tokens_per_batch=tokens,
    bc_steps=steps,
    bc_learning_rate=rates[size],
    improve_steps=improve_steps(steps),
    improve_learning_rate=_IMPROVE_RATES[size],
    num_samples_per_source=num_samples(size, machine),
    block_sources=block_sources(lengths[-1], machine),
    max_grow_sources=limit(
      facts.num_grow or facts.num_train, 200_000, 10_000, machine
    ),
    max_evaluation_sources=limit(facts.num_validation, 10_000, 1000, machine),
    max_selection_sources=1000 if machine.is_accelerated else 500,
    reward_max_length=scored,
    reward_buckets=tuple(sorted({*lengths, scored})),
    reward_tokens_per_batch=reward_tokens,
    reward_pretrain_steps=_between(
      300, steps * tokens // reward_tokens // 3, 2000
    ),
    reward_steps=reward_steps(facts, reward_tokens),
    reward_corruptions=_between(2000, 5 * facts.num_train, 100_000),
    reward_sampled_sources=min(facts.num_train, 2000),
    dtype='bfloat16' if machine.is_accelerated else 'float32',
  )


def _check(size: str, reward: str, facts: Facts) -> None:
  for name, value, known in (
    ('size', size, SIZES),
    ('reward', reward, tuple(REWARDS)),
  ):
    if value not in known:
      raise ValueError(f'{name} must be one of {known}; got {value!r}.')
  usual = usual_reward(facts)
  if reward in OF_RATINGS and not facts.num_ratings:
    raise ValueError(
      f'reward {reward!r} needs ratings; got none. Add ratings, or omit '
      f'reward: {usual!r} needs no ratings.'
    )
  if reward in OF_REFERENCES and facts.num_grow is not None:
    raise ValueError(
      f'reward {reward!r} needs a reference of each source; those of grow have '
      f'none. Omit grow, or omit reward: {usual!r} needs no references.'
    )


def usual_reward(facts: Facts) -> str:
  """Returns the reward that fits what there is, one of `REWARDS`."""
  if facts.num_grow is not None:
    return 'features' if facts.rated_within else 'consensus'
  return 'learned' if facts.num_ratings else REFERENCES


def vocabulary_size(num_pairs: int, num_characters: int) -> int:
  """Returns the vocabulary size: 25 times the square root of the pairs.

  Args:
    num_characters: number of characters that must have a piece.
  """
  pieces = _between(300, _rounded(25 * math.sqrt(num_pairs)), 32_000)
  return max(pieces, 2 * num_characters + 100)


def num_frequent(counts: Mapping[str, int], coverage: float) -> int:
  """Returns how many of the most frequent characters cover a share of text."""
  left = coverage * sum(counts.values())
  number = 0
  for count in sorted(counts.values(), reverse=True):
    if left <= 0:
      break
    left -= count
    number += 1
  return number


def character_coverage(num_characters: int) -> float:
  """Returns the share of the text whose characters get a piece."""
  return 1.0 if num_characters <= 500 else 0.9995


def normalization_rule(folded: float) -> str:
  """Returns 'identity' if the usual rule would change many references."""
  return 'identity' if folded > 0.1 else 'nmt_nfkc'


def network_size(num_pairs: int, machine: Machine) -> str:
  """Returns the network size for a number of pairs and a machine."""
  if num_pairs < 20_000:
    return 'tiny'
  if machine.is_accelerated and num_pairs >= 100_000:
    return 'base'
  return 'small'


def longest_kept(lengths: Lengths) -> int:
  """Returns the maximum length of a text, in tokens; longer ones are dropped.

  That is the longest text, but at most twice the 99th percentile and 512
  tokens.
  """
  return min(up(min(lengths.longest, 2 * lengths.nearly_all)), _LONGEST)


def buckets(lengths: Lengths, last: int, num_pairs: int) -> tuple[int, ...]:
  """Returns the padded lengths of batches: few, since each is compiled."""
  middle = [lengths.most]
  if num_pairs >= 20_000:
    middle.append(lengths.half)
  return tuple(
    sorted({up(length) for length in middle if up(length) < last} | {last})
  )


def packed_lengths(
  buckets: tuple[int, ...], machine: Machine
) -> tuple[int, ...]:
  """Returns the lengths of rows that hold several pairs; () for none."""
  if machine.is_accelerated or buckets[-1] > _LONGEST_PACKED:
    return ()
  return buckets[-1:]


def tokens_per_batch(size: str, longest: int, machine: Machine) -> int:
  """Returns the tokens per side of a batch, including padding.

  Args:
    size: network size, one of `SIZES`.
    longest: length of the longest row.
    machine: the machine that trains.
  """
  if not machine.is_accelerated:
    return max(_CPU_TOKENS[size], min(_LEAST_ROWS * longest, 2048))
  each = 8192 if size == 'base' else 4096
  return min(each * machine.num_devices, 65_536)


def bc_steps(facts: Facts, tokens: int, size: str, machine: Machine) -> int:
  """Returns the BC steps of 20 epochs, within limits of the machine."""
  most = (_MOST_STEPS if machine.is_accelerated else _CPU_MOST_STEPS)[size]
  # About a fifth of a batch is padding.
  epoch = 1.2 * facts.num_train * facts.longer.mean / tokens
  return _between(_LEAST_STEPS, _rounded(_EPOCHS * epoch), most)


def improve_steps(steps: int) -> int:
  """Returns the training steps of an Improve step: a quarter of those of BC."""
  return _between(100, _rounded(steps / 4), 2000)


def reward_steps(facts: Facts, tokens: int) -> int:
  """Returns the training steps of 3 epochs of the ratings."""
  mean = facts.rated.mean if facts.rated else 0.0
  return _between(
    300, _rounded(3 * 1.2 * facts.num_ratings * mean / tokens), 2000
  )


def reward_length(rated: Lengths | None, longest: int) -> int:
  """Returns the maximum length for the reward, in tokens; more is truncated."""
  if rated is None:
    return longest
  return max(longest, min(up(rated.nearly_all), _LONGEST_RATED))


def num_samples(size: str, machine: Machine) -> int:
  """Returns N, the samples per source of a Grow step."""
  if not machine.is_accelerated:
    return 8
  return 32 if size == 'base' else 16


def block_sources(longest: int, machine: Machine) -> int:
  """Returns the number of sources that a device decodes at a time."""
  if machine.is_accelerated:
    return 64 if longest <= 128 else 32
  return 32 if longest <= 64 else 16 if longest <= 128 else 8


def limit(
  number: int, accelerated: int, otherwise: int, machine: Machine
) -> int | None:
  """Returns the maximum number of sources for a machine; None for all."""
  most = accelerated if machine.is_accelerated else otherwise
  return most if number > most else None


def up(length: int) -> int:
  """Returns the next multiple of 8, an efficient size on devices."""
  return _MULTIPLE * math.ceil(length / _MULTIPLE)


def _rounded(number: float) -> int:
  """Rounds to two significant digits."""
  if number < 1:
    return 0
  digit = 10 ** max(0, math.floor(math.log10(number)) - 1)
  return round(number / digit) * digit


def _between(least: int, number: float, most: int) -> int:
  return int(min(max(least, number), most))
