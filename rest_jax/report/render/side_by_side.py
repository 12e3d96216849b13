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
  """A measurement of one policy of one run.

  Attributes:
    stderr: its standard error; None if it has none.
    difference: difference to the same policy of the first run, paired by
      source; None for the first run, or if the two cannot be paired.
  """

  value: float
  stderr: float | None = None
  difference: metrics.Difference | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
  """A measure on one split.

  Attributes:
    rows: one cell per run for each policy; None for runs without it.
  """

  name: str
  split: str
  rows: Mapping[str, Sequence[Cell | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideBySide:
  """Several runs of one task.

  Attributes:
    folders: folders of the runs by name; the others are compared with the
      first.
    remarks: sentences on what could not be compared, and on rescaled rewards.
  """

  task: str
  folders: Mapping[str, str]
  measures: Sequence[Measure]
  remarks: Sequence[str] = ()

  @property
  def note(self) -> str:
    """Explanation of the numbers."""
    first = next(iter(self.folders))
    return (
      'Reward and judge ×100, ± one standard error clustered by source. '
      f'Differences to {first} are paired by source; p is two-sided, normal, and '
      'not corrected for the number of comparisons.'
    )


def tables(side: SideBySide) -> list[table.Cells]:
  """Returns one table per measure and split, with one column per run."""
  return [_table(side, measure) for measure in side.measures]


def render(side: SideBySide) -> str:
  """Formats all tables for the terminal."""
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
        table.shown(difference),
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
  return metrics.Estimate(cell.value, cell.stderr).shown


def figure(side: SideBySide, measure: Measure) -> figure_lib.Figure:
  """Draws a measure of each policy, one mark per run.

  Error bars are one standard error.
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
    # The runs are in order from top to bottom.
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
  drawing.make_horizontal(axes, measure.name)
  drawing.legend_below(drawn, grid)
  return drawn


def pictures(side: SideBySide) -> list[exhibits.Exhibit]:
  """Returns the figure of each measure, one picture per split."""
  shown = []
  for name in dict.fromkeys(measure.name for measure in side.measures):
    measures = [m for m in side.measures if m.name == name]
    shown.append(
      exhibits.Exhibit(
        name=f'figure-{len(shown) + 1}',
        title=name,
        caption='One mark per run; error bars are one standard error.',
        pictures=tuple(
          exhibits.picture(
            figure(side, measure),
            f'{name} on {measure.split} for each policy and run.',
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
  return shown
