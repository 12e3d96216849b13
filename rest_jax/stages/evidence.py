"""Stage `evidence`: samples of BC, to compare outputs of all policies with.

Some rewards measure how much a hypothesis agrees with other samples of its
source. A policy's own samples agree more when they differ less. Checkpoint
selection and evaluations therefore compare with the same samples of BC, drawn
once for each source of a split.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from rest_jax.data import pair_store, sample_store, vocabularies
from rest_jax.parallel import processes
from rest_jax.rewards import consensus
from rest_jax.rewards import peers as peers_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, policies
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib

_SOURCES_PER_SHARD = 2048
# Share of collapsed sources above which a warning is given.
_MAX_COLLAPSED = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvidenceConfig:
  """Settings of the samples for rewards that compare samples of a source.

  Attributes:
    decode: number of samples per source, temperature, length, block shape.
  """

  decode: sampler_lib.DecodeConfig = dataclasses.field(
    default_factory=lambda: sampler_lib.DecodeConfig(num_samples_per_source=16)
  )

  def __post_init__(self):
    if self.decode.temperature <= 0:
      raise ValueError(
        'evidence needs a positive temperature, or all samples are equal; '
        f'got {self.decode.temperature}.'
      )


class StoredEvidence:
  """The samples of a finished folder; see `rewards.peers.Evidence`."""

  def __init__(
    self,
    directory: str | pathlib.Path,
    vocabulary: vocabularies.Vocabulary,
  ):
    """Opens a finished folder of this stage."""
    self.digest = folder_lib.content_digest(folder_lib.read_manifest(directory))
    self._store = sample_store.SampleStore.open(directory)
    self._vocabulary = vocabulary

  def __call__(self, source_id: int) -> Sequence[str]:
    """Returns the samples of a row of the split.

    Raises:
      ValueError: if none were drawn for it.
    """
    start, stop = np.searchsorted(
      self._store.source_id, [source_id, source_id + 1]
    )
    if start == stop:
      raise ValueError(
        f'source_id must be a source that evidence was drawn for; got '
        f'{source_id}, and {self._store.directory} has none of it. Remove that '
        'folder to have it made again.'
      )
    tokens = self._store.tokens
    return self._vocabulary.decode_batch(
      [tokens[row] for row in range(int(start), int(stop))]
    )


def measure_collapse(
  folder: folder_lib.StageFolder,
  store: sample_store.SampleStore,
  evidence: StoredEvidence,
  vocabulary: vocabularies.Vocabulary,
) -> dict[str, float]:
  """Warns if the samples of a policy, and not those of BC, collapse to one."""
  texts = vocabulary.decode_batch(list(store.tokens))
  samples = peers_lib.Peers.own(store.source_id, texts).samples
  measured = collapse(
    samples, [evidence(row) for row in np.unique(store.source_id).tolist()]
  )
  if measured['collapsed'] > _MAX_COLLAPSED and len(samples[0]) > 1:
    folder.warn(
      f'of {measured["sources"]} sources on which the samples of BC differ, all '
      f'samples of this policy are one text on {measured["collapsed"]:.0%}; on '
      f'{measured["onto_medoid"]:.0%} it is the sample of BC that agrees most '
      'with the others: the policy has collapsed. Compare its output with '
      'minimum Bayes risk decoding of BC, train for fewer Improve steps, or '
      'choose a reward that does not only measure agreement.'
    )
  return measured


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence(base.Stage):
  """Draws samples of BC for the sources of a split.

  Attributes:
    limits: for each user of the evidence, the number of its sources, evenly
      spread; None for all.
    seed: sampling seed; another than that of evaluations.
  """

  config: EvidenceConfig
  split: str
  limits: Sequence[int | None]
  bc: base.PolicyStage
  data: base.Stage
  seed: int

  run_mode = 'evaluate'
  pattern = r'evidence/[^/]+'
  is_on_demand = True

  @property
  def name(self) -> str:
    return f'evidence_{self.split}'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {'data': self.data, 'policy': self.bc}

  def rows(self, pairs: pair_store.PairStore) -> np.ndarray:
    """Returns the rows of the split to draw for, int [n], rising."""
    return np.unique(
      np.concatenate(
        [pair_store.spread_rows(len(pairs), n) for n in self.limits]
      )
    )

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    rows = self.rows(context.data.pairs(self.split))
    return {
      'decode': self.config.decode,
      'split': self.split,
      'sources': {
        'number': len(rows),
        'digest': hashlib.sha256(np.asarray(rows, '<i8').tobytes()).hexdigest(),
      },
      'network': context.policy.config,
      'policy': policies.digest(self.bc.folder),
      'data': context.data.digest_of(self.split),
      'seed': self.seed,
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    pairs = context.data.pairs(self.split)
    rows = self.rows(pairs)
    shards = sample_store.shard_ranges(len(rows), _SOURCES_PER_SHARD)
    draw_samples.sample(
      output.path,
      draw_samples.Drawer(
        loaded=draw_samples.LoadedPolicy.of_stage(self.bc, context),
        decode=self.config.decode,
        seed=self.seed,
      ),
      pairs=pairs,
      rows=rows,
      shards=shards,
      description=f'evidence {self.split}: sample',
    )
    processes.barrier('sampled')
    entries = sample_store.shard_entries(output.path, len(shards))
    return {
      'schema_version': sample_store.SCHEMA_VERSION,
      'num_sources': len(pairs),
      'num_rows': sum(entry['rows'] for entry in entries),
      'shards': entries,
      'split': self.split,
    }


def inputs(evidence: Evidence | None) -> dict[str, base.Stage]:
  """Returns the evidence as an input of the stage that uses it."""
  return {} if evidence is None else {'judged by': evidence}


def load(
  evidence: Evidence | None, context: context_lib.Context
) -> StoredEvidence | None:
  """Opens the finished evidence; None without any."""
  if evidence is None:
    return None
  return StoredEvidence(evidence.folder, context.data.vocabulary)


def settings(
  evidence: Evidence | None, context: context_lib.Context
) -> dict[str, Any]:
  """Returns the evidence among the settings of the stage that uses it."""
  stored = load(evidence, context)
  return {} if stored is None else {'evidence': stored.digest}


def collapse(
  samples: Sequence[Sequence[str]], evidence: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Measures how often all samples of a policy are one text.

  A policy that maximises agreement with given samples converges to their
  medoid, the one that agrees most with the others.

  Args:
    samples: texts of the policy for each source, at least two each.
    evidence: texts of the other policy for each source, at least two each.

  Returns:
    `sources`: number of sources whose evidence has distinct texts; `collapsed`:
    the share of them on which all samples are one text; `onto_medoid`: the
    share of them on which that text is the medoid of the evidence. Shares are 0
    without sources.
  """
  varied = [
    (texts, others)
    for texts, others in zip(samples, evidence, strict=True)
    if len(set(others)) > 1
  ]
  same = [(t[0], others) for t, others in varied if len(set(t)) == 1]
  medoids = [text == others[consensus.choose(others)] for text, others in same]
  return {
    'sources': len(varied),
    'collapsed': len(same) / max(len(varied), 1),
    'onto_medoid': sum(medoids) / max(len(varied), 1),
  }
