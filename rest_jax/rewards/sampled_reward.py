"""The mean reward of sampled outputs, which chooses checkpoints of Improve."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, vocabularies
from rest_jax.evaluation import metrics
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.rewards import peers as peers_lib
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import sampler as sampler_lib


@dataclasses.dataclass(frozen=True)
class SampledReward:
  """Evaluates a policy by the reward of its samples.

  V(theta) = E_{x ~ D_eval, y ~ pi_theta(.|x)} [R(x, y)], estimated with common
  random numbers at every call, so that checkpoints are comparable.

  Attributes:
    sampler: sampler of the policy.
    pairs: D_eval.
    rows: rows of the sources to use.
    vocabulary: decodes tokens.
    reward: R.
    normalizer: scale of the run.
    seed: sampling seed; differs from that of the reported evaluation.
    evidence: returns the samples of a source, for a reward that needs them; the
      same at every call.
  """

  sampler: sampler_lib.Sampler
  pairs: pair_store.PairStore
  rows: np.ndarray
  vocabulary: vocabularies.Vocabulary
  reward: rewards_base.Reward
  normalizer: normalize.Normalizer
  seed: int
  evidence: peers_lib.Evidence | None = None

  def __call__(self, params: types.Params, step: int) -> dict[str, float]:
    """Returns `objective` and `reward` (equal, normalised) and other metrics.

    Args:
      params: parameters of the policy.
      step: not used.

    Returns:
      objective, reward, reward_stderr (clustered by source), length (tokens
      with EOS) and unfinished (share of samples without EOS).
    """
    del step
    sources, hypotheses, ids, lengths, finished = [], [], [], 0, 0
    references = [] if self.reward.needs_references else None
    for block in self._sample(params):
      for source_id, tokens in zip(block.source_ids, block.tokens, strict=True):
        texts = self.vocabulary.decode_batch(tokens)
        hypotheses.extend(texts)
        sources.extend([self.pairs.source_text(int(source_id))] * len(texts))
        ids.extend([int(source_id)] * len(texts))
        if references is not None:
          reference = self.pairs.reference_text(int(source_id))
          references.extend([reference] * len(texts))
        lengths += sum(len(sample) for sample in tokens)
      finished += int(np.sum(block.finished))
    peers = None
    if self.evidence is not None:
      peers = peers_lib.Peers.fixed(ids, self.evidence)
    raw = rewards_base.score(
      self.reward, sources, hypotheses, references, peers
    )
    rewards_base.check_finite(self.reward.name, sources, hypotheses, raw)
    rewards = self.normalizer(raw)
    estimate = metrics.clustered_mean(rewards, np.asarray(ids))
    return {
      'objective': estimate.mean,
      'reward': estimate.mean,
      'reward_stderr': estimate.stderr,
      'length': lengths / len(hypotheses),
      'unfinished': 1.0 - finished / len(hypotheses),
    }

  def _sample(self, params: types.Params) -> Iterator[sampler_lib.SampleBlock]:
    with progress_lib.Progress(
      'validation samples', len(self.rows), 'source'
    ) as progress:
      yield from self.sampler.sample(
        params,
        self.pairs.source_tokens,
        self.rows,
        seed=self.seed,
        grow_step=0,
        progress=progress.advance,
      )
