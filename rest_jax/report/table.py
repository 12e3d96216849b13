"""Results as tables: cells, and lines of fixed width for the terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rest_jax.evaluation import metrics
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import results as results_lib

MAX_WIDTH = 120

_GAP = '  '
MISSING = '-'
NOTE = (
  'Reward and human x100, higher is better, ± one standard error clustered by\n'
  'source; "to BC" is the difference to BC (G=0, I=0), paired by source.'
)
NOTE_OF_DECODES = (
  'By decode: all measures of greedy outputs, of samples and of the best of them by\n'
  'reward, each compared with BC by the same decode; seconds include compilation.'
)
NOTE_OF_CONTROLS = (
  'Controls: "BC trained on", on D for as many steps as all Improve steps took; "BC\n'
  'at T=…", sampled at the temperature of equal entropy: what being surer gives.'
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
      _grouped(results, split),
      across_seeds(results, split),
      diagnostics(results, split),
    )
    if cells is not None
  ]
  if not blocks:
    return f'{results.task}: nothing evaluated yet.'
  blocks += notes(results)
  warnings = [*stage_warnings, *results.warnings]
  if warnings:
    blocks.append('\n'.join(f'WARNING {line}' for line in warnings))
  return '\n\n'.join(blocks)


def notes(results: results_lib.Results) -> list[str]:
  """Returns what the tables of results need to be said."""
  found = [NOTE]
  if any(variant.outputs for variant in results.variants):
    found.append(NOTE_OF_DECODES)
  if any(variant.control for variant in results.variants):
    found.append(NOTE_OF_CONTROLS)
  if any(variant.seeds for variant in results.variants):
    found.append(NOTE_OF_SEEDS)
  return found


def policies(results: results_lib.Results, split: str) -> Cells:
  """Returns what was measured of every policy of a split."""
  title = f'{results.task}, {split}'
  return _cells(title, results.of_split(split), _COLUMNS)


def across_seeds(results: results_lib.Results, split: str) -> Cells | None:
  """Returns differences to BC with their errors across seeds, None of one seed."""
  pooled = [
    variant
    for variant in results.of_split(split)
    if variant.difference_stderr_across_seeds is not None
  ]
  if not pooled:
    return None
  title = f'{results.task}, {split}: to BC, across seeds'
  return _cells(title, list(_decoded(pooled)), _SEEDS)


def by_decode(results: results_lib.Results, split: str) -> Cells | None:
  """Returns what was measured of the outputs of each policy by each decode.

  None where no policy of the split has such measures.
  """
  decoded = [d for d in _decoded(results.of_split(split)) if d.name]
  title = f'{results.task}, {split}: by decode'
  return _cells(title, decoded, _DECODED) if decoded else None


def _grouped(results: results_lib.Results, split: str) -> Cells | None:
  """As `by_decode`, narrow: a policy's name stands above the lines of decodes."""
  decoded = [d for d in _decoded(results.of_split(split)) if d.name]
  if not decoded:
    return None
  title = f'{results.task}, {split}: by decode'
  cells = _cells(title, decoded, _NARROW)
  rows: list[tuple[str, ...]] = []
  blank = ('',) * (len(cells.header) - 1)
  for one, row in zip(decoded, cells.rows, strict=True):
    if not rows or one.variant.name != name:
      name = one.variant.name
      rows.append((name, *blank))
    rows.append(row)
  return Cells(title, cells.header, tuple(rows))


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


_Columns = tuple[tuple[str, Callable[[Any], str]], ...]

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


class _Decoded(NamedTuple):
  """A policy's outputs by one decode.

  Attributes:
    variant: the policy.
    name: of the decode, with the temperature of samples; '' for an entry that has
      no measures by decode.
    measured: what was measured of them.
  """

  variant: results_lib.Variant
  name: str
  measured: outputs_lib.Output | results_lib.Variant


def _decoded(variants: Iterable[results_lib.Variant]) -> Iterator[_Decoded]:
  for variant in variants:
    if not variant.outputs:
      yield _Decoded(variant, '', variant)
    for name, output in variant.outputs.items():
      if name == outputs_lib.SAMPLES:
        name = f'{name}, T={variant.decode.temperature:.2g}'
      yield _Decoded(variant, name, output)


def _seconds(decoded: _Decoded) -> str:
  seconds = decoded.measured.seconds
  return f'{seconds:.1f}' if isinstance(seconds, float) else MISSING


def _to_bc(prefix: str) -> Callable[[_Decoded], str]:
  name = f'{prefix}difference_to_bc'
  return lambda decoded: difference(getattr(decoded.measured, name))


def _mean(value: metrics.Estimate | None) -> str:
  return number(None if value is None else value.mean)


_NARROW: _Columns = (
  ('policy, decode', lambda d: f'  {d.name}'),
  ('reward', lambda d: _mean(d.measured.reward)),
  ('to BC', _to_bc('')),
  ('human', lambda d: _mean(d.measured.human)),
  ('to BC', _to_bc('human_')),
  ('BLEU', lambda d: number(d.measured.bleu)),
  ('to BC', _to_bc('bleu_')),
  ('chrF', lambda d: number(d.measured.chrf)),
  ('to BC', _to_bc('chrf_')),
  ('seconds', _seconds),
)

_DECODED: _Columns = (
  ('policy', lambda d: d.variant.name),
  ('decode', lambda d: d.name),
  ('reward', lambda d: estimate(d.measured.reward)),
  ('reward to BC', _to_bc('')),
  ('human', lambda d: estimate(d.measured.human)),
  ('human to BC', _to_bc('human_')),
  ('BLEU', lambda d: number(d.measured.bleu)),
  ('BLEU to BC', _to_bc('bleu_')),
  ('chrF', lambda d: number(d.measured.chrf)),
  ('chrF to BC', _to_bc('chrf_')),
  ('distinct', lambda d: number(d.measured.distinct)),
  ('seconds', _seconds),
)


def _across(name: str) -> Callable[[_Decoded], str]:
  """Shows a difference to BC with its error across seeds."""

  def show(decoded: _Decoded) -> str:
    measured = decoded.measured
    found = getattr(measured, f'{name}difference_to_bc')
    error = getattr(measured, f'{name}difference_stderr_across_seeds')
    if found is None or error is None:
      return MISSING
    return difference(metrics.Difference(found.mean, error))

  return show


_SEEDS: _Columns = (
  ('policy', lambda d: d.variant.name),
  ('decode', lambda d: d.name or MISSING),
  ('seeds', lambda d: f'{len(d.variant.seeds)}'),
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


def _cells(title: str, entries: Sequence[Any], shown: _Columns) -> Cells:
  """Returns a row for each entry, without columns that none of them has."""
  columns = [
    [header, *(cell(entry) for entry in entries)] for header, cell in shown
  ]
  columns = [c for c in columns if set(c[1:]) != {MISSING}]
  header, *rows = zip(*columns, strict=True)
  return Cells(title, header, tuple(rows))


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
  # A name without cells stands above the rows of others, and may be longer.
  full = [rows[0], *(row for row in rows[1:] if any(row[1:]))]
  widths = [max(map(len, column)) for column in zip(*full, strict=True)]
  spare = MAX_WIDTH - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
  # Only the name may be cut: a number that lost its end would be another one.
  widths[0] = min(widths[0], max(spare, 8))
  written = []
  for name, *others in rows:
    width = widths[0] if any(others) else MAX_WIDTH
    if len(name) > width:
      name = name[: width - 1] + '…'
    row = [name.ljust(widths[0])]
    row += [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
    written.append(_GAP.join(row).rstrip())
  rule = '-' * max(map(len, written))
  return [written[0], rule, *written[1:]]
