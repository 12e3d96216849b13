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

from rest_jax.evaluation import (
  json_fields,
  policy_names,
)
from rest_jax.evaluation import variant as variant_lib
from rest_jax.evaluation import verdict as verdict_lib
from rest_jax.storage import files, paths

SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """All measured policies of one task, in the order of the report.

  Attributes:
    variants: entries; sorted by split, Grow step, Improve step, loss, name.
  """

  task: str
  variants: tuple[variant_lib.Variant, ...] = ()

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
  def reported_splits(self) -> tuple[str, ...]:
    """The splits, that on which the verdict chooses a policy last."""
    return (*self.splits[1:], *self.splits[:1])

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

  def of_split(self, split: str) -> tuple[variant_lib.Variant, ...]:
    """Returns the entries of one split, in order."""
    return tuple(v for v in self.variants if v.split == split)

  def updated(self, variants: Iterable[variant_lib.Variant]) -> 'Results':
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
  path: str | os.PathLike[str],
  task: str,
  variants: Iterable[variant_lib.Variant],
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


def _order(variant: variant_lib.Variant) -> tuple[Any, ...]:
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
