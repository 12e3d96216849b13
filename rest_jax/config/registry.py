"""The classes that gin files may use, each by its bare name."""

from rest_jax import comparison, experiment
from rest_jax.config import gin_files
from rest_jax.data import (
  iwslt,
  ratings,
  seqio_tasks,
  sources,
  task,
  vocabularies,
)
from rest_jax.filters import fixed, per_source
from rest_jax.losses import (
  bc,
  bve,
  bvmpo,
  dpo,
  gold,
  oac,
  regression,
  reward_conditioned,
  reward_weighted_bc,
  within_source,
)
from rest_jax.models import network, network_config
from rest_jax.online import objective
from rest_jax.online import ppo_config as online_config
from rest_jax.parallel import mesh
from rest_jax.rating import rating_config
from rest_jax.rewards import (
  acquisition,
  composed,
  consensus,
  controls,
  corruptions,
  external,
  guards,
  learned_references,
  lexical,
  metricx,
  probes,
  scoring_plan,
)
from rest_jax.sampling import sampler
from rest_jax.stages import (
  answers,
  evaluate,
  evidence,
  grow,
  improve,
  likelihood,
  rated_samples,
  refresh,
  reward,
  value,
)
from rest_jax.stages import bc as bc_stage
from rest_jax.synthetic import corpus
from rest_jax.training import averaging, lora, optimizers, trainer

ROOT = experiment.Experiment

CLASSES = (
  comparison.Comparison,
  experiment.Experiment,
  task.Task,
  sources.ParallelText,
  sources.TsvText,
  sources.SourceText,
  sources.TextPairs,
  sources.Concatenation,
  iwslt.IwsltArchive,
  seqio_tasks.SeqioPairs,
  corpus.SyntheticPairs,
  corpus.SyntheticRatings,
  corpus.SyntheticRaters,
  corpus.SyntheticJudge,
  ratings.RatingsFile,
  vocabularies.VocabularyConfig,
  network.NetworkConfig,
  *network_config.PARTS,
  mesh.MeshConfig,
  optimizers.OptimizerConfig,
  trainer.TrainerConfig,
  lora.LoraConfig,
  averaging.AverageConfig,
  bc_stage.BCConfig,
  reward.RewardStage,
  learned_references.RatedReferences,
  rated_samples.RatedSamples,
  regression.Regression,
  within_source.WithinSource,
  scoring_plan.ScoringConfig,
  corruptions.CorruptionConfig,
  corruptions.SevereCorruptionConfig,
  metricx.MetricX,
  lexical.Chrf,
  lexical.Bleu,
  lexical.Ter,
  composed.Component,
  composed.Ensemble,
  composed.Minimum,
  consensus.Consensus,
  likelihood.Likelihood,
  controls.RandomReward,
  controls.Verbosity,
  external.External,
  external.Comet,
  external.Bleurt,
  external.SentenceEmbedding,
  guards.Guarded,
  guards.LengthRatio,
  guards.Repetition,
  guards.SourceCopy,
  guards.Language,
  grow.GrowConfig,
  sampler.DecodeConfig,
  value.ValueStage,
  acquisition.Acquisition,
  refresh.RefreshConfig,
  improve.ImproveConfig,
  online_config.PPOConfig,
  objective.ClippedObjective,
  evaluate.EvaluateConfig,
  evidence.EvidenceConfig,
  answers.SampleConfig,
  probes.ProbeConfig,
  rating_config.RatingConfig,
  fixed.Fixed,
  fixed.Quantile,
  per_source.Percentile,
  per_source.Interpolation,
  bc.BC,
  bve.BVE,
  bvmpo.BVMPO,
  dpo.DPO,
  gold.GoldP,
  gold.GoldS,
  oac.OAC,
  reward_conditioned.RewardConditionedBC,
  reward_weighted_bc.RewardWeightedBC,
)


def register() -> None:
  """Registers `CLASSES` with gin."""
  gin_files.register(*CLASSES)
