"""Results of reward probes: shares of cases in the right order."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from rest_jax.evaluation import shares
from rest_jax.rewards import base, probes
from rest_jax.rewards import peers as peers_lib
from rest_jax.rewards import reward_agreement as agreement_lib

# Number of worst cases to keep for people to read.
_NUM_EXAMPLES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probed:
  """Result of one probe or control.

  Attributes:
    name: name of the probe.
    is_control: whether the reward should not change.
    count: number of references that the change applies to; 0 tested nothing.
    share: share of cases with R(x, reference) > R(x, changed), clustered by
      source; None for a control, or without cases.
    mean_drop: mean of R(x, reference) - R(x, changed), in the reward's unit;
      for a control of its absolute value. None without cases.
    examples: cases with the smallest drop (for a control the largest change),
      each with source, reference, changed and drop.
  """

  name: str
  is_control: bool
  count: int
  share: shares.Share | None = None
  mean_drop: float | None = None
  examples: Sequence[Mapping[str, Any]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """Results of all probes.

  Attributes:
    reward: name of the reward.
    num_pairs: number of references.
    mean: mean R(x, reference), in the reward's unit.
    std: its standard deviation, the unit to judge a drop by.
    probed: one result per probe.
    agreement: agreement with held-out ratings by split and by name of the
      reward and its parts: statistics by name, those within a source first,
      each with value, low and high.
    weights: weights of an ensemble's components by reward name, fitted to the
      dev ratings.
  """

  reward: str
  num_pairs: int
  mean: float
  std: float
  probed: tuple[Probed, ...]
  agreement: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def missed(self, minimum: float) -> list[Probed]:
    """Returns the probes with cases whose share is below a minimum."""
    return [
      probed
      for probed in self.probed
      if probed.share is not None and probed.share.value < minimum
    ]

  @property
  def untested(self) -> list[Probed]:
    """Returns probes and controls without cases."""
    return [probed for probed in self.probed if not probed.count]


def measure(
  config: probes.ProbeConfig,
  reward: base.Reward,
  sources: Sequence[str],
  references: Sequence[str],
  *,
  seed: int,
  evidence: peers_lib.Evidence | None = None,
) -> Report:
  """Probes a reward with changed references.

  Args:
    config: which probes.
    reward: R. If it reads references, it has seen the right answer: then only
      the size of a drop is informative.
    sources: n texts.
    references: n texts, n at least 2.
    seed: seed of the changes.
    evidence: returns the samples of each position of `sources`, for a reward
      that needs them.

  Returns:
    The results, in the order of the configuration. A tie is not a right answer.
  """
  cases = probes.cases(config, sources, references, seed=seed)
  hypotheses, rows_of_all = list(references), list(range(len(references)))
  for changed in cases.values():
    hypotheses += changed.texts
    rows_of_all += changed.rows
  # In one call, so that a learned reward encodes each source once.
  rewards = base.score(
    reward,
    [sources[row] for row in rows_of_all],
    hypotheses,
    [references[row] for row in rows_of_all]
    if reward.needs_references
    else None,
    None if evidence is None else peers_lib.Peers.fixed(rows_of_all, evidence),
  ).astype(np.float64)
  of_references = rewards[: len(references)]
  clusters = agreement_lib.grouped(sources)
  probed, start = [], len(references)
  for name, changed in cases.items():
    rows = np.asarray(changed.rows, np.int64)
    stop = start + len(rows)
    drops = of_references[rows] - rewards[start:stop]
    start = stop
    probed.append(
      _probed(name, sources, references, changed, drops, clusters[rows])
    )
  return Report(
    reward=reward.name,
    num_pairs=len(references),
    mean=float(of_references.mean()),
    std=float(of_references.std()),
    probed=tuple(probed),
  )


def _probed(
  name: str,
  sources: Sequence[str],
  references: Sequence[str],
  cases: probes.Cases,
  drops: np.ndarray,
  clusters: np.ndarray,
) -> Probed:
  is_control = name in probes.CONTROLS
  if not len(drops):
    return Probed(name=name, is_control=is_control, count=0)
  wrong = -np.abs(drops) if is_control else drops
  return Probed(
    name=name,
    is_control=is_control,
    count=len(drops),
    share=None if is_control else shares.clustered_share(drops > 0, clusters),
    mean_drop=float((np.abs(drops) if is_control else drops).mean()),
    examples=tuple(
      {
        'source': sources[cases.rows[case]],
        'reference': references[cases.rows[case]],
        'changed': cases.texts[case],
        'drop': float(drops[case]),
      }
      for case in np.argsort(wrong, kind='stable')[:_NUM_EXAMPLES]
    ),
  )


def to_json(report: Report) -> dict[str, Any]:
  """Returns a report as JSON values."""
  return dataclasses.asdict(report)


def from_json(content: Mapping[str, Any]) -> Report:
  """Reads the result of `to_json`."""
  probed = []
  for entry in content['probed']:
    share = entry['share'] and shares.Share(**entry['share'])
    examples = tuple(entry['examples'])
    probed.append(Probed(**{**entry, 'share': share, 'examples': examples}))
  return Report(**{**content, 'probed': tuple(probed)})
