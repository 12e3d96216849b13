"""Stage `evaluate`: the evaluation of one policy on one split.

The folder of a policy and split holds n sampled outputs of every source (a
sample store, with rewards and the judge's scores), the greedy output and, if
set, the beam search output of every source, the scores of each source by
decode, and a manifest with all measurements.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from rest_jax import settings
from rest_jax.data import pair_store, sample_store
from rest_jax.data import task as task_lib
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import text_metrics
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import reference_text
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  base,
  draw_samples,
  policies,
  run_reward,
  samples_without_eos,
  score_samples,
)
from rest_jax.stages import context as context_lib
from rest_jax.stages import evaluation as evaluation_lib
from rest_jax.stages import evidence as evidence_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import outputs as outputs_stage

HUMAN = outputs_stage.HUMAN
_MAX_REFERENCES = 1_000  # References from which BLEU's tokeniser is chosen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """Settings of the evaluation of every policy.

  Attributes:
    decode: temperature and number of the samples that are scored. Best-of-N
      curves are computed from them.
    selection: sampling settings for choosing the checkpoints of Improve steps.
    splits: 'validation', 'test' and further test sets of the task. The verdict
      chooses a policy on the first in this order, and reports it on the second.
    max_sources: number of sources of a split to evaluate on, evenly spread;
      None for all.
    max_selection_sources: likewise for choosing checkpoints.
    max_diagnostic_sources: likewise for the diagnostics of reward hacking,
      which include a teacher-forced pass of BC.
    bleu_tokenize: sacrebleu's tokeniser: '13a', 'zh' for Chinese, ...; None
      follows the script of the references.
    beam_size: number of beams of a beam search in addition to greedy search.
      The BLEU and chrF of a policy are then those of beam search. None for
      greedy search only.
    length_penalty: length penalty of beam search, see `DecodeConfig`.
  """

  decode: sampler_lib.DecodeConfig
  selection: sampler_lib.DecodeConfig
  splits: tuple[str, ...] = (task_lib.VALIDATION, task_lib.TEST)
  max_sources: int | None = None
  max_selection_sources: int | None = None
  max_diagnostic_sources: int | None = 250
  bleu_tokenize: str | None = None
  beam_size: int | None = None
  length_penalty: float = 0.6

  def searches(self) -> dict[str, sampler_lib.DecodeConfig]:
    """Returns greedy search, then beam search if set, by name."""
    decodes = {outputs_lib.GREEDY: self._search(None)}
    if self.beam_size is not None:
      decodes[outputs_lib.beam(self.beam_size)] = self._search(self.beam_size)
    return decodes

  def _search(self, beam_size: int | None) -> sampler_lib.DecodeConfig:
    num_rows = self.decode.block_sources * self.decode.block_samples
    return dataclasses.replace(
      self.decode,
      num_samples_per_source=1,
      samples_per_block=None,
      temperature=0.0,
      block_sources=max(1, num_rows // (beam_size or 1)),
      # Every shape is compiled, which takes longer than one pass over a split.
      row_shares=(0.5,),
      compact_shares=(),
      queue_sources=None,
      beam_size=beam_size,
      length_penalty=self.length_penalty,
    )

  @property
  def text_name(self) -> str:
    """The decode whose BLEU and chrF are the policy's: beam search or greedy."""
    return list(self.searches())[-1]

  def choices(self) -> dict[str, outputs_stage.Choose]:
    """Returns the rules that choose one sample of each source, by name."""
    num_samples = self.decode.num_samples_per_source
    rules: dict[str, outputs_stage.Choose] = {}
    if num_samples > 1:
      rules[outputs_lib.best_of(num_samples)] = outputs_stage.best_choice
    if num_samples > 2:  # Two samples agree with each other equally.
      rules[outputs_lib.mbr(num_samples)] = outputs_stage.mbr_choice
    return rules

  @property
  def decodes(self) -> tuple[str, ...]:
    """The names of all decodes whose outputs are measured."""
    return (*self.searches(), outputs_lib.SAMPLES, *self.choices())

  def __post_init__(self):
    self.searches()  # Refuses a wrong value now, not after training.
    settings.make_tuples(self, 'splits')
    if not self.splits:
      raise ValueError('splits must name at least one split; got ().')
    settings.at_least(
      self,
      2,
      'max_sources',
      'max_selection_sources',
      'max_diagnostic_sources',
      none='all',
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluate(base.Stage):
  """Samples, scores and measures one policy on one split.

  Attributes:
    bc: BC, to which the policy's KL divergence is measured.
    reward: R, and the scale of the run.
    judge: the independent judge; None without one.
    evidence: stored samples for a reward that compares the samples of a source;
      None for other rewards.
    seed: sampling seed; another than that of checkpoint selection.
  """

  config: EvaluateConfig
  split: str
  policy: base.PolicyStage
  bc: base.PolicyStage
  data: base.Stage
  reward: run_reward.RunReward
  judge: task_lib.Judge | None
  evidence: evidence_lib.Evidence | None
  seed: int

  run_mode = 'evaluate'
  help = 'Evaluates the policies that are finished, and writes the results.'
  pattern = r'evaluate/[^/]+'

  @property
  def name(self) -> str:
    return f'evaluate_{self.policy.policy_name}_{self.split}'

  @property
  def title(self) -> str:
    policy = folder_lib.in_words(self.policy.policy_name).replace('_', ' ')
    return f'evaluate {policy}, {self.split}'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {
      'data': self.data,
      'bc': self.bc,
      'policy': self.policy,
      **evidence_lib.inputs(self.evidence),
      **self.reward.inputs,
    }

  @property
  def decode(self) -> sampler_lib.DecodeConfig:
    """Sampling settings, with the temperature of this policy."""
    temperature = self.policy.temperature()
    if temperature is None:
      return self.config.decode
    return dataclasses.replace(self.config.decode, temperature=temperature)

  def _tokenize(self, pairs: pair_store.PairStore) -> str:
    if self.config.bleu_tokenize is not None:
      return self.config.bleu_tokenize
    rows = pair_store.spread_rows(len(pairs), _MAX_REFERENCES)
    return reference_text.bleu_tokenizer(pair_store.texts_of(pairs, rows)[1])

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    config = dataclasses.replace(self.config, decode=self.decode)
    beam = [config.beam_size, config.length_penalty]
    return {
      'decode': config.decode,
      'decodes': config.decodes,
      'max_sources': config.max_sources,
      'max_diagnostic_sources': config.max_diagnostic_sources,
      'bleu_tokenize': self._tokenize(context.data.pairs(self.split)),
      **({} if config.beam_size is None else {'beam': beam}),
      **evidence_lib.settings(self.evidence, context),
      'split': self.split,
      'network': self.policy.network(context).config,
      'policy': policies.digest(self.policy.policy_folder),
      'bc': policies.digest(self.bc.folder),
      'data': context.data.digest_of(self.split),
      'reward': self.reward.described(context),
      'normalizer': self.reward.normalizer().to_json(),
      'judge': self.reward.describe_judge(self.judge, context),
      'kl_temperature': config.decode.untempered().temperature,
      'seed': self.seed,
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config = dataclasses.replace(self.config, decode=self.decode)
    judge = self.reward.load_judge(self.judge, context)
    split = self.split
    pairs = context.data.pairs(split)
    evidence = evidence_lib.load(self.evidence, context)
    scorer = outputs_stage.Scorer(
      reward=self.reward.load(context),
      normalizer=self.reward.normalizer(),
      judge=judge,
      evidence=evidence,
      pairs=pairs,
      rows=pair_store.spread_rows(len(pairs), config.max_sources),
      tokenize=self._tokenize(pairs),
    )
    evaluation = evaluation_lib.Evaluation(
      path=output.path,
      config=config,
      loaded=draw_samples.LoadedPolicy.of_stage(self.policy, context),
      scorer=scorer,
      seed=self.seed,
    )
    score_samples.check_references(scorer.reward, pairs, split)
    if judge is not None:
      score_samples.check_references(judge, pairs, split)
    seconds = evaluation.sample(None if judge is None else _JudgeReward(judge))
    samples = evaluation.samples()
    outputs = evaluation.outputs(samples, seconds)
    scores = scorer.score(outputs)
    distance = evaluation.distance_to_bc(
      self.policy.policy_folder, self.bc.folder
    )
    if processes.is_main():
      evaluation.write(outputs, scores)
    measured = evaluation.measure(samples, outputs, scores)
    texts, references = outputs[config.text_name].texts, evaluation.references
    _warn_of_tokenizer(
      output, scorer.tokenize, measured['bleu'], texts, references
    )
    num_samples = samples.rewards.size
    if split == config.splits[0]:  # Once per policy.
      output.warn(
        samples_without_eos.message(
          round(measured['unfinished'] * num_samples),
          num_samples,
          config.decode.max_target_length,
        )
      )
    if evidence is not None:
      measured['collapse'] = evidence_lib.measure_collapse(
        output, evaluation.store, evidence, context.data.vocabulary
      )
    return {
      'schema_version': sample_store.SCHEMA_VERSION,
      'num_sources': len(pairs),
      'num_rows': num_samples,
      'shards': evaluation.entries,
      'split': split,
      'measured': measured,
      'diagnostics': {**evaluation.diagnostics(), **distance},
    }


class _JudgeReward:
  """A judge as a reward, to store its scores; training never reads them."""

  name = HUMAN

  def __init__(self, judge: rewards_base.Reward):
    self._judge = judge
    self.digest = judge.digest
    self.needs_references = judge.needs_references

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: rewards_base.References = None,
  ) -> np.ndarray:
    scores = self._judge.score(sources, hypotheses, references)
    return np.asarray(scores, np.float32)


def read_scores(
  directory: str | pathlib.Path, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the normalised scores and source ids of an evaluation's samples."""
  store = sample_store.SampleStore.open(directory)
  _, scores = store.rewards(name)
  return np.asarray(scores, np.float64), np.asarray(store.source_id)


def policy_digest(directory: pathlib.Path) -> str:
  """Returns the digest of the policy of a finished evaluation."""
  return folder_lib.read_manifest(directory)['settings']['policy']


def _warn_of_tokenizer(
  folder: folder_lib.StageFolder,
  tokenize: str,
  bleu: float,
  outputs: Sequence[str],
  references: Sequence[str],
) -> None:
  """Warns of a tokeniser that takes whole sentences for words."""
  script = reference_text.script_of(references)
  if not reference_text.is_unfit(tokenize, script):
    return
  fitting = reference_text.bleu_tokenizer(references)
  other, _ = text_metrics.corpus_bleu(outputs, references, tokenize=fitting)
  folder.warn(
    f'{script.share:.0%} of the letters of the references are {script.name}, '
    f'which bleu_tokenize={tokenize!r} does not split into words: BLEU is '
    f'{bleu:.2f}, with {fitting!r} {other:.2f}. Leave '
    'EvaluateConfig.bleu_tokenize out, or set it to the latter.'
  )
