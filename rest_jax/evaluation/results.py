"""`results.json`: what was measured of each policy, for people and checks.

A file holds one task and one entry for each policy and split. Rewards, the
judge's scores and what is computed from them are multiplied by 100, as in the
paper's figures. A file that does not have exactly these fields is an error that
names the field.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import difflib
import math
import numbers
import os
import types
import typing
from typing import Any

from rest_jax import settings
from rest_jax.evaluation import (
  hacking,
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
  """The filter of an Improve step and its one number.

  Attributes:
    kind: e.g. 'fixed', 'quantile', 'percentile', 'interpolation'.
    value: threshold, quantile, percentile or gamma, as the filter defines it.
  """

  kind: str
  value: float

  def __post_init__(self):
    _check(bool(self.kind), 'kind', 'the name of a filter', self.kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode:
  """How the judged outputs were made.

  Attributes:
    temperature: of the samples whose rewards are averaged, at least 0.
    samples_per_source: number of such samples, at least 1.
    text: what made the outputs of BLEU and chrF, e.g. 'greedy' or 'beam 4'.
  """

  temperature: float
  samples_per_source: int
  text: str = 'greedy'

  def __post_init__(self):
    settings.at_least(self, 0, 'temperature')
    settings.at_least(self, 1, 'samples_per_source')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
  """What the filter left of the Grow step's data.

  Attributes:
    samples: number of samples kept.
    fraction: share of samples kept, in [0, 1].
    sources_without_samples: number of sources of which nothing was kept.
  """

  samples: int
  fraction: float
  sources_without_samples: int

  def __post_init__(self):
    settings.at_least(self, 0, 'samples', 'sources_without_samples')
    settings.inside(self, '[0, 1]', 'fraction')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
  """Wall-clock seconds of the stages that made this policy.

  Attributes:
    grow: sampling the data it was trained on.
    score: computing the rewards of that data.
    improve: training; for the policy without Improve steps, that of BC, and for
      online training all but sampling and scoring.
  """

  grow: float = 0.0
  score: float = 0.0
  improve: float = 0.0

  def __post_init__(self):
    settings.at_least(self, 0, 'grow', 'score', 'improve')

  @property
  def total(self) -> float:
    """All of them together."""
    return self.grow + self.score + self.improve


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics:
  """Signs of reward hacking in the samples of some sources; see `hacking`.

  Attributes:
    sources: number of sources whose samples these are.
    repetition: share of 3-grams of words that a text repeats, in [0, 1].
    distinct_1: share of distinct words, in [0, 1].
    distinct_2: share of distinct 2-grams of words, in [0, 1].
    self_bleu: BLEU of a sample to the others of its source, in [0, 100]; None
      for single samples.
    wrong_language: share of texts in the sources' language, in [0, 1].
    wrong_language_references: the same of the references: the classifier's own
      error.
    copied: share of texts that are their source, in [0, 1].
    kl_to_bc: estimate of KL(pi || pi_BC) from draws at temperature 1, nats a
      sequence.
    kl_to_bc_per_token: the same in nats a token.
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
    loss: name of the loss, in small letters.
    grow: number of Grow steps behind the policy, 0 for online training.
    improve: number of Improve steps since the last Grow step.
    seed: of the run; the first of several.
    seeds: of all runs that are pooled; empty for one run.
    split: e.g. 'validation', 'test'.
    control: which control it is, one of `policy_names.CONTROLS`: BC trained on
      for as many steps as the last policy's Improve steps took, or BC sampled at the
      temperature at which its entropy is that of the last policy; '' for none.
    decode: how the judged outputs were made.
    outputs: what was measured of the outputs of each decode, such as 'greedy'
      and 'samples'; fields of the entry itself repeat the reward and human of
      the samples, and BLEU and chrF of `decode.text`.
    reward: mean reward of the samples x100, clustered by source.
    filter: of the last Improve step; None where there was none.
    human: mean score of the independent judge x100; where there is none, of
      people's ratings (see `rating.scores`); None without either.
    difference_to_bc: reward minus that of BC x100, paired by source.
    human_difference_to_bc: that score minus that of BC x100, likewise.
    difference_to_previous: reward minus that of the policy before x100,
      likewise; None for one run.
    stderr_across_seeds: of the mean reward x100, from the seeds' means.
    difference_stderr_across_seeds: of the difference to BC x100, likewise.
    human_difference_stderr_across_seeds: likewise.
    bleu_difference_stderr_across_seeds: likewise, of `bleu_difference_to_bc`.
    chrf_difference_stderr_across_seeds: likewise.
    bleu: of the outputs of `decode.text`; None without references.
    bleu_signature: sacrebleu's; empty without references.
    chrf: as bleu.
    chrf_signature: as bleu_signature.
    bleu_difference_to_bc: bleu minus that of BC, paired by source.
    chrf_difference_to_bc: likewise.
    length_ratio: characters of those outputs over those of the references.
    distinct_samples: number of distinct (source, sample) pairs judged.
    best_of_n: reward x100 of the best of n samples, by n.
    best_of_n_stderr: standard errors of these, by n.
    best_of_n_human: the judge's score x100 of the sample chosen by reward.
    diagnostics: signs of reward hacking; None where not measured.
    kept: what the filter left; None where there was no filter.
    seconds: time it took.
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
      _check(bool(value), field, 'a non-empty text', value)
    settings.one_of(self, ('', *policy_names.CONTROLS), 'control')
    settings.at_least(self, 0, 'grow', 'improve', 'distinct_samples')
    for field in ('bleu', 'chrf'):
      value = getattr(self, field)
      if value is not None:
        # Rounding puts the score of equal texts a hair above 100.
        _check(0 <= value <= 100 + 1e-6, field, 'in [0, 100]', value)
    ns = sorted(self.best_of_n)
    _check(not ns or ns[0] >= 1, 'best_of_n', 'keyed by n >= 1', ns)
    for field in ('best_of_n_stderr', 'best_of_n_human'):
      keys = sorted(getattr(self, field))
      known = set(keys) <= set(ns)
      _check(known, field, f'keyed by n of best_of_n, {ns}', keys)

  @property
  def key(self) -> tuple[str, str]:
    """What tells entries of one file apart."""
    return self.name, self.split

  @property
  def rater(self) -> str:
    """Who gave the score `human`: 'judge', a program, or 'human', people.

    People rate samples alone; a judge scores the outputs of every decode.
    """
    searched = self.outputs.get(self.decode.text)
    is_by_people = searched is not None and searched.human is None
    return 'human' if is_by_people else 'judge'

  @property
  def text(self) -> str:
    """The decode that is greedy or beam search."""
    return self.decode.text

  @property
  def warning(self) -> str | None:
    """What is to be said against the policy, see `policy_warnings`."""
    name = f'{self.name}, {self.split}'
    if self.control:
      return None
    if self.outputs:
      found = self.diagnostics
      return policy_warnings.warning(
        name,
        self.outputs,
        text=self.text,
        num_samples=self.decode.samples_per_source,
        self_bleu=None if found is None else found.self_bleu,
        rater=self.rater,
      )
    # An entry of a version that measured one decode for each number.
    others = {
      'BLEU': self.bleu_difference_to_bc,
      'chrF': self.chrf_difference_to_bc,
      self.rater: self.human_difference_to_bc,
    }
    return hacking.warning(name, self.difference_to_bc, others)

  @property
  def is_bc(self) -> bool:
    """Whether this is supervised learning alone, and no control."""
    is_first = self.grow == 0 and self.improve == 0
    return self.loss == 'bc' and is_first and not self.control


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """All measured policies of one task, in the order they are reported.

  Attributes:
    task: name of the task.
    variants: entries; sorted by split, Grow step, Improve step, loss, name.
  """

  task: str
  variants: tuple[Variant, ...] = ()

  def __post_init__(self):
    _check(bool(self.task), 'task', 'a non-empty text', self.task)
    seen = set()
    for variant in self.variants:
      _check(
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
    """Who scored policies, see `Variant.rater`; '' if nobody did."""
    return next((v.rater for v in self.variants if v.human is not None), '')

  @property
  def warnings(self) -> tuple[str, ...]:
    """What is to be said against the policies, at most a line each.

    It is of the first split on which there is something to say.
    """
    lines: dict[str, str] = {}
    for variant in self.variants:
      warning = variant.warning
      if warning is not None:
        lines.setdefault(variant.name, warning)
    return tuple(lines.values())

  @property
  def verdict(self) -> verdict_lib.Verdict | None:
    """Whether ReST helped; None where no policy is compared with BC."""
    return verdict_lib.of_policies(self.variants)

  @property
  def shown(self) -> 'Results':
    """The results with what stands beside all names of ReST left out of them."""
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
    """What stands beside all names of ReST, e.g. ' (GOLD)'; '' for nothing."""
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
    """Returns results where entries of the same (name, split) are replaced."""
    merged = {variant.key: variant for variant in self.variants}
    merged.update({variant.key: variant for variant in variants})
    return dataclasses.replace(self, variants=tuple(merged.values()))


def to_json(results: Results) -> dict[str, Any]:
  """Returns the content of the file: plain numbers, fields in a fixed order."""
  found = results.verdict
  recommended = None
  if found is not None:
    recommended = {
      'name': found.recommended,
      'by': found.by,
      'split': found.split,
    }
  return {
    'schema': SCHEMA,
    'verdict': '' if found is None else found.sentence,
    'recommended': recommended,
    **_dump(results),
    'warnings': list(results.warnings),
  }


def from_json(content: Any) -> Results:
  """Reads what `to_json` gives.

  Args:
    content: the parsed file.

  Returns:
    The results, in the order they are reported.

  Raises:
    ValueError: a field is missing, unknown, of another kind or out of range;
      the message names it, e.g. `variants[2].reward.mean`.
  """
  if not isinstance(content, Mapping):
    raise ValueError(f'results must be a JSON object; got {_show(content)}.')
  if content.get('schema') != SCHEMA:
    raise ValueError(
      f'schema must be {SCHEMA}, the version this package reads; got '
      f'{_show(content.get("schema"))}.'
    )
  # These and the checksum follow from the entries and are made anew.
  derived = ('schema', 'verdict', 'recommended', 'warnings', 'seal')
  fields = {k: value for k, value in content.items() if k not in derived}
  if isinstance(fields.get('variants'), list):
    fields['variants'] = [_renamed(entry) for entry in fields['variants']]
  return _parse(Results, fields, '')


def _renamed(entry: Any) -> Any:
  """An entry under today's name, if version 0.1 wrote it."""
  if isinstance(entry, Mapping) and isinstance(entry.get('name'), str):
    return {**entry, 'name': policy_names.renamed(entry['name'])}
  return entry


def validate(content: Any) -> None:
  """Raises ValueError where `content` is not a results file; see `from_json`."""
  from_json(content)


def write(path: str | os.PathLike[str], results: Results) -> None:
  """Writes `results.json` atomically.

  Args:
    path: the file.
    results: what to write; the same results give the same bytes.

  Raises:
    ValueError: a value is not one that `read` would accept.
  """
  content = to_json(results)
  validate(content)
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
  """Adds entries to a file, replacing those of the same (name, split).

  Args:
    path: the file; made where missing.
    task: name of the task, that of the file.
    variants: entries.

  Returns:
    The results now in the file.

  Raises:
    ValueError: the file is of another task, or is not a results file.
  """
  results = Results(task=task)
  if paths.of(path).exists():
    results = read(path)
    if results.task != task:
      raise ValueError(
        f'task must be that of {path}, {results.task!r}; got {task!r}. Write '
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


def _check(holds: bool, field: str, expected: str, value: Any) -> None:
  if not holds:
    raise ValueError(f'{field} must be {expected}; got {_show(value)}.')


def _show(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _dump(value: Any) -> Any:
  """Returns plain JSON values; mappings by number are sorted by it."""
  if dataclasses.is_dataclass(value):
    fields = dataclasses.fields(value)
    return {field.name: _dump(getattr(value, field.name)) for field in fields}
  if isinstance(value, Mapping):
    is_numbered = not any(isinstance(key, str) for key in value)
    keys = sorted(value) if is_numbered else value
    return {str(key): _dump(value[key]) for key in keys}
  if isinstance(value, (list, tuple)):
    return [_dump(item) for item in value]
  if isinstance(value, numbers.Integral) and not isinstance(value, bool):
    return int(value)
  if isinstance(value, numbers.Real) and not isinstance(value, bool):
    return float(value)
  return value


def _parse(kind: Any, value: Any, path: str) -> Any:
  """Reads one value of the annotated kind; `path` names it in errors."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin is types.UnionType:  # only `X | None` occurs
    return None if value is None else _parse(arguments[0], value, path)
  if dataclasses.is_dataclass(kind):
    return _parse_fields(kind, value, path)
  if origin is tuple:
    _check(isinstance(value, list), path, 'a list', value)
    return tuple(
      _parse(arguments[0], item, f'{path}[{index}]')
      for index, item in enumerate(value)
    )
  if origin is Mapping:
    _check(isinstance(value, Mapping), path, 'an object', value)
    keys = {key: f'{path}[{_show(key)}]' for key in value}
    if arguments[0] is str:
      return {k: _parse(arguments[1], value[k], n) for k, n in keys.items()}
    for key, name in keys.items():
      _check(str(key).isdecimal(), name, 'keyed by a whole number', key)
    return {
      int(key): _parse(arguments[1], value[key], name)
      for key, name in keys.items()
    }
  if kind is str:
    _check(isinstance(value, str), path, 'a text', value)
    return value
  number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if kind is int:
    _check(number and isinstance(value, int), path, 'a whole number', value)
    return value
  _check(number and math.isfinite(value), path, 'a finite number', value)
  return float(value)


def _parse_fields(kind: Any, value: Any, path: str) -> Any:
  """Reads an object whose fields are those of a dataclass."""
  prefix = f'{path}.' if path else ''
  _check(isinstance(value, Mapping), path or 'results', 'an object', value)
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name in value:
    near = difflib.get_close_matches(str(name), fields, n=1)
    hint = f'; did you mean {near[0]!r}?' if near else '.'
    if name not in fields:
      raise ValueError(f'{prefix}{name} is not a field of results{hint}')
  for name, field in fields.items():
    required = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if required and name not in value:
      raise ValueError(f'{prefix}{name} is missing.')
  hints = typing.get_type_hints(kind)
  parsed = {
    name: _parse(hints[name], item, f'{prefix}{name}')
    for name, item in value.items()
  }
  try:
    return kind(**parsed)
  except ValueError as error:
    raise ValueError(f'{prefix}{error}') from error
