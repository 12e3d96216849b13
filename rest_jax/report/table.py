"""Results as a table of fixed width for the terminal and for text files."""

from collections.abc import Callable

from rest_jax.evaluation import metrics
from rest_jax.evaluation import results as results_lib

MAX_WIDTH = 120

_GAP = '  '
_MISSING = '-'
_NOTE = (
  'Reward and human x100, higher is better, ± one standard error clustered by\n'
  'source; "to BC" is the difference to BC (G=0, I=0), paired by source.'
)


def render(results: results_lib.Results) -> str:
  """Lays out every policy of every split, one line each.

  Columns that no policy of a split has are left out; a missing value is '-'.

  Args:
    results: what to show.

  Returns:
    The table, no line longer than `MAX_WIDTH` characters, without a newline at
    the end.
  """
  blocks = []
  for split in results.splits:
    variants = results.of_split(split)
    lines = _block(variants, _COLUMNS)
    blocks.append('\n'.join([f'{results.task}, {split}', *lines]))
    measured = tuple(v for v in variants if v.diagnostics is not None)
    if measured:
      title = f'{results.task}, {split}: diagnostics'
      blocks.append('\n'.join([title, *_block(measured, _DIAGNOSTICS)]))
  if not blocks:
    return f'{results.task}: nothing evaluated yet.'
  blocks.append(_NOTE)
  if results.warnings:
    blocks.append('\n'.join(f'WARNING {line}' for line in results.warnings))
  return '\n\n'.join(blocks)


def _estimate(estimate: metrics.Estimate | None) -> str:
  if estimate is None:
    return _MISSING
  return f'{estimate.mean:.2f} ± {estimate.stderr:.2f}'


def _difference(difference: metrics.Difference | None) -> str:
  if difference is None:
    return _MISSING
  return f'{difference.mean:+.2f} ± {difference.stderr:.2f}'


def _number(value: float | None) -> str:
  return _MISSING if value is None else f'{value:.2f}'


def _kept(variant: results_lib.Variant) -> str:
  if variant.kept is None:
    return _MISSING
  return _percent(variant.kept.fraction)


def _percent(share: float) -> str:
  return f'{100 * share:.1f} %'


def _diagnostic(
  show: Callable[[results_lib.Diagnostics], str],
) -> Callable[[results_lib.Variant], str]:
  return lambda v: _MISSING if v.diagnostics is None else show(v.diagnostics)


_Columns = tuple[tuple[str, Callable[[results_lib.Variant], str]], ...]

_COLUMNS: _Columns = (
  ('policy', lambda variant: variant.name),
  ('reward', lambda variant: _estimate(variant.reward)),
  ('to BC', lambda variant: _difference(variant.difference_to_bc)),
  ('to previous', lambda variant: _difference(variant.difference_to_previous)),
  ('human', lambda variant: _estimate(variant.human)),
  ('to BC', lambda variant: _difference(variant.human_difference_to_bc)),
  ('BLEU', lambda variant: _number(variant.bleu)),
  ('chrF', lambda variant: _number(variant.chrf)),
  ('kept', _kept),
  ('seconds', lambda variant: f'{variant.seconds.total:.0f}'),
)


_DIAGNOSTICS: _Columns = (
  ('policy', lambda variant: variant.name),
  ('length', lambda variant: _number(variant.length_ratio)),
  ('repeated', _diagnostic(lambda d: _percent(d.repetition))),
  ('distinct-1', _diagnostic(lambda d: _percent(d.distinct_1))),
  ('distinct-2', _diagnostic(lambda d: _percent(d.distinct_2))),
  ('self-BLEU', _diagnostic(lambda d: _number(d.self_bleu))),
  ('wrong language', _diagnostic(lambda d: _percent(d.wrong_language))),
  ('copied', _diagnostic(lambda d: _percent(d.copied))),
  ('KL to BC', _diagnostic(lambda d: _estimate(d.kl_to_bc))),
  ('a token', _diagnostic(lambda d: f'{d.kl_to_bc_per_token:.3f}')),
)


def _block(
  variants: tuple[results_lib.Variant, ...], shown: _Columns
) -> list[str]:
  """Returns header, rule and a line for each entry."""
  columns = [
    [header, *(cell(variant) for variant in variants)] for header, cell in shown
  ]
  columns = [c for c in columns if set(c[1:]) != {_MISSING}]
  widths = [max(map(len, column)) for column in columns]
  spare = MAX_WIDTH - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
  # Only the name may be cut: a number that lost its end would be another one.
  widths[0] = min(widths[0], max(spare, 8))
  lines = []
  for cells in zip(*columns, strict=True):
    name = cells[0]
    if len(name) > widths[0]:
      name = name[: widths[0] - 1] + '…'
    row = [name.ljust(widths[0])]
    row += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
    lines.append(_GAP.join(row).rstrip())
  rule = '-' * max(map(len, lines))
  return [lines[0], rule, *lines[1:]]
