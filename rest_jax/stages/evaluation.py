"""What an evaluation does, step by step: samples, scores, outputs, measures."""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import time
from typing import Any

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, sample_store
from rest_jax.evaluation import best_of_n, text_metrics
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  diagnostics,
  draw_samples,
  prepare,
  sample_events,
  score_samples,
)
from rest_jax.stages import outputs as outputs_stage
from rest_jax.storage import files

_SOURCES_PER_SHARD = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """One policy on one split, with what it is measured by.

  Attributes:
    path: the folder of the evaluation.
    decode: how the samples are drawn.
    searches: the decodes that search for one output, by name.
    text: the search whose BLEU and chrF are those of the policy.
    choices: what chooses one of the samples of each source, by name.
    max_diagnostic_sources: see `EvaluateConfig`.
    policy: the network.
    params: its parameters.
    data: the prepared data.
    mesh_config: devices and rules.
    seed: sampling seed.
    scorer: what outputs are scored by, and of which sources.
  """

  path: pathlib.Path
  decode: sampler_lib.DecodeConfig
  searches: Mapping[str, sampler_lib.DecodeConfig]
  text: str
  choices: Mapping[str, outputs_stage.Choose]
  max_diagnostic_sources: int | None
  policy: policy_lib.Policy
  params: types.Params
  data: prepare.PreparedData
  mesh_config: mesh_lib.MeshConfig
  seed: int
  scorer: outputs_stage.Scorer

  @property
  def pairs(self) -> pair_store.PairStore:
    return self.scorer.pairs

  @property
  def rows(self) -> np.ndarray:
    return self.scorer.rows

  @functools.cached_property
  def references(self) -> list[str]:
    return pair_store.texts_of(self.pairs, self.rows)[1]

  @functools.cached_property
  def shards(self) -> draw_samples.Shards:
    return sample_store.shard_ranges(len(self.rows), _SOURCES_PER_SHARD)

  @property
  def entries(self) -> list[dict[str, Any]]:
    return sample_store.shard_entries(self.path, len(self.shards))

  def sample(
    self, judged: rewards_base.Reward | None
  ) -> tuple[float | None, float | None]:
    """Draws and scores the samples.

    Args:
      judged: the judge as a reward, where there is one.

    Returns:
      Seconds of sampling, and of sampling and scoring by the reward; None if an
      earlier start has made some of the samples.
    """
    is_resumed = bool(sample_store.finished_shards(self.path, len(self.shards)))
    began = time.monotonic()
    draw_samples.sample(
      self.path,
      draw_samples.Drawer(
        sampler=draw_samples.policy_sampler(
          self.policy,
          self.decode,
          self.mesh_config,
          self.data,
          is_shared=False,
        ),
        policy=self.policy,
        params=self.params,
        mesh_config=self.mesh_config,
        seed=self.seed,
      ),
      pairs=self.pairs,
      rows=self.rows,
      shards=self.shards,
      description=f'evaluate {self.path.name}: sample',
    )
    processes.barrier('sampled')
    sampling = time.monotonic() - began
    self._score(self.scorer.reward, self.scorer.normalizer)
    scoring = time.monotonic() - began
    if judged is not None:
      # The judge's scale is its own: raw and normalised are the same.
      self._score(judged, normalize.Normalizer(0.0, 1.0))
    return (None, None) if is_resumed else (sampling, scoring)

  def _score(
    self, reward: rewards_base.Reward, normalizer: normalize.Normalizer
  ) -> None:
    score_samples.score(
      score_samples.Store(self.path, len(self.shards)),
      reward=reward,
      pairs=self.pairs,
      vocabulary=self.data.vocabulary,
      normalizer=normalizer,
      description=f'evaluate {self.path.name}: {reward.name}',
      evidence=self.scorer.evidence,
    )

  def samples(self) -> outputs_stage.Samples:
    """Reads what `sample` has stored."""
    return outputs_stage.read_samples(
      self.path,
      self.entries,
      reward_name=self.scorer.reward.name,
      is_judged=self.scorer.judge is not None,
      num_sources=len(self.rows),
      pairs=self.pairs,
      data=self.data,
    )

  def outputs(
    self,
    samples: outputs_stage.Samples,
    seconds: tuple[float | None, float | None],
  ) -> dict[str, outputs_stage.Made]:
    """Returns the outputs of every decode, by name."""
    sampling, scoring = seconds
    made = {
      name: outputs_stage.search(
        name,
        decode,
        params=self.params,
        policy=self.policy,
        data=self.data,
        pairs=self.pairs,
        rows=self.rows,
        mesh_config=self.mesh_config,
      )
      for name, decode in self.searches.items()
    }
    made[outputs_lib.SAMPLES] = outputs_stage.of_samples(samples, sampling)
    for name, choose in self.choices.items():
      began = time.monotonic()
      choice = choose(samples)
      taken = time.monotonic() - began
      # The best by reward is chosen by rewards that are stored with the samples.
      before = scoring if choose is outputs_stage.best_choice else sampling
      made[name] = outputs_stage.chosen(
        samples, choice, None if before is None else before + taken
      )
    return made

  def distance_to_bc(
    self,
    policy_directory: str | pathlib.Path,
    bc_directory: str | pathlib.Path,
  ) -> dict[str, Any]:
    return diagnostics.distance_to_bc(
      self.decode,
      params=self.params,
      policy=self.policy,
      policy_directory=policy_directory,
      bc_directory=bc_directory,
      data=self.data,
      pairs=self.pairs,
      rows=self.rows,
      max_sources=self.max_diagnostic_sources,
      mesh_config=self.mesh_config,
      seed=self.seed,
    )

  def diagnostics(self) -> dict[str, Any]:
    return diagnostics.measure(
      self.path,
      self.entries,
      data=self.data,
      pairs=self.pairs,
      rows=self.rows,
      max_sources=self.max_diagnostic_sources,
      tokenize=self.scorer.tokenize,
    )

  def write(
    self,
    made: Mapping[str, outputs_stage.Made],
    scores: Mapping[str, outputs_lib.Scores],
  ) -> None:
    """Writes the outputs of searches, all scores, and TensorBoard's events."""
    for name in self.searches:
      path = self.path / outputs_stage.text_file(name)
      with files.atomic_write(path) as temporary:
        temporary.write_text(
          '\n'.join(made[name].texts) + '\n', encoding='utf-8'
        )
    outputs_stage.write(self.path, scores)
    sample_events.write(
      self.path,
      self.entries,
      reward_name=self.scorer.reward.name,
      pairs=self.pairs,
      vocabulary=self.data.vocabulary,
      step=0,
    )

  def measure(
    self,
    samples: outputs_stage.Samples,
    made: Mapping[str, outputs_stage.Made],
    scores: Mapping[str, outputs_lib.Scores],
  ) -> dict[str, Any]:
    """Returns everything that this policy's outputs alone decide."""
    distinct = text_metrics.distinct_samples(samples.sources, samples.texts)
    described = {
      name: outputs_stage.describe(
        made[name],
        scores[name],
        distinct=distinct / len(self.rows)
        if name == outputs_lib.SAMPLES
        else 1.0,
      )
      for name in made
    }
    of_samples = described[outputs_lib.SAMPLES]
    texts = made[self.text].texts
    references = self.references
    bleu, bleu_signature = text_metrics.corpus_bleu(
      texts, references, tokenize=self.scorer.tokenize
    )
    chrf, chrf_signature = text_metrics.corpus_chrf(texts, references)
    measured = {
      'reward': of_samples['reward'],
      'bleu': bleu,
      'bleu_signature': bleu_signature,
      'chrf': chrf,
      'chrf_signature': chrf_signature,
      'length_ratio': text_metrics.length_ratio(texts, references),
      'distinct_samples': distinct,
      'unfinished': float(1.0 - samples.finished.mean()),
      'best_of_n': _best_of_n(samples),
      'outputs': described,
      'text': self.text,
    }
    if samples.judged is not None:
      human = outputs_stage.HUMAN
      measured[human] = of_samples[human]
      measured['best_of_n_human'] = _best_of_n(samples, samples.judged)
    return measured


def _best_of_n(
  samples: outputs_stage.Samples, judged: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
  """The curve over N of the reward, or of the judge's scores, x100."""
  curve = best_of_n.curve(
    samples.rewards,
    best_of_n.sizes(samples.rewards.shape[1]),
    judged,
    finished=samples.finished,
  )
  return {
    str(n): dataclasses.asdict(estimate.scaled(100))
    for n, estimate in curve.items()
  }
