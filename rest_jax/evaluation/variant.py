"""What was measured of one policy on one split: an entry of `results.json`."""

from collections.abc import Mapping
import dataclasses

from rest_jax import settings
from rest_jax.evaluation import (
  hacking,
  json_fields,
  metrics,
  policy_names,
  policy_warnings,
)
from rest_jax.evaluation import outputs as outputs_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filter:
  """The filter of an Improve step and its parameter.

  Attributes:
    kind: e.g. 'fixed', 'quantile', 'percentile', 'interpolation'.
    value: threshold, quantile, percentile or gamma, as the filter defines it.
  """

  kind: str
  value: float

  def __post_init__(self):
    json_fields.check(
      bool(self.kind), 'kind', 'the name of a filter', self.kind
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode:
  """Decoding settings of the outputs.

  Attributes:
    temperature: temperature of the samples, at least 0.
    samples_per_source: number of samples per source, at least 1.
    text: name of the search for BLEU and chrF, e.g. 'greedy' or 'beam 4'.
  """

  temperature: float
  samples_per_source: int
  text: str = 'greedy'

  def __post_init__(self):
    settings.at_least(self, 0, 'temperature')
    settings.at_least(self, 1, 'samples_per_source')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
  """The data of the Grow step that the filter kept.

  Attributes:
    samples: number of kept samples.
    fraction: share of kept samples, in [0, 1].
    sources_without_samples: number of sources with no kept sample.
  """

  samples: int
  fraction: float
  sources_without_samples: int

  def __post_init__(self):
    settings.at_least(self, 0, 'samples', 'sources_without_samples')
    settings.inside(self, '[0, 1]', 'fraction')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
  """Wall-clock seconds of the stages that made a policy.

  Attributes:
    grow: sampling of its training data.
    score: scoring of its training data.
    improve: training; for BC, the training of BC; for online training,
      everything except sampling and scoring.
  """

  grow: float = 0.0
  score: float = 0.0
  improve: float = 0.0

  def __post_init__(self):
    settings.at_least(self, 0, 'grow', 'score', 'improve')

  @property
  def total(self) -> float:
    """The sum."""
    return self.grow + self.score + self.improve


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics:
  """Signs of reward hacking in the samples of some sources; see `hacking`.

  Attributes:
    sources: number of sources of the samples.
    repetition: share of word 3-grams that repeat an earlier one of their text,
      in [0, 1].
    distinct_1: share of distinct words, in [0, 1].
    distinct_2: share of distinct word 2-grams, in [0, 1].
    self_bleu: BLEU of a sample to the others of its source, in [0, 100]; None
      for single samples.
    wrong_language: share of texts in the sources' language, in [0, 1].
    wrong_language_references: likewise for the references: the classifier's
      error.
    copied: share of texts that equal their source, in [0, 1].
    kl_to_bc: estimate of KL(pi || pi_BC) from samples at temperature 1, in nats
      per sequence.
    kl_to_bc_per_token: likewise in nats per token.
  """

  sources: int
  repetition: float
  distinct_1: float
  distinct_2: float
  self_bleu: float | None = None
  wrong_language: float
  wrong_language_references: float
  copied: float
  kl_to_bc: metrics.Estimate
  kl_to_bc_per_token: float

  def __post_init__(self):
    settings.at_least(self, 1, 'sources')
    settings.inside(
      self,
      '[0, 1]',
      'repetition',
      'distinct_1',
      'distinct_2',
      'wrong_language',
      'wrong_language_references',
      'copied',
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
  """One policy on one split.

  Attributes:
    name: unique within its split; see `policy_names`.
    loss: name of the loss, in lower case.
    grow: number of Grow steps before the policy, 0 for online training.
    improve: number of Improve steps since the last Grow step.
    seed: seed of the run; the first of several.
    seeds: seeds of all pooled runs; empty for one run.
    split: e.g. 'validation', 'test'.
    control: one of `policy_names.CONTROLS`: BC trained further, for as many
      steps as the Improve steps of the last policy, or BC sampled at the
      temperature at which it has the entropy of the last policy; '' for other
      policies.
    decode: decoding settings of the outputs.
    outputs: measurements of the outputs by decode, such as 'greedy' and
      'samples'. Fields of the entry itself repeat reward and human of the
      samples, and BLEU and chrF of `decode.text`.
    reward: mean reward of the samples x100, clustered by source.
    filter: filter of the last Improve step; None without one.
    human: mean score of the independent judge x100; without a judge, of
      people's ratings (see `rating.scores`); None without either.
    difference_to_bc: reward x100 minus that of BC, paired by source.
    human_difference_to_bc: likewise for `human`.
    difference_to_previous: reward x100 minus that of the previous policy,
      paired by source; None for one run.
    stderr_across_seeds: standard error of the mean reward x100, from the means
      of the seeds.
    difference_stderr_across_seeds: likewise of `difference_to_bc`.
    human_difference_stderr_across_seeds: likewise of `human_difference_to_bc`.
    bleu_difference_stderr_across_seeds: likewise of `bleu_difference_to_bc`.
    chrf_difference_stderr_across_seeds: likewise of `chrf_difference_to_bc`.
    bleu: BLEU of the outputs of `decode.text`; None without references.
    bleu_signature: sacrebleu's signature; '' without references.
    chrf: likewise chrF.
    chrf_signature: likewise.
    bleu_difference_to_bc: BLEU minus that of BC, paired by source.
    chrf_difference_to_bc: likewise for chrF.
    length_ratio: characters of the outputs of `decode.text` over those of the
      references.
    distinct_samples: number of distinct (source, sample) pairs.
    best_of_n: reward x100 of the best of n samples, by n.
    best_of_n_stderr: standard errors of `best_of_n`, by n.
    best_of_n_human: the judge's score x100 of the sample chosen by reward, by
      n.
    diagnostics: signs of reward hacking; None if not measured.
    kept: the data that the filter kept; None without a filter.
    seconds: seconds of the stages that made the policy.
  """

  name: str
  loss: str
  grow: int
  improve: int
  seed: int
  seeds: tuple[int, ...] = ()
  filter: Filter | None = None
  split: str
  control: str = ''
  decode: Decode
  outputs: Mapping[str, outputs_lib.Output] = dataclasses.field(
    default_factory=dict
  )
  reward: metrics.Estimate
  human: metrics.Estimate | None = None
  difference_to_bc: metrics.Difference | None = None
  human_difference_to_bc: metrics.Difference | None = None
  difference_to_previous: metrics.Difference | None = None
  stderr_across_seeds: float | None = None
  difference_stderr_across_seeds: float | None = None
  human_difference_stderr_across_seeds: float | None = None
  bleu_difference_stderr_across_seeds: float | None = None
  chrf_difference_stderr_across_seeds: float | None = None
  bleu: float | None = None
  bleu_signature: str = ''
  chrf: float | None = None
  chrf_signature: str = ''
  bleu_difference_to_bc: metrics.Difference | None = None
  chrf_difference_to_bc: metrics.Difference | None = None
  length_ratio: float | None = None
  distinct_samples: int = 0
  best_of_n: Mapping[int, float] = dataclasses.field(default_factory=dict)
  best_of_n_stderr: Mapping[int, float] = dataclasses.field(
    default_factory=dict
  )
  best_of_n_human: Mapping[int, float] = dataclasses.field(default_factory=dict)
  diagnostics: Diagnostics | None = None
  kept: Kept | None = None
  seconds: Seconds = dataclasses.field(default_factory=Seconds)

  def __post_init__(self):
    for field in ('name', 'loss', 'split'):
      value = getattr(self, field)
      json_fields.check(bool(value), field, 'a non-empty text', value)
    settings.one_of(self, ('', *policy_names.CONTROLS), 'control')
    settings.at_least(self, 0, 'grow', 'improve', 'distinct_samples')
    for field in ('bleu', 'chrf'):
      value = getattr(self, field)
      if value is not None:
        # Rounding may put the score of equal texts slightly above 100.
        json_fields.check(0 <= value <= 100 + 1e-6, field, 'in [0, 100]', value)
    ns = sorted(self.best_of_n)
    json_fields.check(not ns or ns[0] >= 1, 'best_of_n', 'keyed by n >= 1', ns)
    for field in ('best_of_n_stderr', 'best_of_n_human'):
      keys = sorted(getattr(self, field))
      known = set(keys) <= set(ns)
      json_fields.check(known, field, f'keyed by n of best_of_n, {ns}', keys)

  @property
  def key(self) -> tuple[str, str]:
    """The key of an entry, unique in a file."""
    return self.name, self.split

  @property
  def rater(self) -> str:
    """The origin of `human`: 'judge' for a program, 'human' for people.

    People only rate samples; a judge scores the outputs of every decode.
    """
    searched = self.outputs.get(self.decode.text)
    is_by_people = searched is not None and searched.human is None
    return 'human' if is_by_people else 'judge'

  @property
  def text(self) -> str:
    """The name of the search: greedy or beam search."""
    return self.decode.text

  @property
  def warning(self) -> str | None:
    """The warning about the policy, see `policy_warnings`; None for none."""
    name = f'{self.name}, {self.split}'
    if self.control:
      return None
    if self.outputs:
      return policy_warnings.warning(
        name,
        self.outputs,
        text=self.text,
        num_samples=self.decode.samples_per_source,
        self_bleu=self.diagnostics and self.diagnostics.self_bleu,
        rater=self.rater,
      )
    # An entry of an earlier version has no outputs by decode.
    others = {
      'BLEU': self.bleu_difference_to_bc,
      'chrF': self.chrf_difference_to_bc,
      self.rater: self.human_difference_to_bc,
    }
    return hacking.warning(name, self.difference_to_bc, others)

  @property
  def is_bc(self) -> bool:
    """Whether this is BC, and no control."""
    is_first = self.grow == 0 and self.improve == 0
    return self.loss == 'bc' and is_first and not self.control
