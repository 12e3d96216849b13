"""The steps of an evaluation: samples, scores, outputs, measurements."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import time
from typing import TYPE_CHECKING, Any

from absl import logging
import numpy as np

from rest_jax.data import pair_store, sample_store, text_files
from rest_jax.evaluation import best_of_n, text_metrics
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize, reference_text
from rest_jax.stages import (
  diagnostics,
  draw_samples,
  sample_events,
  score_samples,
)
from rest_jax.stages import outputs as outputs_stage
from rest_jax.storage import files

if TYPE_CHECKING:
  from rest_jax.stages import evaluate

_SOURCES_PER_SHARD = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """The evaluation of one policy on one split.

  Attributes:
    config: see `EvaluateConfig`; `decode` has this policy's temperature.
    scorer: scores outputs; names the sources.
  """

  path: pathlib.Path
  config: 'evaluate.EvaluateConfig'
  loaded: draw_samples.LoadedPolicy
  scorer: outputs_stage.Scorer
  seed: int

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

  @functools.cached_property
  def store(self) -> sample_store.SampleStore:
    """The samples; to be opened after `sample`."""
    return sample_store.SampleStore.unfinished(
      self.path, sample_store.shard_entries(self.path, len(self.shards))
    )

  @property
  def entries(self) -> list[dict[str, Any]]:
    return self.store.manifest['shards']

  def sample(
    self, judge: rewards_base.Reward | None
  ) -> tuple[float | None, float | None]:
    """Draws and scores the samples.

    Args:
      judge: the judge as a reward; None without a judge.

    Returns:
      Seconds of sampling, and of sampling and scoring by the reward; None if
      some samples were drawn by an interrupted run.
    """
    is_resumed = bool(sample_store.finished_shards(self.path, len(self.shards)))
    began = time.monotonic()
    draw_samples.sample(
      self.path,
      draw_samples.Drawer(
        loaded=self.loaded, decode=self.config.decode, seed=self.seed
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
    if judge is not None:
      # The judge has its own scale: raw and normalised scores are equal.
      self._score(judge, normalize.Normalizer(0.0, 1.0))
    return (None, None) if is_resumed else (sampling, scoring)

  def _score(
    self, reward: rewards_base.Reward, normalizer: normalize.Normalizer
  ) -> None:
    vocabulary = self.loaded.data.vocabulary
    score_samples.score(
      score_samples.Store(self.path, len(self.shards), self.pairs, vocabulary),
      reward=reward,
      normalizer=normalizer,
      description=f'evaluate {self.path.name}: {reward.name}',
      evidence=self.scorer.evidence,
    )

  def samples(self) -> outputs_stage.Samples:
    """Reads what `sample` has stored."""
    return outputs_stage.read_samples(
      self.store,
      reward_name=self.scorer.reward.name,
      is_judged=self.scorer.judge is not None,
      num_sources=len(self.rows),
      vocabulary=self.loaded.data.vocabulary,
    )

  def outputs(
    self,
    samples: outputs_stage.Samples,
    seconds: tuple[float | None, float | None],
  ) -> dict[str, outputs_stage.Made]:
    """Returns the outputs by decode; for `seconds` see `sample`."""
    sampling, scoring = seconds
    outputs = {
      name: outputs_stage.search(
        name, decode, self.loaded, self.pairs, self.rows
      )
      for name, decode in self.config.searches().items()
    }
    outputs[outputs_lib.SAMPLES] = outputs_stage.of_samples(samples, sampling)
    for name, choose in self.config.choices().items():
      began = time.monotonic()
      choice = choose(samples)
      choosing = time.monotonic() - began
      # The best by reward is chosen by rewards that are stored with the samples.
      before = scoring if choose is outputs_stage.best_choice else sampling
      outputs[name] = outputs_stage.chosen(
        samples, choice, None if before is None else before + choosing
      )
    return outputs

  def distance_to_bc(
    self, policy_directory: pathlib.Path, bc_directory: pathlib.Path
  ) -> dict[str, Any]:
    """See `diagnostics.distance_to_bc`."""
    chosen = pair_store.spread_rows(
      len(self.rows), self.config.max_diagnostic_sources
    )
    return diagnostics.distance_to_bc(
      self.config.decode,
      self.loaded,
      policy_directory=policy_directory,
      bc_directory=bc_directory,
      pairs=self.pairs,
      rows=self.rows[chosen],
      seed=self.seed,
    )

  def diagnostics(self) -> dict[str, Any]:
    """See `diagnostics.measure`."""
    return diagnostics.measure(
      self.store,
      data=self.loaded.data,
      pairs=self.pairs,
      rows=self.rows,
      max_sources=self.config.max_diagnostic_sources,
      tokenize=self.scorer.tokenize,
    )

  def write(
    self,
    outputs: Mapping[str, outputs_stage.Made],
    scores: Mapping[str, outputs_lib.Scores],
  ) -> None:
    """Writes the outputs of searches, all scores, and TensorBoard's events."""
    for name in self.config.searches():
      path = self.path / outputs_stage.text_file(name)
      with files.atomic_write(path) as temporary:
        temporary.write_text(
          ''.join(f'{text_files.one_line(t)}\n' for t in outputs[name].texts),
          encoding='utf-8',
        )
    outputs_stage.write(self.path, scores)
    sample_events.write(
      self.path,
      self.entries,
      reward_name=self.scorer.reward.name,
      pairs=self.pairs,
      vocabulary=self.loaded.data.vocabulary,
      step=0,
    )

  def measure(
    self,
    samples: outputs_stage.Samples,
    outputs: Mapping[str, outputs_stage.Made],
    scores: Mapping[str, outputs_lib.Scores],
  ) -> dict[str, Any]:
    """Returns all measurements that need only this policy's outputs."""
    num_distinct = text_metrics.distinct_samples(samples.sources, samples.texts)
    described = {
      name: outputs_stage.describe(
        outputs[name],
        scores[name],
        distinct=num_distinct / len(self.rows)
        if name == outputs_lib.SAMPLES
        else 1.0,
      )
      for name in outputs
    }
    of_samples = described[outputs_lib.SAMPLES]
    texts, references = outputs[self.config.text_name].texts, self.references
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
      'distinct_samples': num_distinct,
      'unfinished': float(1.0 - samples.finished.mean()),
      'best_of_n': _best_of_n(samples),
      'outputs': described,
      'text': self.config.text_name,
    }
    if samples.judged is not None:
      human = outputs_stage.HUMAN
      measured[human] = of_samples[human]
      measured['best_of_n_human'] = _best_of_n(samples, samples.judged)
    if by_languages := self._by_languages(samples, texts):
      measured['languages'] = by_languages
    return measured

  def _by_languages(
    self, samples: outputs_stage.Samples, texts: Sequence[str]
  ) -> dict[str, dict[str, Any]]:
    """Returns measurements of each language pair, if there are several.

    BLEU's tokeniser follows the references of the pair, unless it is set.

    Args:
      texts: one output per source.
    """
    names = [codes.name for codes in self.pairs.languages_of(self.rows)]
    rows_of = {
      name: [row for row, its in enumerate(names) if its == name]
      for name in dict.fromkeys(names)
    }
    if len(rows_of) < 2:
      return {}
    measured = {}
    for name, rows in rows_of.items():
      outputs = [texts[row] for row in rows]
      references = [self.references[row] for row in rows]
      tokenize = self.config.bleu_tokenize
      bleu, signature = text_metrics.corpus_bleu(
        outputs,
        references,
        tokenize=tokenize or reference_text.bleu_tokenizer(references),
      )
      measured[name] = {
        'sources': len(rows),
        'reward': float(100 * samples.rewards[rows].mean()),
        'bleu': bleu,
        'bleu_signature': signature,
        'chrf': text_metrics.corpus_chrf(outputs, references)[0],
      }
      if samples.judged is not None:
        judged = float(100 * samples.judged[rows].mean())
        measured[name][outputs_stage.HUMAN] = judged
      logging.info(
        'evaluate %s, %s: %d sources, reward %.2f, BLEU %.2f, chrF %.2f',
        self.path.name,
        name,
        *(measured[name][key] for key in ('sources', 'reward', 'bleu', 'chrf')),
      )
    return measured


def _best_of_n(
  samples: outputs_stage.Samples, judged: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
  """Returns the curve over N of the reward, or of the judge's scores, x100."""
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
