"""Several runs side by side: tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from rest_jax.evaluation import metrics
from rest_jax.report import table
from rest_jax.report.render import drawing, exhibits

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

_MINUS = '\N{MINUS SIGN}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """One policy of one run.

  Attributes:
    value: what was measured.
    stderr: its standard error; None where it has none.
    difference: to the same policy of the first run, paired by source; None
      where they cannot be paired, and in the first run.
  """

  value: float
  stderr: float | None = None
  difference: metrics.Difference | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
  """One thing that was measured, on one split.

  Attributes:
    name: of the measure.
    split: of the sources.
    rows: for each policy a cell for each run, None where it has none.
  """

  name: str
  split: str
  rows: Mapping[str, Sequence[Cell | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideBySide:
  """Several runs of one task.

  Attributes:
    task: of all runs.
    folders: of the runs, by their names; the first is what others are held
      against.
    measures: what is compared.
    remarks: what could not be compared, and why; what was rescaled.
  """

  task: str
  folders: Mapping[str, str]
  measures: Sequence[Measure]
  remarks: Sequence[str] = ()

  @property
  def note(self) -> str:
    """What the numbers are."""
    first = next(iter(self.folders))
    return (
      'Reward and judge ×100, ± one standard error clustered by source. '
      f'Differences to {first} are paired by source; p is two-sided, normal, and '
      'not corrected for the number of comparisons.'
    )


def tables(side: SideBySide) -> list[table.Cells]:
  """Returns a table for each measure and split, a column for each run."""
  return [_table(side, measure) for measure in side.measures]


def render(side: SideBySide) -> str:
  """Lays out all tables for the terminal."""
  blocks = [table.lines(cells) for cells in tables(side)]
  blocks.append(textwrap.fill(side.note, table.MAX_WIDTH))
  if side.remarks:
    blocks.append('\n'.join(f'NOTE {remark}' for remark in side.remarks))
  return '\n\n'.join(blocks)


def _table(side: SideBySide, measure: Measure) -> table.Cells:
  first, *others = side.folders
  header = ['policy', first]
  for name in others:
    header += [name, f'{name} {_MINUS} {first}', 'p']
  rows = []
  for label, cells in measure.rows.items():
    row = [label, _value(cells[0])]
    for cell in cells[1:]:
      difference = cell.difference if cell is not None else None
      row += [
        _value(cell),
        table.difference(difference),
        table.MISSING
        if difference is None
        else exhibits.p_value(difference.p_value),
      ]
    rows.append(tuple(row))
  title = f'{side.task}, {measure.split}: {measure.name}'
  return table.Cells(title, tuple(header), tuple(rows))


def _value(cell: Cell | None) -> str:
  if cell is None:
    return table.MISSING
  if cell.stderr is None:
    return table.number(cell.value)
  return table.estimate(metrics.Estimate(cell.value, cell.stderr))


def figure(side: SideBySide, measure: Measure) -> figure_lib.Figure:
  """Draws a measure of each policy, a mark for each run.

  Args:
    side: says the runs.
    measure: one of them.

  Returns:
    The figure; error bars are one standard error.
  """
  labels = list(measure.rows)
  drawn, grid = drawing.panels(
    f'{side.task}, {measure.split}: {measure.name}', 1, 1, drawing.WIDTH
  )
  drawn.set_figheight(max(0.5 * len(labels) + 0.9, 2.2))
  axes = grid[0][0]
  names = list(side.folders)
  shades = [drawing.GREY, *drawing.purples(len(names) - 1)]
  places = np.arange(len(labels))[::-1]
  for index, name in enumerate(names):
    # From above to below in the order of the runs.
    offset = 0.5 * (0.5 - (index + 0.5) / len(names))
    shown = [
      (place + offset, cells[index])
      for place, cells in zip(places, measure.rows.values(), strict=True)
      if cells[index] is not None
    ]
    axes.errorbar(
      [cell.value for _, cell in shown if cell is not None],
      [place for place, _ in shown],
      xerr=[cell.stderr or 0.0 for _, cell in shown if cell is not None],
      color=shades[index],
      linestyle='none',
      marker=drawing.MARKERS[index % len(drawing.MARKERS)],
      markersize=5,
      capsize=3,
      label=name,
    )
  axes.set_yticks(places, labels)
  axes.set_ylim(-0.6, len(labels) - 0.4)
  axes.grid(visible=False, axis='y')
  axes.grid(axis='x', color=drawing.GRID, linewidth=0.8)
  axes.set_xlabel(measure.name, fontsize=9)
  drawing.legend_below(drawn, grid)
  return drawn


def pictures(side: SideBySide) -> list[exhibits.Exhibit]:
  """Returns the figure of each measure, a picture for each split."""
  found = []
  for name in dict.fromkeys(measure.name for measure in side.measures):
    measures = [m for m in side.measures if m.name == name]
    found.append(
      exhibits.Exhibit(
        name=f'figure-{len(found) + 1}',
        title=name,
        caption='A mark for each run; error bars are one standard error.',
        pictures=tuple(
          exhibits.Picture(
            figure(side, measure),
            f'{name} on {measure.split} for each policy and run.'
            + exhibits.BEHIND,
          )
          for measure in measures
        ),
        numbers=table.Cells(
          name,
          ('policy', 'split', *side.folders),
          tuple(
            (label, measure.split, *map(_value, cells))
            for measure in measures
            for label, cells in measure.rows.items()
          ),
        ),
      )
    )
  return found
