"""Results as tables: cells, and lines of fixed width for the terminal."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rest_jax.evaluation import metrics
from rest_jax.evaluation import results as results_lib

MAX_WIDTH = 120

_GAP = '  '
MISSING = '-'
NOTE = (
  'Reward and human x100, higher is better, ± one standard error clustered by\n'
  'source; "to BC" is the difference to BC (G=0, I=0), paired by source.'
)
NOTE_OF_SEEDS = (
  'Of several seeds, ± above says how sure the mean of these trainings is;\n'
  '"across seeds" has the standard errors of differences to BC between trainings.'
)


class Cells(NamedTuple):
  """A table of texts; its first column names what a row is about."""

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


def render(
  results: results_lib.Results, stage_warnings: Sequence[str] = ()
) -> str:
  """Lays out every policy of every split, one line each.

  Columns that no policy of a split has are left out; a missing value is '-'.

  Args:
    results: what to show.
    stage_warnings: what stages warned of, a line each.

  Returns:
    The tables, no line longer than `MAX_WIDTH` characters, without a newline at
    the end.
  """
  blocks = [
    lines(cells)
    for split in results.splits
    for cells in (
      policies(results, split),
      across_seeds(results, split),
      diagnostics(results, split),
    )
    if cells is not None
  ]
  if not blocks:
    return f'{results.task}: nothing evaluated yet.'
  blocks.append(NOTE)
  if any(variant.seeds for variant in results.variants):
    blocks.append(NOTE_OF_SEEDS)
  warnings = [*stage_warnings, *results.warnings]
  if warnings:
    blocks.append('\n'.join(f'WARNING {line}' for line in warnings))
  return '\n\n'.join(blocks)


def policies(results: results_lib.Results, split: str) -> Cells:
  """Returns what was measured of every policy of a split."""
  title = f'{results.task}, {split}'
  return _cells(title, results.of_split(split), _COLUMNS)


def across_seeds(results: results_lib.Results, split: str) -> Cells | None:
  """Returns differences to BC with their errors across seeds, None of one seed."""
  pooled = tuple(
    variant
    for variant in results.of_split(split)
    if variant.difference_stderr_across_seeds is not None
  )
  if not pooled:
    return None
  title = f'{results.task}, {split}: to BC, across seeds'
  return _cells(title, pooled, _SEEDS)


def diagnostics(results: results_lib.Results, split: str) -> Cells | None:
  """Returns the signs of reward hacking of a split, None where not measured."""
  title = f'{results.task}, {split}: diagnostics'
  variants = results.of_split(split)
  measured = tuple(v for v in variants if v.diagnostics is not None)
  return _cells(title, measured, _DIAGNOSTICS) if measured else None


def lines(cells: Cells) -> str:
  """Lays out a table: its title, header, a rule and a line for each row."""
  return '\n'.join([cells.title, *_lines([cells.header, *cells.rows])])


def estimate(value: metrics.Estimate | None) -> str:
  """Shows a mean and its standard error."""
  if value is None:
    return MISSING
  return f'{value.mean:.2f} ± {value.stderr:.2f}'


def difference(value: metrics.Difference | None) -> str:
  """Shows a difference with its sign, and its standard error."""
  if value is None:
    return MISSING
  return f'{value.mean:+.2f} ± {value.stderr:.2f}'


def number(value: float | None) -> str:
  """Shows a number with two places."""
  return MISSING if value is None else f'{value:.2f}'


def _kept(variant: results_lib.Variant) -> str:
  if variant.kept is None:
    return MISSING
  return percent(variant.kept.fraction)


def percent(share: float) -> str:
  """Shows a share in [0, 1]."""
  return f'{100 * share:.1f} %'


def _diagnostic(
  show: Callable[[results_lib.Diagnostics], str],
) -> Callable[[results_lib.Variant], str]:
  return lambda v: MISSING if v.diagnostics is None else show(v.diagnostics)


_Columns = tuple[tuple[str, Callable[[results_lib.Variant], str]], ...]

_COLUMNS: _Columns = (
  ('policy', lambda variant: variant.name),
  ('reward', lambda variant: estimate(variant.reward)),
  ('to BC', lambda variant: difference(variant.difference_to_bc)),
  ('to previous', lambda variant: difference(variant.difference_to_previous)),
  ('human', lambda variant: estimate(variant.human)),
  ('human to BC', lambda variant: difference(variant.human_difference_to_bc)),
  ('BLEU', lambda variant: number(variant.bleu)),
  ('chrF', lambda variant: number(variant.chrf)),
  ('kept', _kept),
  ('seconds', lambda variant: f'{variant.seconds.total:.0f}'),
)


def _across(
  name: str,
) -> Callable[[results_lib.Variant], str]:
  """Shows a difference to BC with its error across seeds."""

  def show(variant: results_lib.Variant) -> str:
    found = getattr(variant, f'{name}difference_to_bc')
    error = getattr(variant, f'{name}difference_stderr_across_seeds')
    if found is None or error is None:
      return MISSING
    return difference(metrics.Difference(found.mean, error))

  return show


_SEEDS: _Columns = (
  ('policy', lambda variant: variant.name),
  ('seeds', lambda variant: f'{len(variant.seeds)}'),
  ('reward', _across('')),
  ('human', _across('human_')),
  ('BLEU', _across('bleu_')),
  ('chrF', _across('chrf_')),
)


_DIAGNOSTICS: _Columns = (
  ('policy', lambda variant: variant.name),
  ('length', lambda variant: number(variant.length_ratio)),
  ('repeated', _diagnostic(lambda d: percent(d.repetition))),
  ('distinct-1', _diagnostic(lambda d: percent(d.distinct_1))),
  ('distinct-2', _diagnostic(lambda d: percent(d.distinct_2))),
  ('self-BLEU', _diagnostic(lambda d: number(d.self_bleu))),
  ('wrong language', _diagnostic(lambda d: percent(d.wrong_language))),
  ('copied', _diagnostic(lambda d: percent(d.copied))),
  ('KL to BC', _diagnostic(lambda d: estimate(d.kl_to_bc))),
  ('a token', _diagnostic(lambda d: f'{d.kl_to_bc_per_token:.3f}')),
)


def _cells(
  title: str, variants: tuple[results_lib.Variant, ...], shown: _Columns
) -> Cells:
  """Returns a row for each entry, without columns that none of them has."""
  columns = [
    [header, *(cell(variant) for variant in variants)] for header, cell in shown
  ]
  columns = [c for c in columns if set(c[1:]) != {MISSING}]
  header, *rows = zip(*columns, strict=True)
  return Cells(title, header, tuple(rows))


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  spare = MAX_WIDTH - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
  # Only the name may be cut: a number that lost its end would be another one.
  widths[0] = min(widths[0], max(spare, 8))
  written = []
  for name, *others in rows:
    if len(name) > widths[0]:
      name = name[: widths[0] - 1] + '…'
    row = [name.ljust(widths[0])]
    row += [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
    written.append(_GAP.join(row).rstrip())
  rule = '-' * max(map(len, written))
  return [written[0], rule, *written[1:]]
