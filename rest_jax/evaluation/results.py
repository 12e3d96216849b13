"""`results.json`: the measurements of each policy.

A file has one task and one entry per policy and split. Rewards, the judge's
scores and numbers computed from them are multiplied by 100, as in the paper's
figures. A file with missing or unknown fields is refused; the error names the
field.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import os
from typing import Any

from rest_jax import settings
from rest_jax.evaluation import (
  hacking,
  json_fields,
  metrics,
  policy_names,
  policy_warnings,
)
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import verdict as verdict_lib
from rest_jax.storage import files, paths

SCHEMA = 1


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """All measured policies of one task, in the order of the report.

  Attributes:
    variants: entries; sorted by split, Grow step, Improve step, loss, name.
  """

  task: str
  variants: tuple[Variant, ...] = ()

  def __post_init__(self):
    json_fields.check(bool(self.task), 'task', 'a non-empty text', self.task)
    seen = set()
    for variant in self.variants:
      json_fields.check(
        variant.key not in seen,
        'variants',
        'entries with different (name, split)',
        variant.key,
      )
      seen.add(variant.key)
    object.__setattr__(
      self, 'variants', tuple(sorted(self.variants, key=_order))
    )

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits present, validation first."""
    return tuple(dict.fromkeys(variant.split for variant in self.variants))

  @property
  def rater(self) -> str:
    """The origin of `human`, see `Variant.rater`; '' without such scores."""
    return next((v.rater for v in self.variants if v.human is not None), '')

  @property
  def warnings(self) -> tuple[str, ...]:
    """At most one warning per policy, of the first split with a warning."""
    lines: dict[str, str] = {}
    for variant in self.variants:
      warning = variant.warning
      if warning is not None:
        lines.setdefault(variant.name, warning)
    return tuple(lines.values())

  @property
  def verdict(self) -> verdict_lib.Verdict | None:
    """Whether ReST helped; None if no policy is compared with BC."""
    return verdict_lib.of_policies(self.variants)

  @property
  def shown(self) -> 'Results':
    """The results with names that leave out `shared_variant`."""
    variant = self.shared_variant
    return dataclasses.replace(
      self,
      variants=tuple(
        dataclasses.replace(v, name=v.name.removesuffix(variant))
        for v in self.variants
      ),
    )

  @property
  def shared_variant(self) -> str:
    """The variant in all names of ReST, e.g. ' (GOLD)'; '' if they differ."""
    beside = {policy_names.variant_of(v.name) for v in self.variants if v.grow}
    if len(beside) != 1:
      return ''
    [variant] = beside
    without = {(v.name.removesuffix(variant), v.split) for v in self.variants}
    return variant if len(without) == len(self.variants) else ''

  def of_split(self, split: str) -> tuple[Variant, ...]:
    """Returns the entries of one split, in order."""
    return tuple(v for v in self.variants if v.split == split)

  def updated(self, variants: Iterable[Variant]) -> 'Results':
    """Returns results with entries added, or replaced by (name, split)."""
    merged = {variant.key: variant for variant in self.variants}
    merged.update({variant.key: variant for variant in variants})
    return dataclasses.replace(self, variants=tuple(merged.values()))


def to_json(results: Results) -> dict[str, Any]:
  """Returns the content of the file: plain numbers, fields in a fixed order."""
  verdict, recommended = results.verdict, None
  if verdict is not None:
    recommended = {
      'name': verdict.recommended,
      'by': verdict.by,
      'split': verdict.split,
    }
  return {
    'schema': SCHEMA,
    'verdict': '' if verdict is None else verdict.sentence,
    'recommended': recommended,
    **json_fields.dump(results),
    'warnings': list(results.warnings),
  }


def from_json(content: Any) -> Results:
  """Reads the content of a file.

  Raises:
    ValueError: a field is missing, unknown, of another kind or out of range;
      the message names it, e.g. `variants[2].reward.mean`.
  """
  if not isinstance(content, Mapping):
    raise ValueError(
      f'results must be a JSON object; got {json_fields.show(content)}.'
    )
  if content.get('schema') != SCHEMA:
    raise ValueError(
      f'schema must be {SCHEMA}, the version this package reads; got '
      f'{json_fields.show(content.get("schema"))}.'
    )
  # These fields are computed from the entries again.
  derived = ('schema', 'verdict', 'recommended', 'warnings', 'seal')
  fields = {k: value for k, value in content.items() if k not in derived}
  if isinstance(fields.get('variants'), list):
    fields['variants'] = [_renamed(entry) for entry in fields['variants']]
  return json_fields.parse(Results, fields, '')


def _renamed(entry: Any) -> Any:
  """Returns an entry of version 0.1 under its present name."""
  if isinstance(entry, Mapping) and isinstance(entry.get('name'), str):
    return {**entry, 'name': policy_names.renamed(entry['name'])}
  return entry


def write(path: str | os.PathLike[str], results: Results) -> None:
  """Writes `results.json` atomically.

  Args:
    path: the file.
    results: the results; equal results give equal bytes.

  Raises:
    ValueError: `read` would not accept a value.
  """
  content = to_json(results)
  from_json(content)
  files.write_json(path, content, sealed=True)


def read(
  path: str | os.PathLike[str], *, must_be_sealed: bool = False
) -> Results:
  """Reads and checks `results.json`; a ValueError names path and field.

  Args:
    path: the file.
    must_be_sealed: see `files.read_json`.
  """
  content = files.read_json(path, must_be_sealed=must_be_sealed)
  try:
    return from_json(content)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def update(
  path: str | os.PathLike[str], task: str, variants: Iterable[Variant]
) -> Results:
  """Adds entries to a file, replacing entries of the same (name, split).

  Args:
    path: the file; created if missing.
    task: name of the task of the file.
    variants: entries.

  Raises:
    ValueError: the file is of another task, or is not a results file.
  """
  results = Results(task=task)
  if paths.of(path).exists():
    results = read(path)
    if results.task != task:
      raise ValueError(
        f'task must be the task of {path}, {results.task!r}; got {task!r}. Write '
        'the results of another task to another folder.'
      )
  results = results.updated(variants)
  write(path, results)
  return results


def _order(variant: Variant) -> tuple[Any, ...]:
  splits = ('validation', 'test')
  rank = splits.index(variant.split) if variant.split in splits else len(splits)
  return (
    rank,
    variant.split,
    variant.grow,
    variant.improve,
    variant.loss != 'bc',  # the baseline first
    variant.control != '',
    variant.loss,
    variant.name,
  )
