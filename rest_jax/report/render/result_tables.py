"""Tables of results: the verdict, gains over BC, levels, diagnostics."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import textwrap
from typing import Any, NamedTuple

from rest_jax.evaluation import metrics, policy_names
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report import table

_INDENT = ' '
_NOTE = (
  'Reward{and_rater} x100; higher is better; ± is one standard error, clustered '
  'by source. A gain over BC is measured on outputs of the same decode and paired '
  'by source.'
)
_NOTE_OF_TRAINED_ON = (
  '"BC trained on" was trained on references for as many steps as all Improve '
  'steps took.'
)
_NOTE_OF_EQUAL_ENTROPY = (
  '"BC at equal entropy" is BC sampled at T={temperatures}, where it has the '
  'entropy of the last policy.'
)
_NOTE_OF_SEEDS = (
  'Of several seeds, ± is the standard error of the mean of these trainings; '
  '"across seeds", it says how much the gain differs from training to training.'
)


def render(
  results: results_lib.Results,
  stage_warnings: Sequence[str] = (),
  more: Sequence[str] = (),
) -> str:
  """Formats the verdict, the gains over BC, the levels and the diagnostics.

  Columns without any value on a split are left out; a missing value is '-'.

  Args:
    stage_warnings: warnings of stages, one line each.
    more: texts to put before the warnings.

  Returns:
    The text, without a newline at the end; its tables are at most
    `table.MAX_WIDTH` characters wide.
  """
  if not results.variants:
    return f'{results.task}: nothing evaluated yet.'
  blocks = [
    '\n'.join(textwrap.fill(t, table.MAX_WIDTH) for t in verdict(results))
  ]
  brief = functools.partial(diagnostics, is_brief=True)
  for make in (gains, across_seeds, levels, brief):
    tables = [make(results, split) for split in results.splits]
    blocks += [table.lines(cells) for cells in tables if cells is not None]
  blocks.append(textwrap.fill(' '.join(notes(results)), table.MAX_WIDTH))
  blocks += more
  warnings = [*stage_warnings, *results.warnings]
  if warnings:
    blocks.append('\n'.join(f'WARNING {line}' for line in warnings))
  return '\n\n'.join(block for block in blocks if block)


def verdict(results: results_lib.Results) -> list[str]:
  """Returns two sentences: whether ReST helped, and the policy to use."""
  verdict = results.verdict
  if verdict is None:
    return []
  is_reward = verdict.by == outputs_lib.REWARD
  by = verdict.by if is_reward else f"{verdict.by}'s score"
  return [
    verdict.sentence,
    f'Recommended by the {by} on {verdict.split}: {verdict.recommended}.',
  ]


def notes(results: results_lib.Results) -> list[str]:
  """Returns the explanations of the tables of results."""
  rater = f' and {results.rater}' if results.rater else ''
  sentences = [_NOTE.format(and_rater=rater)]
  temperatures: dict[str, set[str]] = {}
  for variant in results.variants:
    shown = f'{variant.decode.temperature:.2f}'
    temperatures.setdefault(variant.control, set()).add(shown)
  if policy_names.TRAINED_ON in temperatures:
    sentences.append(_NOTE_OF_TRAINED_ON)
  if (control := policy_names.EQUAL_ENTROPY) in temperatures:
    found = ' or '.join(sorted(temperatures[control]))  # One per variant.
    sentences.append(_NOTE_OF_EQUAL_ENTROPY.format(temperatures=found))
  if any(variant.seeds for variant in results.variants):
    sentences.append(_NOTE_OF_SEEDS)
  return sentences


def gains(results: results_lib.Results, split: str) -> table.Cells | None:
  """Returns the gains of policies over BC, of greedy outputs and of samples."""
  decoded = _grouped(v for v in results.of_split(split) if not v.is_bc)
  return _table(results, split, 'gain over BC', decoded, _GAINS)


def levels(results: results_lib.Results, split: str) -> table.Cells | None:
  """Returns the scores of policies, of greedy outputs and of samples."""
  decoded = _grouped(results.of_split(split))
  return _table(results, split, 'levels', decoded, _LEVELS)


def across_seeds(
  results: results_lib.Results, split: str
) -> table.Cells | None:
  """Returns the gains with errors across seeds; None for one seed."""
  pooled = [
    variant
    for variant in results.of_split(split)
    if variant.difference_stderr_across_seeds is not None
  ]
  count = len(pooled[0].seeds) if pooled else 0
  what = f'gain over BC, across {count} seeds'
  return _table(results, split, what, _grouped(pooled), _SEEDS)


def by_decode(results: results_lib.Results, split: str) -> table.Cells | None:
  """Returns the measurements of each policy by decode; None without any."""
  decoded = [d for d in _decoded(results.of_split(split)) if d.decode]
  return _table(results, split, 'by decode', {'': decoded}, _DECODED)


def diagnostics(
  results: results_lib.Results, split: str, *, is_brief: bool = False
) -> table.Cells | None:
  """Returns the signs of reward hacking of a split; None if not measured.

  Args:
    is_brief: whether to leave out the columns that do not fit a terminal.
  """
  variants = results.of_split(split)
  measured = [v for v in variants if v.diagnostics is not None]
  if not measured:
    return None
  names = _FEW_DIAGNOSTICS if is_brief else dict(_DIAGNOSTICS)
  shown = [column for column in _DIAGNOSTICS if column[0] in names]
  return _cells(f'{results.task}, {split}: diagnostics', measured, shown)


class _Decoded(NamedTuple):
  """A policy's outputs by one decode.

  Attributes:
    variant: the policy.
    decode: name of the decode; '' for an entry without measurements by decode.
    measured: measurements of the outputs.
  """

  variant: variant_lib.Variant
  decode: str
  measured: outputs_lib.Output | variant_lib.Variant

  @property
  def is_sampled(self) -> bool:
    return self.decode == outputs_lib.SAMPLES

  @property
  def words(self) -> str:
    """Name of the decode, with the temperature of samples."""
    if self.is_sampled:
      return f'{self.decode}, T={self.variant.decode.temperature:.2g}'
    return self.decode


def _decoded(variants: Iterable[variant_lib.Variant]) -> Iterator[_Decoded]:
  for variant in variants:
    if not variant.outputs:
      yield _Decoded(variant, '', variant)
    for name, output in variant.outputs.items():
      yield _Decoded(variant, name, output)


def _grouped(
  variants: Iterable[variant_lib.Variant],
) -> dict[str, list[_Decoded]]:
  """Groups search outputs, then samples, by the heading of the decode."""
  groups: dict[str, list[_Decoded]] = {}
  for decoded in sorted(_decoded(variants), key=lambda one: one.is_sampled):
    if decoded.decode in ('', decoded.variant.text):
      if decoded.variant.control == policy_names.EQUAL_ENTROPY:
        continue  # Its search outputs are those of BC.
      heading = f'{decoded.decode} output' if decoded.decode else ''
    elif decoded.is_sampled:
      heading = decoded.decode
    else:
      continue
    groups.setdefault(heading, []).append(decoded)
  return groups


def _table(
  results: results_lib.Results,
  split: str,
  what: str,
  groups: dict[str, list[_Decoded]],
  shown: table.Columns,
) -> table.Cells | None:
  """Returns the rows of each group below its heading; None without any."""
  entries = [decoded for group in groups.values() for decoded in group]
  if not entries:
    return None
  rater = results.rater or 'judge'
  shown = tuple((name.replace('judge', rater), cell) for name, cell in shown)
  cells = _cells(f'{results.task}, {split}: {what}', entries, shown)
  if len(cells.header) == 1:
    return None
  rows = iter(cells.rows)
  written: list[tuple[str, ...]] = []
  for heading, group in groups.items():
    if heading:
      written.append((heading, *('' for _ in cells.header[1:])))
    indent = _INDENT if heading else ''
    for _ in group:
      name, *others = next(rows)
      written.append((f'{indent}{name}', *others))
  return cells._replace(rows=tuple(written))


def _kept(decoded: _Decoded) -> str:
  if decoded.variant.kept is None or decoded.is_sampled:
    return table.MISSING
  return table.percent(decoded.variant.kept.fraction)


def _training_seconds(decoded: _Decoded) -> str:
  """Formats the seconds of the stages that made the policy."""
  if decoded.is_sampled:
    return table.MISSING
  return f'{decoded.variant.seconds.total:.0f}'


def _to_previous(decoded: _Decoded) -> str:
  if not decoded.is_sampled:
    return table.MISSING
  return table.shown(decoded.variant.difference_to_previous)


def _diagnostic(
  show: Callable[[variant_lib.Diagnostics], str],
) -> Callable[[variant_lib.Variant], str]:
  return lambda v: (
    table.MISSING if v.diagnostics is None else show(v.diagnostics)
  )


def _seconds(decoded: _Decoded) -> str:
  seconds = decoded.measured.seconds
  return f'{seconds:.1f}' if isinstance(seconds, float) else table.MISSING


def _to_bc(prefix: str) -> Callable[[_Decoded], str]:
  name = f'{prefix}difference_to_bc'
  return lambda decoded: table.shown(getattr(decoded.measured, name))


def _across(prefix: str) -> Callable[[_Decoded], str]:
  """Formats a difference to BC with its error across seeds."""

  def show(decoded: _Decoded) -> str:
    measured = decoded.measured
    difference = getattr(measured, f'{prefix}difference_to_bc')
    error = getattr(measured, f'{prefix}difference_stderr_across_seeds')
    if difference is None or error is None:
      return table.MISSING
    return metrics.Difference(difference.mean, error).shown

  return show


_GAINS: table.Columns = (
  ('policy', lambda d: d.variant.name),
  *((name, _to_bc(prefix)) for prefix, name in outputs_lib.MEASURES.items()),
)

_LEVELS: table.Columns = (
  ('policy', lambda d: d.variant.name),
  ('reward', lambda d: table.shown(d.measured.reward)),
  ('judge', lambda d: table.shown(d.measured.human)),
  ('BLEU', lambda d: table.number(d.measured.bleu)),
  ('chrF', lambda d: table.number(d.measured.chrf)),
  ('kept', _kept),
  ('seconds', _training_seconds),
)

_SEEDS: table.Columns = (
  ('policy', lambda d: d.variant.name),
  *((name, _across(prefix)) for prefix, name in outputs_lib.MEASURES.items()),
)

_DECODED: table.Columns = (
  ('policy', lambda d: d.variant.name),
  ('decode', lambda d: d.words),
  ('reward', lambda d: table.shown(d.measured.reward)),
  ('reward to BC', _to_bc('')),
  ('to previous', _to_previous),
  ('judge', lambda d: table.shown(d.measured.human)),
  ('judge to BC', _to_bc('human_')),
  ('BLEU', lambda d: table.number(d.measured.bleu)),
  ('BLEU to BC', _to_bc('bleu_')),
  ('chrF', lambda d: table.number(d.measured.chrf)),
  ('chrF to BC', _to_bc('chrf_')),
  ('distinct', lambda d: table.number(d.measured.distinct)),
  ('seconds', _seconds),
)

_DIAGNOSTICS: table.Columns = (
  ('policy', lambda variant: variant.name),
  ('length', lambda variant: table.number(variant.length_ratio)),
  ('repeated', _diagnostic(lambda d: table.percent(d.repetition))),
  ('distinct-1', _diagnostic(lambda d: table.percent(d.distinct_1))),
  ('distinct-2', _diagnostic(lambda d: table.percent(d.distinct_2))),
  ('self-BLEU', _diagnostic(lambda d: table.number(d.self_bleu))),
  ('wrong language', _diagnostic(lambda d: table.percent(d.wrong_language))),
  ('copied', _diagnostic(lambda d: table.percent(d.copied))),
  ('KL to BC', _diagnostic(lambda d: table.shown(d.kl_to_bc))),
  ('a token', _diagnostic(lambda d: f'{d.kl_to_bc_per_token:.3f}')),
)
_FEW_DIAGNOSTICS = (
  'policy', 'length', 'repeated', 'self-BLEU', 'wrong language', 'KL to BC',
)  # fmt: skip


def _cells(
  title: str, entries: Sequence[Any], shown: table.Columns
) -> table.Cells:
  """Returns one row per entry, without columns that have no value."""
  shown = [
    (header, cell)
    for header, cell in shown
    if any(cell(entry) != table.MISSING for entry in entries)
  ]
  return table.of(title, entries, shown)
