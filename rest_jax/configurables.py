"""The classes that gin files may name, each by its bare name."""

from rest_jax import experiment
from rest_jax import gin_utils
from rest_jax.data import ratings
from rest_jax.data import seqio_tasks
from rest_jax.data import sources
from rest_jax.data import synthetic
from rest_jax.data import task
from rest_jax.data import vocabularies
from rest_jax.filters import fixed
from rest_jax.filters import per_source
from rest_jax.losses import bc
from rest_jax.models import network
from rest_jax.parallel import mesh
from rest_jax.rewards import blocks
from rest_jax.rewards import corruptions
from rest_jax.sampling import sampler
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import evaluate
from rest_jax.stages import grow
from rest_jax.stages import improve
from rest_jax.stages import reward
from rest_jax.training import optimizers
from rest_jax.training import trainer

ROOT = experiment.Experiment

CLASSES = (
  experiment.Experiment,
  task.Task,
  sources.ParallelText,
  sources.TsvText,
  sources.SourceText,
  sources.Concatenation,
  seqio_tasks.SeqioPairs,
  synthetic.SyntheticPairs,
  synthetic.SyntheticRatings,
  synthetic.SyntheticJudge,
  ratings.RatingsFile,
  vocabularies.VocabularyConfig,
  network.NetworkConfig,
  mesh.MeshConfig,
  optimizers.OptimizerConfig,
  trainer.TrainerConfig,
  bc_stage.BCConfig,
  reward.RewardStage,
  blocks.ScoringConfig,
  corruptions.CorruptionConfig,
  grow.GrowConfig,
  sampler.DecodeConfig,
  improve.ImproveConfig,
  evaluate.EvaluateConfig,
  fixed.Fixed,
  fixed.Quantile,
  per_source.Percentile,
  per_source.Interpolation,
  bc.BC,
)


def register() -> None:
  """Makes all of them known to gin."""
  gin_utils.register(*CLASSES)
