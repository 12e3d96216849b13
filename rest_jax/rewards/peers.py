"""The samples of each source, for rewards that compare samples."""

from collections.abc import Callable, Sequence
import dataclasses

from jaxtyping import Bool, Int64
import numpy as np

# Stored samples of a source by its row, the same for all compared policies.
Evidence = Callable[[int], Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peers:
  """The samples of each source, for rewards that compare samples.

  Attributes:
    samples: samples of one source per group, including repeated ones.
    group: int64 [n], group of each hypothesis.
    is_member: bool [n], whether a hypothesis is one of its group's samples; it
      is then excluded once.
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
    """Groups the hypotheses of each source.

    Args:
      ids: int [n], source of each hypothesis.
      hypotheses: n texts.
      is_sample: bool [n], whether a hypothesis is a sample; others, such as
        references, are compared with the group but not part of it. None if all
        are samples.
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
    """Groups the stored samples of each source, without the hypotheses.

    Args:
      ids: int [n], source of each hypothesis.
      evidence: returns the samples of a source.
    """
    numbers, group = np.unique(np.asarray(ids), return_inverse=True)
    return cls(
      samples=[evidence(number) for number in numbers.tolist()],
      group=group.astype(np.int64),
      is_member=np.zeros(len(group), bool),
    )


def needed(name: str, peers: Peers | None, hypotheses: Sequence[str]) -> Peers:
  """Returns peers; raises ValueError if they are missing.

  Args:
    name: name of the reward.
    peers: samples of each source, if given.
    hypotheses: n texts.
  """
  if peers is None:
    raise ValueError(
      f'reward {name!r} compares the samples of a source, and needs those of '
      'each hypothesis; got none. Pass peers, see rest_jax.rewards.base.Peers, '
      'or choose a reward of single hypotheses.'
    )
  if not len(peers.group) == len(peers.is_member) == len(hypotheses):
    raise ValueError(
      'peers must have a group and is_member for each hypothesis; '
      f'got {len(peers.group)} and {len(peers.is_member)} for '
      f'{len(hypotheses)} hypotheses.'
    )
  return peers
