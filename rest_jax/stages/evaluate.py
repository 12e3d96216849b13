"""Stage `evaluate`: what one policy does on one split, and results of all.

For each policy and split a folder holds n sampled outputs of every source (a
sample store, with rewards and the judge's scores beside it), one greedy output or
the best of beam search, and a manifest with what was measured.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from rest_jax import progress as progress_lib
from rest_jax import settings, types
from rest_jax.data import files, pair_store, sample_rewards, sample_store
from rest_jax.data import task as task_lib
from rest_jax.evaluation import best_of_n, metrics, sampled, text_metrics
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize, reference_text
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  collect,
  diagnostics,
  policies,
  prepare,
  sample_events,
  unfinished,
)
from rest_jax.stages import evidence as evidence_lib
from rest_jax.stages import folder as folder_lib

HUMAN = 'human'
_SOURCES_PER_SHARD = 2048
_LOOKED_AT = 1_000  # References by which BLEU's tokeniser is chosen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """What is reported of every policy.

  Attributes:
    decode: the draws whose reward is reported and from which Best-of-N curves
      are computed: temperature and number of samples.
    selection: the draws by which Improve steps choose checkpoints.
    splits: 'validation', 'test' or both.
    max_sources: evaluate on this many sources of a split, evenly spread; None
      for all.
    max_selection_sources: likewise for choosing checkpoints.
    max_diagnostic_sources: likewise for the diagnostics of reward hacking; a
      teacher-forced pass of BC over their samples is part of them.
    bleu_tokenize: sacrebleu's tokeniser: '13a', 'zh' for Chinese, ...; None
      follows the script of the references.
    beam_size: of the outputs that BLEU and chrF are of; None for greedy ones.
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

  def text_decode(self) -> sampler_lib.DecodeConfig:
    """How the outputs that BLEU and chrF are of are made."""
    num_rows = self.decode.block_sources * self.decode.block_samples
    return dataclasses.replace(
      self.decode,
      num_samples_per_source=1,
      samples_per_block=None,
      temperature=0.0,
      block_sources=max(1, num_rows // (self.beam_size or 1)),
      # Each is compiled, and one pass over a split is short.
      row_shares=(0.5,),
      compact_shares=(),
      queue_sources=None,
      beam_size=self.beam_size,
      length_penalty=self.length_penalty,
    )

  @property
  def text_name(self) -> str:
    """The words for them in results."""
    return 'greedy' if self.beam_size is None else f'beam {self.beam_size}'

  @property
  def text_file(self) -> str:
    return f'{self.text_name.replace(" ", "_")}.txt'

  def __post_init__(self):
    self.text_decode()  # Now rather than after training, if a value is wrong.
    settings.make_tuples(self, 'splits')
    known = (prepare.TRAIN, prepare.VALIDATION, prepare.TEST)
    if not self.splits or set(self.splits) - set(known):
      raise ValueError(f'splits must be some of {known}; got {self.splits}.')
    for name in (
      'max_sources',
      'max_selection_sources',
      'max_diagnostic_sources',
    ):
      value = getattr(self, name)
      if value is not None and value < 2:
        raise ValueError(f'{name} must be at least 2, or None; got {value}.')


def run(
  config: EvaluateConfig,
  *,
  split: str,
  policy: policy_lib.Policy,
  policy_directory: str | pathlib.Path,
  bc_directory: str | pathlib.Path,
  data: prepare.PreparedData,
  reward: rewards_base.Reward,
  normalizer: normalize.Normalizer,
  judge: task_lib.Judge | None,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  evidence: evidence_lib.StoredEvidence | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Samples, scores and measures one policy on one split.

  Args:
    config: see `EvaluateConfig`.
    split: which pairs.
    policy: the network.
    policy_directory: a finished `bc` or `improve` folder.
    bc_directory: that of BC, from which the policy's distance is measured.
    data: the prepared data.
    reward: R.
    normalizer: of the run.
    judge: the independent judge, where there is one.
    mesh_config: devices and rules.
    directory: the folder to write.
    seed: of the draws; not that by which checkpoints were chosen.
    evidence: stored samples by which a reward that needs some judges.
    overwrite: see `folder.begin`.

  Returns:
    The finished folder.
  """
  pairs = data.pairs(split)
  references = _some_references(pairs)
  tokenize = config.bleu_tokenize
  if tokenize is None:
    tokenize = reference_text.bleu_tokenizer(references)
  folder = folder_lib.begin(
    directory,
    {
      'decode': config.decode,
      'max_sources': config.max_sources,
      'max_diagnostic_sources': config.max_diagnostic_sources,
      'bleu_tokenize': tokenize,
      **_beam_settings(config),
      **evidence_lib.described(evidence),
      'split': split,
      'network': policy.config,
      'policy': policies.digest(policy_directory),
      'bc': policies.digest(bc_directory),
      'data': data.digest,
      'reward': {'name': reward.name, 'digest': reward.digest},
      'normalizer': normalizer.to_json(),
      'judge': None if judge is None else judge.name,
      'kl_temperature': config.decode.untempered().temperature,
      'seed': seed,
    },
    overwrite=overwrite,
    origins={
      'policy': policy_directory,
      'bc': bc_directory,
      'data': data.directory,
    },
  )
  if folder.is_finished:
    return folder.path
  collect.check_references(reward, pairs, split)
  rows = sampled.spread_rows(len(pairs), config.max_sources)
  shards = sample_store.shard_ranges(len(rows), _SOURCES_PER_SHARD)
  params = policies.load(policy_directory, policy, mesh_config)
  collect.sample(
    folder.path,
    sampler=collect.policy_sampler(
      policy, config.decode, mesh_config, data.vocabulary, is_shared=False
    ),
    params=params,
    policy=policy,
    mesh_config=mesh_config,
    pairs=pairs,
    rows=rows,
    shards=shards,
    seed=seed,
    grow_step=0,
    with_references=False,
    description=f'evaluate {folder.path.name}: sample',
  )
  processes.barrier('sampled')
  scorers: list[tuple[rewards_base.Reward, normalize.Normalizer]] = [
    (reward, normalizer)
  ]
  if judge is not None:
    # The judge's scale is its own: raw and normalised are the same.
    scorers.append((_Judged(judge), normalize.Normalizer(0.0, 1.0)))
  for scorer, scale in scorers:
    collect.score(
      folder.path,
      reward=scorer,
      num_shards=len(shards),
      pairs=pairs,
      vocabulary=data.vocabulary,
      normalizer=scale,
      description=f'evaluate {folder.path.name}: {scorer.name}',
      evidence=evidence,
    )
  outputs = _outputs(config, policy, params, data, pairs, rows, mesh_config)
  distance = diagnostics.distance_to_bc(
    config.decode,
    params=params,
    policy=policy,
    policy_directory=policy_directory,
    bc_directory=bc_directory,
    data=data,
    pairs=pairs,
    rows=rows,
    max_sources=config.max_diagnostic_sources,
    mesh_config=mesh_config,
    seed=seed,
  )
  entries = sample_store.shard_entries(folder.path, len(shards))
  if processes.is_main():
    with files.atomic_write(folder.path / config.text_file) as temporary:
      temporary.write_text('\n'.join(outputs) + '\n', encoding='utf-8')
    diagnostics.write_counts(
      folder.path,
      outputs,
      sampled.texts_of(pairs, rows)[1],
      tokenize=tokenize,
    )
    sample_events.write(
      folder.path,
      entries,
      reward_name=reward.name,
      pairs=pairs,
      vocabulary=data.vocabulary,
      step=0,
    )
  measured = _measure(
    tokenize, folder.path, entries, reward.name, judge, outputs, pairs, rows,
    data,
  )  # fmt: skip
  _warn_of_tokenizer(
    folder, tokenize, references, measured, outputs, pairs, rows
  )
  num_samples = sum(entry['rows'] for entry in entries)
  message = unfinished.message(
    round(measured['unfinished'] * num_samples),
    num_samples,
    config.decode.max_target_length,
  )
  if message and split == config.splits[0]:  # Once a policy.
    folder.warn(message)
  if evidence is not None:
    measured['collapse'] = evidence_lib.measure_collapse(
      folder, entries, evidence, data.vocabulary
    )
  folder.finish(
    {
      'schema_version': sample_store.SCHEMA_VERSION,
      'num_sources': len(pairs),
      'num_rows': num_samples,
      'shards': entries,
      'split': split,
      'measured': measured,
      'diagnostics': {
        **diagnostics.measure(
          folder.path,
          entries,
          data=data,
          pairs=pairs,
          rows=rows,
          max_sources=config.max_diagnostic_sources,
          tokenize=tokenize,
        ),
        **distance,
      },
    }
  )
  return folder.path


class _Judged:
  """A judge's scores as the rewards of a store; no training sees them."""

  name = HUMAN
  digest = ''
  needs_references = False

  def __init__(self, judge: task_lib.Judge):
    self._judge = judge

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: rewards_base.References = None,
  ) -> np.ndarray:
    del references
    return np.asarray(self._judge.scores(sources, hypotheses), np.float32)


def _beam_settings(config: EvaluateConfig) -> dict[str, Any]:
  """For the record; nothing if there is no beam search."""
  if config.beam_size is None:
    return {}
  return {'beam': [config.beam_size, config.length_penalty]}


def _outputs(
  config: EvaluateConfig,
  policy: policy_lib.Policy,
  params: types.Params,
  data: prepare.PreparedData,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  mesh_config: mesh_lib.MeshConfig,
) -> list[str]:
  sampler = collect.policy_sampler(
    policy, config.text_decode(), mesh_config, data.vocabulary
  )
  with progress_lib.Progress(
    f'{config.text_name} outputs', len(rows), 'source'
  ) as progress:
    tokens = [
      samples[0]
      for block in sampler.sample(
        params,
        pairs.source_tokens,
        rows,
        seed=0,
        grow_step=0,
        progress=progress.advance,
      )
      for samples in block.tokens
    ]
  return data.vocabulary.decode_batch(tokens)


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
  return sampled.texts_of(pairs, sampled.spread_rows(len(pairs), _LOOKED_AT))[1]


def _warn_of_tokenizer(
  folder: folder_lib.StageFolder,
  tokenize: str,
  references: Sequence[str],
  measured: dict[str, Any],
  outputs: Sequence[str],
  pairs: pair_store.PairStore,
  rows: np.ndarray,
) -> None:
  """Warns where a tokeniser takes whole sentences for words."""
  script = reference_text.script_of(references)
  if not reference_text.is_unfit(tokenize, script):
    return
  fitting = reference_text.bleu_tokenizer(references)
  other, _ = text_metrics.corpus_bleu(
    outputs, sampled.texts_of(pairs, rows)[1], tokenize=fitting
  )
  folder.warn(
    f'{script.share:.0%} of the letters of the references are {script.name}, '
    f'which bleu_tokenize={tokenize!r} does not cut into words: BLEU is '
    f'{measured["bleu"]:.2f}, with {fitting!r} {other:.2f}. Leave '
    'EvaluateConfig.bleu_tokenize out, or set it to the latter.'
  )


def _measure(
  tokenize, directory, entries, reward_name, judge, outputs, pairs, rows, data
) -> dict[str, Any]:
  """Everything that this policy's outputs alone decide."""
  ids, texts, rewards, judged, finished = [], [], [], [], []
  for shard, entry in enumerate(entries):
    opened = sample_store.Shard(directory / entry['file'])
    ids.append(opened.source_id)
    finished.append(opened.finished)
    texts += collect.texts(
      directory, shard, len(entries), pairs, data.vocabulary
    )[1]
    for name, scores in ((reward_name, rewards), (HUMAN, judged)):
      if name == HUMAN and judge is None:
        continue
      _, score = sample_rewards.read_rewards(
        sample_store.rewards_path(directory, name, shard, len(entries)),
        rows=entry['rows'],
        samples_sha256=entry['sha256'],
      )
      scores.append(score)
  ids = np.concatenate(ids)
  rewards = np.concatenate(rewards).astype(np.float64)
  judged = np.concatenate(judged).astype(np.float64) if judged else None
  finished = np.concatenate(finished)
  references = [pairs.reference_text(int(row)) for row in rows]
  bleu, bleu_signature = text_metrics.corpus_bleu(
    outputs, references, tokenize=tokenize
  )
  chrf, chrf_signature = text_metrics.corpus_chrf(outputs, references)
  table = rewards.reshape(len(rows), -1)
  judged_table = None if judged is None else judged.reshape(table.shape)
  sizes = best_of_n.sizes(table.shape[1])
  is_finished = finished.reshape(table.shape)
  curve = best_of_n.curve(table, sizes, finished=is_finished)
  measured = {
    'reward': _estimate(metrics.clustered_mean(rewards, ids)),
    'bleu': bleu,
    'bleu_signature': bleu_signature,
    'chrf': chrf,
    'chrf_signature': chrf_signature,
    'length_ratio': text_metrics.length_ratio(outputs, references),
    'distinct_samples': text_metrics.distinct_samples(ids, texts),
    'unfinished': float(1.0 - finished.mean()),
    'best_of_n': {str(n): _estimate(e) for n, e in curve.items()},
  }
  if judge is not None and judged is not None:
    judged_curve = best_of_n.curve(
      table, sizes, judged_table, finished=is_finished
    )
    measured[HUMAN] = _estimate(metrics.clustered_mean(judged, ids))
    measured['best_of_n_human'] = {
      str(n): _estimate(e) for n, e in judged_curve.items()
    }
    measured['human_greedy'] = float(
      np.mean(
        judge.scores([pairs.source_text(int(row)) for row in rows], outputs)
      )
    )
  return measured


def _estimate(estimate: metrics.Estimate) -> dict[str, float]:
  """Times 100, as results are reported."""
  return {'mean': 100 * estimate.mean, 'stderr': 100 * estimate.stderr}
