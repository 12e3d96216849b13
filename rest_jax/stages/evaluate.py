"""Stage `evaluate`: what one policy does on one split, and results of all.

For each policy and split a folder holds n sampled outputs of every source (a
sample store, with rewards and the judge's scores beside it), one greedy output and
the best of beam search if asked for, scores of each source by decode, and a
manifest with what was measured.
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
  policies,
  prepare,
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
_LOOKED_AT = 1_000  # References by which BLEU's tokeniser is chosen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """What is reported of every policy.

  Attributes:
    decode: the samples that are scored, and from which Best-of-N curves and the
      best of all are computed: temperature and number of samples.
    selection: the draws by which Improve steps choose checkpoints.
    splits: 'validation', 'test' or both.
    max_sources: evaluate on this many sources of a split, evenly spread; None
      for all.
    max_selection_sources: likewise for choosing checkpoints.
    max_diagnostic_sources: likewise for the diagnostics of reward hacking; a
      teacher-forced pass of BC over their samples is part of them.
    bleu_tokenize: sacrebleu's tokeniser: '13a', 'zh' for Chinese, ...; None
      follows the script of the references.
    beam_size: number of beams of a beam search beside greedy search, whose
      outputs are then those of an entry's own BLEU and chrF; None for greedy
      outputs alone.
    length_penalty: of beam search, see `DecodeConfig`.
  """

  decode: sampler_lib.DecodeConfig
  selection: sampler_lib.DecodeConfig
  splits: tuple[str, ...] = (prepare.VALIDATION, prepare.TEST)
  max_sources: int | None = None
  max_selection_sources: int | None = None
  max_diagnostic_sources: int | None = 250
  bleu_tokenize: str | None = None
  beam_size: int | None = None
  length_penalty: float = 0.6

  def searches(self) -> dict[str, sampler_lib.DecodeConfig]:
    """Returns the decodes that search for one output, by name, greedy first."""
    found = {outputs_lib.GREEDY: self._search(None)}
    if self.beam_size is not None:
      found[outputs_lib.beam(self.beam_size)] = self._search(self.beam_size)
    return found

  def _search(self, beam_size: int | None) -> sampler_lib.DecodeConfig:
    num_rows = self.decode.block_sources * self.decode.block_samples
    return dataclasses.replace(
      self.decode,
      num_samples_per_source=1,
      samples_per_block=None,
      temperature=0.0,
      block_sources=max(1, num_rows // (beam_size or 1)),
      # Each is compiled, and one pass over a split is short.
      row_shares=(0.5,),
      compact_shares=(),
      queue_sources=None,
      beam_size=beam_size,
      length_penalty=self.length_penalty,
    )

  @property
  def text_name(self) -> str:
    """The decode of an entry's own BLEU and chrF: beam search, or greedy."""
    return list(self.searches())[-1]

  def choices(self) -> dict[str, outputs_stage.Choose]:
    """Returns what chooses one of the samples of each source, by name."""
    num_samples = self.decode.num_samples_per_source
    found: dict[str, outputs_stage.Choose] = {}
    if num_samples > 1:
      found[outputs_lib.best_of(num_samples)] = outputs_stage.best_choice
    if num_samples > 2:  # Of two samples each agrees as much as the other.
      found[outputs_lib.mbr(num_samples)] = outputs_stage.mbr_choice
    return found

  @property
  def decodes(self) -> tuple[str, ...]:
    """The names of all decodes whose outputs are measured."""
    return (*self.searches(), outputs_lib.SAMPLES, *self.choices())

  def __post_init__(self):
    self.searches()  # Now rather than after training, if a value is wrong.
    settings.make_tuples(self, 'splits')
    known = (prepare.TRAIN, prepare.VALIDATION, prepare.TEST)
    if not self.splits or set(self.splits) - set(known):
      raise ValueError(f'splits must be some of {known}; got {self.splits}.')
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
    config: see `EvaluateConfig`.
    split: which pairs.
    policy: the policy.
    bc: BC, from which the policy's distance is measured.
    data: the prepared data.
    reward: R, and the scale of the run.
    judge: the independent judge, where there is one.
    evidence: the samples by which a reward that needs some judges; None for
      others.
    seed: sampling seed; not that by which checkpoints were chosen.
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
    found = {'data': self.data, 'bc': self.bc, 'policy': self.policy}
    if self.evidence is not None:
      found['judged by'] = self.evidence
    return {**found, **self.reward.inputs}

  @property
  def decode(self) -> sampler_lib.DecodeConfig:
    """How the policy is sampled."""
    temperature = self.policy.temperature()
    if temperature is None:
      return self.config.decode
    return dataclasses.replace(self.config.decode, temperature=temperature)

  def _tokenize(self, pairs: pair_store.PairStore) -> str:
    if self.config.bleu_tokenize is not None:
      return self.config.bleu_tokenize
    return reference_text.bleu_tokenizer(_some_references(pairs))

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    config = dataclasses.replace(self.config, decode=self.decode)
    return {
      'decode': config.decode,
      'decodes': config.decodes,
      'max_sources': config.max_sources,
      'max_diagnostic_sources': config.max_diagnostic_sources,
      'bleu_tokenize': self._tokenize(context.data.pairs(self.split)),
      **_beam_settings(config),
      **evidence_lib.described(evidence_lib.load(self.evidence, context)),
      'split': self.split,
      'network': self.policy.network(context).config,
      'policy': policies.digest(self.policy.policy_folder),
      'bc': policies.digest(self.bc.folder),
      'data': context.data.digest,
      'reward': self.reward.described(context),
      'normalizer': self.reward.normalizer().to_json(),
      'judge': self._judge_settings(context),
      'kl_temperature': config.decode.untempered().temperature,
      'seed': self.seed,
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config = dataclasses.replace(self.config, decode=self.decode)
    data, split = context.data, self.split
    pairs = data.pairs(split)
    evidence = evidence_lib.load(self.evidence, context)
    evaluation = self._evaluation(context, output.path, config, evidence)
    score_samples.check_references(evaluation.scorer.reward, pairs, split)
    judge = evaluation.scorer.judge
    if judge is not None:
      score_samples.check_references(judge, pairs, split)
    seconds = evaluation.sample(None if judge is None else _Judged(judge))
    samples = evaluation.samples()
    made = evaluation.outputs(samples, seconds)
    scores = {name: evaluation.scorer.score(one) for name, one in made.items()}
    distance = evaluation.distance_to_bc(
      self.policy.policy_folder, self.bc.folder
    )
    if processes.is_main():
      evaluation.write(made, scores)
    measured = evaluation.measure(samples, made, scores)
    texts, references = made[config.text_name].texts, evaluation.references
    _warn_of_tokenizer(
      output, evaluation.scorer.tokenize, measured['bleu'], texts, references
    )
    num_samples = samples.rewards.size
    if split == config.splits[0]:  # Once a policy.
      _warn_of_length(output, config, measured['unfinished'], num_samples)
    if evidence is not None:
      measured['collapse'] = evidence_lib.measure_collapse(
        output, evaluation.entries, evidence, data.vocabulary
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

  def _evaluation(
    self,
    context: context_lib.Context,
    directory: pathlib.Path,
    config: EvaluateConfig,
    evidence: evidence_lib.StoredEvidence | None,
  ) -> evaluation_lib.Evaluation:
    policy = self.policy.network(context)
    pairs = context.data.pairs(self.split)
    return evaluation_lib.Evaluation(
      path=directory,
      decode=config.decode,
      searches=config.searches(),
      text=config.text_name,
      choices=config.choices(),
      max_diagnostic_sources=config.max_diagnostic_sources,
      policy=policy,
      params=policies.load(self.policy.policy_folder, policy, context.mesh),
      data=context.data,
      mesh_config=context.mesh,
      seed=self.seed,
      scorer=outputs_stage.Scorer(
        reward=self.reward.load(context),
        normalizer=self.reward.normalizer(),
        judge=self._loaded_judge(context),
        evidence=evidence,
        pairs=pairs,
        rows=pair_store.spread_rows(len(pairs), config.max_sources),
        tokenize=self._tokenize(pairs),
      ),
    )

  def _loaded_judge(
    self, context: context_lib.Context
  ) -> rewards_base.Reward | None:
    if self.judge is None:
      return None
    return self.judge.load(context.resources(self.reward.trained))

  def _judge_settings(self, context: context_lib.Context) -> str | None:
    """Its name, and its digest if it has settings."""
    judge = self._loaded_judge(context)
    if judge is None:
      return None
    return f'{judge.name} {judge.digest}'.strip()


class _Judged:
  """A judge under the name of its column beside samples."""

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


def _beam_settings(config: EvaluateConfig) -> dict[str, Any]:
  """For the record; nothing if there is no beam search."""
  if config.beam_size is None:
    return {}
  return {'beam': [config.beam_size, config.length_penalty]}


def read_scores(
  directory: str | pathlib.Path, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns normalised scores and source ids of a finished evaluation's rows."""
  store = sample_store.SampleStore.open(directory)
  _, scores = store.rewards(name)
  return np.asarray(scores, np.float64), np.asarray(store.source_id)


def policy_digest(directory: pathlib.Path) -> str:
  """Returns the digest of the policy that a finished evaluation is of."""
  return folder_lib.read_manifest(directory)['settings']['policy']


def _some_references(pairs: pair_store.PairStore) -> list[str]:
  """References by which the tokeniser of BLEU is chosen."""
  return pair_store.texts_of(
    pairs, pair_store.spread_rows(len(pairs), _LOOKED_AT)
  )[1]


def _warn_of_tokenizer(
  folder: folder_lib.StageFolder,
  tokenize: str,
  bleu: float,
  outputs: Sequence[str],
  references: Sequence[str],
) -> None:
  """Warns where a tokeniser takes whole sentences for words."""
  script = reference_text.script_of(references)
  if not reference_text.is_unfit(tokenize, script):
    return
  fitting = reference_text.bleu_tokenizer(references)
  other, _ = text_metrics.corpus_bleu(outputs, references, tokenize=fitting)
  folder.warn(
    f'{script.share:.0%} of the letters of the references are {script.name}, '
    f'which bleu_tokenize={tokenize!r} does not cut into words: BLEU is '
    f'{bleu:.2f}, with {fitting!r} {other:.2f}. Leave '
    'EvaluateConfig.bleu_tokenize out, or set it to the latter.'
  )


def _warn_of_length(
  folder: folder_lib.StageFolder,
  config: EvaluateConfig,
  unfinished_share: float,
  num_samples: int,
) -> None:
  """Warns where many samples are longer than the maximum."""
  message = samples_without_eos.message(
    round(unfinished_share * num_samples),
    num_samples,
    config.decode.max_target_length,
  )
  if message:
    folder.warn(message)
