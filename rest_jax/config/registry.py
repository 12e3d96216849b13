"""The classes that gin files may use, each by its bare name.

`rest_jax` has them under the same names. A new class is one more line here.
"""

import dataclasses

from rest_jax.config import gin_files
from rest_jax.config.comparison import Comparison as Comparison
from rest_jax.data.iwslt import IwsltArchive as IwsltArchive
from rest_jax.data.ratings import RatingsFile as RatingsFile
from rest_jax.data.seqio_tasks import SeqioPairs as SeqioPairs
from rest_jax.data.sources import Concatenation as Concatenation
from rest_jax.data.sources import ParallelText as ParallelText
from rest_jax.data.sources import SourceText as SourceText
from rest_jax.data.sources import TextPairs as TextPairs
from rest_jax.data.sources import TsvText as TsvText
from rest_jax.data.task import Task as Task
from rest_jax.data.vocabularies import VocabularyConfig as VocabularyConfig
from rest_jax.experiment import Experiment as Experiment
from rest_jax.filters.for_all_sources import Fixed as Fixed
from rest_jax.filters.for_all_sources import Quantile as Quantile
from rest_jax.filters.per_source import Interpolation as Interpolation
from rest_jax.filters.per_source import Percentile as Percentile
from rest_jax.losses.bc import BC as BC
from rest_jax.losses.bve import BVE as BVE
from rest_jax.losses.bvmpo import BVMPO as BVMPO
from rest_jax.losses.dpo import DPO as DPO
from rest_jax.losses.gold import GoldP as GoldP
from rest_jax.losses.gold import GoldS as GoldS
from rest_jax.losses.oac import OAC as OAC
from rest_jax.losses.regression import Regression as Regression
from rest_jax.losses.reward_conditioned import (
  RewardConditionedBC as RewardConditionedBC,
)
from rest_jax.losses.reward_weighted_bc import (
  RewardWeightedBC as RewardWeightedBC,
)
from rest_jax.losses.within_source import WithinSource as WithinSource
from rest_jax.models.network_config import NetworkConfig as NetworkConfig
from rest_jax.models.parts import AttentionConfig as AttentionConfig
from rest_jax.models.parts import EmbeddingConfig as EmbeddingConfig
from rest_jax.models.parts import EncoderConfig as EncoderConfig
from rest_jax.models.parts import FeedForwardConfig as FeedForwardConfig
from rest_jax.models.parts import NormConfig as NormConfig
from rest_jax.models.parts import PositionConfig as PositionConfig
from rest_jax.models.parts import SpecialIds as SpecialIds
from rest_jax.online.objective import ClippedObjective as ClippedObjective
from rest_jax.online.ppo_config import PPOConfig as PPOConfig
from rest_jax.parallel.mesh import MeshConfig as MeshConfig
from rest_jax.rating.rating_config import RatingConfig as RatingConfig
from rest_jax.rewards.acquisition import Acquisition as Acquisition
from rest_jax.rewards.composed import Component as Component
from rest_jax.rewards.composed import Ensemble as Ensemble
from rest_jax.rewards.composed import Minimum as Minimum
from rest_jax.rewards.consensus import Consensus as Consensus
from rest_jax.rewards.controls import RandomReward as RandomReward
from rest_jax.rewards.controls import Verbosity as Verbosity
from rest_jax.rewards.corruptions import CorruptionConfig as CorruptionConfig
from rest_jax.rewards.corruptions import (
  SevereCorruptionConfig as SevereCorruptionConfig,
)
from rest_jax.rewards.external import Bleurt as Bleurt
from rest_jax.rewards.external import Comet as Comet
from rest_jax.rewards.external import External as External
from rest_jax.rewards.external import SentenceEmbedding as SentenceEmbedding
from rest_jax.rewards.feature_reward import FeatureReward as FeatureReward
from rest_jax.rewards.guards import Guarded as Guarded
from rest_jax.rewards.guards import Language as Language
from rest_jax.rewards.guards import LengthRatio as LengthRatio
from rest_jax.rewards.guards import Repetition as Repetition
from rest_jax.rewards.guards import SourceCopy as SourceCopy
from rest_jax.rewards.learned_references import (
  RatedReferences as RatedReferences,
)
from rest_jax.rewards.lexical import Bleu as Bleu
from rest_jax.rewards.lexical import Chrf as Chrf
from rest_jax.rewards.lexical import Ter as Ter
from rest_jax.rewards.metricx import MetricX as MetricX
from rest_jax.rewards.probes import ProbeConfig as ProbeConfig
from rest_jax.rewards.scoring_plan import ScoringConfig as ScoringConfig
from rest_jax.sampling.decode_config import DecodeConfig as DecodeConfig
from rest_jax.stages.answers import SampleConfig as SampleConfig
from rest_jax.stages.bc import BCConfig as BCConfig
from rest_jax.stages.evaluate import EvaluateConfig as EvaluateConfig
from rest_jax.stages.evidence import EvidenceConfig as EvidenceConfig
from rest_jax.stages.grow import GrowConfig as GrowConfig
from rest_jax.stages.improve import ImproveConfig as ImproveConfig
from rest_jax.stages.likelihood import Likelihood as Likelihood
from rest_jax.stages.rated_samples import RatedSamples as RatedSamples
from rest_jax.stages.refresh import RefreshConfig as RefreshConfig
from rest_jax.stages.reward import RewardStage as RewardStage
from rest_jax.stages.value import ValueStage as ValueStage
from rest_jax.synthetic.corpus import SyntheticJudge as SyntheticJudge
from rest_jax.synthetic.corpus import SyntheticPairs as SyntheticPairs
from rest_jax.synthetic.corpus import SyntheticRaters as SyntheticRaters
from rest_jax.synthetic.corpus import SyntheticRatings as SyntheticRatings
from rest_jax.synthetic.corpus import SyntheticSources as SyntheticSources
from rest_jax.training.averaging import AverageConfig as AverageConfig
from rest_jax.training.lora import LoraConfig as LoraConfig
from rest_jax.training.optimizers import OptimizerConfig as OptimizerConfig
from rest_jax.training.trainer import TrainerConfig as TrainerConfig

ROOT = Experiment

CLASSES: tuple[type, ...] = tuple(
  value
  for value in list(globals().values())
  if isinstance(value, type) and dataclasses.is_dataclass(value)
)


def register() -> None:
  """Registers `CLASSES` with gin."""
  gin_files.register(*CLASSES)
