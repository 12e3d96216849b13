"""Agreement with the other samples of the source, as a reward.

  R(x, y_i | y_1..y_N) = sum_{j != i} w_j similarity(y_i, y_j) / sum_{j != i}
  w_j

with w_j = 1, or exp(k c_j) with c_j the mean similarity of y_j to the others,
so that outliers count less.

A policy is most confident of texts that many of its samples agree on. Choosing
the sample with the highest R is minimum Bayes risk decoding; see `choose`. A
policy with less diverse samples has a higher R, so policies must be compared by
agreement with the samples of one policy: `peers_lib.Peers.fixed`.

Source: Kumar & Byrne, Minimum Bayes-Risk Decoding for Statistical Machine
Translation (2004); Eikema & Aziz (arXiv 2108.04718), with samples.
"""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

from jaxtyping import Bool, Float, Float32
import numpy as np

from rest_jax.rewards import base, chrf_table, lexical
from rest_jax.rewards import peers as peers_lib

# Equal precision and recall: with beta = 2, long texts agree with all others.
CHRF = lexical.Chrf(beta=1)
# Approximate number of text pairs per call of a scorer other than chrF.
_PAIRS_AT_ONCE = 1 << 16


class _NeedsSamples(base.NeedsOfParts):
  """Has no parts: similarities are of pairs of samples, not columns."""

  @property
  def needs_samples(self) -> bool:
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consensus(_NeedsSamples):
  """Mean similarity of a sample to the other samples of its source.

  Attributes:
    similarity: a reward that compares with references; each other sample serves
      as the reference. With chrF, beta = 1, it is in [0, 1].
    concentration: k, at least 0; 0 weights all other samples equally.
    name: name of the reward.
  """

  similarity: base.RewardConfig = CHRF
  concentration: float = 0.0
  name: str = 'consensus'

  def __post_init__(self):
    if not 0.0 <= self.concentration < np.inf:
      raise ValueError(
        f'concentration must be at least 0 and finite; got {self.concentration}.'
      )
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
    return ConsensusReward(
      self.name, self.similarity.load(resources), self.concentration
    )


class _Group(NamedTuple):
  """Distinct hypotheses and samples of one source.

  Attributes:
    source: text of the source.
    rows: rows of the hypotheses, int [n].
    text_of: index in `texts` of each row, int [n].
    texts: distinct texts: the hypotheses, then all samples if they are compared
      with each other.
    samples: distinct samples and their counts.
  """

  source: str
  rows: np.ndarray
  text_of: np.ndarray
  texts: list[str]
  samples: dict[str, int]


class ConsensusReward(_NeedsSamples):
  """Agreement with the samples of the source; see `base.Reward`."""

  def __init__(
    self, name: str, similarity: base.Reward, concentration: float = 0.0
  ):
    """Takes a loaded reward that compares with references; see `Consensus`."""
    self.name = name
    # Equal weights have the digest of earlier versions.
    weights = [concentration] if concentration else []
    self.digest = base.digest_of(['consensus', similarity.digest, *weights])
    self._similarity = similarity
    self._concentration = concentration

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
    peers: peers_lib.Peers | None = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`.

    Each distinct pair of texts of a source is compared once.

    Raises:
      ValueError: also if a source has no sample except the hypothesis.
    """
    del references
    base.check_texts(sources, hypotheses)
    peers = peers_lib.needed(self.name, peers, hypotheses)
    rewards = np.empty(len(hypotheses), np.float32)
    groups = _groups(
      sources, hypotheses, peers, with_samples=self._concentration > 0
    )
    for group, table in self._tables(groups):
      rewards[group.rows] = self._means(
        group, table, peers.is_member[group.rows]
      )
    base.check_finite(self.name, sources, hypotheses, rewards)
    return rewards

  def _tables(
    self, groups: Iterator[_Group]
  ) -> Iterator[tuple[_Group, Float[np.ndarray, 'h r']]]:
    """Yields each group with the similarity of its texts to its samples."""
    similarity = self._similarity
    if isinstance(similarity, lexical.Chrf) and not similarity.word_order:
      for group in groups:
        table = chrf_table.chrf(
          group.texts,
          list(group.samples),
          char_order=similarity.char_order,
          beta=similarity.beta,
        )
        yield group, table
      return
    waiting: list[_Group] = []
    num_pairs = 0
    for group in groups:
      waiting.append(group)
      num_pairs += len(group.texts) * len(group.samples)
      if num_pairs >= _PAIRS_AT_ONCE:
        yield from self._compared(waiting)
        waiting, num_pairs = [], 0
    yield from self._compared(waiting)

  def _compared(
    self, groups: Sequence[_Group]
  ) -> Iterator[tuple[_Group, Float[np.ndarray, 'h r']]]:
    """Scores all pairs of some groups in one call of the similarity."""
    pairs = [
      (group.source, hypothesis, sample)
      for group in groups
      for hypothesis in group.texts
      for sample in group.samples
    ]
    if not pairs:
      return
    sources, hypotheses, samples = map(list, zip(*pairs, strict=True))
    scores = self._similarity.score(sources, hypotheses, samples)
    start = 0
    for group in groups:
      shape = len(group.texts), len(group.samples)
      stop = start + shape[0] * shape[1]
      yield group, np.asarray(scores[start:stop], np.float64).reshape(shape)
      start = stop

  def _means(
    self,
    group: _Group,
    table: Float[np.ndarray, 'h r'],
    is_member: Bool[np.ndarray, ' n'],
  ) -> Float[np.ndarray, ' n']:
    """Returns the mean similarity of each hypothesis to the other samples."""
    counts = np.fromiter(group.samples.values(), np.float64)
    if not (counts.sum() - is_member > 0).all():
      raise ValueError(
        f'reward {self.name!r} compares a sample with the others of its '
        f'source; there are none for the source {group.source[:80]!r}. Sample '
        'at least two outputs for each source (NUM_SAMPLES_PER_SOURCE).'
      )
    indices = {text: index for index, text in enumerate(group.samples)}
    # Index of the sample equal to each text; -1 for none.
    sample_of = np.array([indices.get(text, -1) for text in group.texts])
    missing = is_member & (sample_of[group.text_of] < 0)
    if missing.any():
      text = group.texts[group.text_of[np.argmax(missing)]]
      raise ValueError(
        'a member of a group must be among its samples; for the source '
        f'{group.source[:80]!r} the hypothesis {text[:80]!r} is not.'
      )
    weights = np.ones(len(counts))
    if self._concentration:
      weights = self._weights(table[sample_of >= 0], sample_of, counts)
    is_own = (sample_of[:, None] == np.arange(len(counts))) * 1.0
    # A member is excluded from the samples once.
    excluded = is_own[group.text_of] * is_member[:, None]
    others = (counts - excluded) * weights
    return (table[group.text_of] * others).sum(1) / others.sum(1)

  def _weights(
    self,
    table: Float[np.ndarray, 's r'],
    sample_of: np.ndarray,
    counts: np.ndarray,
  ) -> np.ndarray:
    """Returns exp(k c) per distinct sample, c its similarity to the others."""
    among = np.empty_like(table)
    among[sample_of[sample_of >= 0]] = table
    agreement = (among @ counts - among.diagonal()) / max(counts.sum() - 1, 1)
    return np.exp(self._concentration * (agreement - agreement.max()))


def _groups(
  sources: Sequence[str],
  hypotheses: Sequence[str],
  peers: peers_lib.Peers,
  *,
  with_samples: bool,
) -> Iterator[_Group]:
  """Yields the hypotheses of each source, in the order of the groups."""
  order = np.argsort(peers.group, kind='stable')
  starts = np.flatnonzero(np.diff(peers.group[order], prepend=-1))
  for rows in np.split(order, starts[1:]) if len(order) else ():
    texts: dict[str, int] = {}
    text_of = [texts.setdefault(hypotheses[int(i)], len(texts)) for i in rows]
    first = int(rows[0])
    samples = collections.Counter(peers.samples[int(peers.group[first])])
    if with_samples:
      for text in samples:
        texts.setdefault(text, len(texts))
    yield _Group(
      source=sources[first],
      rows=rows,
      text_of=np.asarray(text_of),
      texts=list(texts),
      samples=samples,
    )


def utilities(
  texts: Sequence[str], groups: Sequence[int] | np.ndarray | None = None
) -> Float32[np.ndarray, ' n']:
  """Returns mean chrF (beta = 1) of each sample to the others, in [0, 1].

  Args:
    texts: at least two samples per source, including repeated ones.
    groups: int [n], the source of each sample; None if all are of one.
  """
  reward = ConsensusReward('consensus', CHRF)
  own = [0] * len(texts) if groups is None else groups
  peers = peers_lib.Peers.own(own, texts)
  return reward.score([''] * len(texts), texts, peers=peers)


def choose(
  texts: Sequence[str], finished: Sequence[bool] | np.ndarray | None = None
) -> int:
  """Returns the index of the sample with the highest mean chrF to the others.

  This is minimum Bayes risk decoding with the samples as hypotheses and as
  evidence. An unfinished sample counts as evidence, but is chosen only if none
  is finished. Ties go to the first.

  Args:
    texts: samples of one source, including repeated ones.
    finished: bool [n], whether each ends with EOS; None if all do.
  """
  if not len(texts):
    raise ValueError('texts must hold at least one sample; got none.')
  agreement = utilities(texts) if len(texts) > 1 else np.zeros(1, np.float32)
  allowed = np.ones(len(texts), bool)
  if finished is not None and np.any(finished):
    allowed = np.asarray(finished, bool)
  return int(np.argmax(np.where(allowed, agreement, -1.0)))
