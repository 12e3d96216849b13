"""Agreement with the other samples of the source, as a reward.

  R(x, y_i | y_1..y_N) = 1 / (N - 1) sum_{j != i} similarity(y_i, y_j)

What a policy says again and again in other words is what it is surest of. As a
decision rule, the sample of the highest R, this is minimum Bayes risk decoding;
see `choose`. A policy's samples agree more when they differ less, so policies are
only compared by agreement with the samples of one of them: `base.Peers.fixed`.

Source: Kumar & Byrne, Minimum Bayes-Risk Decoding for Statistical Machine
Translation (2004); Eikema & Aziz (arXiv 2108.04718), with samples.
"""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

from jaxtyping import Bool, Float, Float32
import numpy as np

from rest_jax.rewards import base, chrf_table, composed, lexical

# Pairs of texts that a scorer other than chrF is given at once, or somewhat more.
_PAIRS_AT_ONCE = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consensus:
  """Mean similarity of a sample to the other samples of its source.

  Attributes:
    similarity: a reward that compares with references; each other sample takes
      the place of the reference. By chrF the consensus is in [0, 1].
    name: name of the reward.
  """

  similarity: base.RewardConfig = dataclasses.field(
    default_factory=lexical.Chrf
  )
  name: str = 'consensus'
  # The similarity is of pairs of samples: no column of a store holds it.
  parts = ()
  needs_references = False
  needs_samples = True

  def __post_init__(self):
    if not isinstance(self.similarity, base.RewardConfig):
      raise TypeError(
        f'similarity must be the settings of a reward; got {self.similarity!r}.'
      )
    if not self.similarity.needs_references or base.needs_samples(
      self.similarity
    ):
      raise ValueError(
        'similarity must be a reward that compares a hypothesis with a '
        f'reference alone; got {self.similarity.name!r}. Use @Chrf(), @Bleu() '
        'or an @External() with needs_references=True.'
      )

  def check(self) -> str:
    return (
      f'mean similarity to the other samples: {self.similarity.name} '
      f'({self.similarity.check()})'
    )

  def load(self, resources: base.Resources) -> 'ConsensusReward':
    return ConsensusReward(self.name, self.similarity.load(resources))


class _Group(NamedTuple):
  """Distinct hypotheses and samples of one source.

  Attributes:
    source: its text.
    rows: rows of the hypotheses, int [n].
    at: which distinct hypothesis each row is, int [n].
    hypotheses: distinct texts.
    samples: distinct texts, and how often each was drawn.
  """

  source: str
  rows: np.ndarray
  at: np.ndarray
  hypotheses: list[str]
  samples: dict[str, int]


class ConsensusReward:
  """Agreement with the samples of the source; see `base.Reward`."""

  needs_references = False
  needs_samples = True

  def __init__(self, name: str, similarity: base.Reward):
    """Takes a loaded reward that compares with references."""
    self.name = name
    self.digest = composed.digest('consensus', similarity.digest)
    self._similarity = similarity

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
    peers: base.Peers | None = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`.

    Each distinct pair of texts of a source is compared once.

    Raises:
      ValueError: also if a source has no sample but the hypothesis itself.
    """
    del references
    base.check_texts(sources, hypotheses)
    peers = base.needed_peers(self.name, peers, hypotheses)
    rewards = np.empty(len(hypotheses), np.float32)
    groups = _groups(sources, hypotheses, peers)
    for group, table in self._tables(groups):
      rewards[group.rows] = self._means(
        group, table, peers.is_member[group.rows]
      )
    base.check_finite(self.name, sources, hypotheses, rewards)
    return rewards

  def _tables(
    self, groups: Iterator[_Group]
  ) -> Iterator[tuple[_Group, Float[np.ndarray, 'h r']]]:
    """Yields each group with the similarity of its hypotheses to its samples."""
    similarity = self._similarity
    if isinstance(similarity, lexical.Chrf) and not similarity.word_order:
      for group in groups:
        yield (
          group,
          chrf_table.chrf(
            group.hypotheses,
            list(group.samples),
            char_order=similarity.char_order,
            beta=similarity.beta,
          ),
        )
      return
    waiting: list[_Group] = []
    num_pairs = 0
    for group in groups:
      waiting.append(group)
      num_pairs += len(group.hypotheses) * len(group.samples)
      if num_pairs >= _PAIRS_AT_ONCE:
        yield from self._compared(waiting)
        waiting, num_pairs = [], 0
    yield from self._compared(waiting)

  def _compared(
    self, groups: Sequence[_Group]
  ) -> Iterator[tuple[_Group, Float[np.ndarray, 'h r']]]:
    """Has the similarity score all pairs of some groups in one call."""
    pairs = [
      (group.source, hypothesis, sample)
      for group in groups
      for hypothesis in group.hypotheses
      for sample in group.samples
    ]
    if not pairs:
      return
    sources, hypotheses, samples = map(list, zip(*pairs, strict=True))
    scores = self._similarity.score(sources, hypotheses, samples)
    start = 0
    for group in groups:
      shape = len(group.hypotheses), len(group.samples)
      stop = start + shape[0] * shape[1]
      yield group, np.asarray(scores[start:stop], np.float64).reshape(shape)
      start = stop

  def _means(
    self,
    group: _Group,
    table: Float[np.ndarray, 'h r'],
    is_member: Bool[np.ndarray, ' n'],
  ) -> Float[np.ndarray, ' n']:
    """Mean similarity of each row's hypothesis to the other samples."""
    counts = np.fromiter(group.samples.values(), np.float64)
    others = counts.sum() - is_member
    if not (others > 0).all():
      raise ValueError(
        f'reward {self.name!r} compares a sample with the others of its source; '
        f'there are none for the source {group.source[:80]!r}. Sample at least '
        'two outputs for each source (NUM_SAMPLES_PER_SOURCE).'
      )
    place = {text: index for index, text in enumerate(group.samples)}
    itself = np.zeros(len(group.hypotheses))
    for index, text in enumerate(group.hypotheses):
      if text in place:
        itself[index] = table[index, place[text]]
      elif is_member[group.at == index].any():
        raise ValueError(
          'a member of a group must be among its samples; of the source '
          f'{group.source[:80]!r} the hypothesis {text[:80]!r} is not.'
        )
    total = (table @ counts)[group.at] - np.where(
      is_member, itself[group.at], 0.0
    )
    return total / others


def _groups(
  sources: Sequence[str], hypotheses: Sequence[str], peers: base.Peers
) -> Iterator[_Group]:
  """Yields the hypotheses of each source, in the order of the groups."""
  order = np.argsort(peers.group, kind='stable')
  starts = np.flatnonzero(np.diff(peers.group[order], prepend=-1))
  for rows in np.split(order, starts[1:]) if len(order) else ():
    texts: dict[str, int] = {}
    at = [texts.setdefault(hypotheses[int(i)], len(texts)) for i in rows]
    first = int(rows[0])
    yield _Group(
      source=sources[first],
      rows=rows,
      at=np.asarray(at),
      hypotheses=list(texts),
      samples=collections.Counter(peers.samples[int(peers.group[first])]),
    )


def utilities(texts: Sequence[str]) -> Float32[np.ndarray, ' n']:
  """Returns mean chrF of each sample of one source to the others, in [0, 1].

  Args:
    texts: at least two samples of one source, repeated as they were drawn.
  """
  reward = ConsensusReward('consensus', lexical.Chrf())
  peers = base.Peers.own([0] * len(texts), texts)
  return reward.score([''] * len(texts), texts, peers=peers)


def choose(
  texts: Sequence[str], finished: Sequence[bool] | np.ndarray | None = None
) -> int:
  """Returns the index of the sample that the others agree with most, by chrF.

  This is minimum Bayes risk decoding with the samples as hypotheses and as
  evidence. An unfinished sample is chosen only where none is finished; it is
  evidence like any other. Of equals the first is chosen.

  Args:
    texts: samples of one source, repeated as they were drawn.
    finished: bool [n], whether each ends with EOS; None if all do.
  """
  if not len(texts):
    raise ValueError('texts must hold at least one sample; got none.')
  agreement = utilities(texts) if len(texts) > 1 else np.zeros(1, np.float32)
  allowed = np.ones(len(texts), bool)
  if finished is not None and np.any(finished):
    allowed = np.asarray(finished, bool)
  return int(np.argmax(np.where(allowed, agreement, -1.0)))
