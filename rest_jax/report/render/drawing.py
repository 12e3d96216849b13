"""Common parts of all figures: panels, colours, error bars, legends, files.

BC is grey; ReST goes from pink through purple to dark blue, darker with each
step, so that policies also differ in black and white. Controls are hatched;
online learning is orange and hatched. `matplotlib.pyplot` and its global state
are not used. Matplotlib is imported inside functions: a run starts without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import io
import math
import os
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from rest_jax.evaluation import policy_names
from rest_jax.evaluation import variant as variant_lib
from rest_jax.storage import files

if TYPE_CHECKING:
  from matplotlib import artist, container
  from matplotlib import axes as axes_lib
  from matplotlib import figure as figure_lib

GREY = '#949494'
_ONLINE = '#e69f00'
_CONTROLS = {
  policy_names.TRAINED_ON: '#b4b4b4',
  policy_names.EQUAL_ENTROPY: '#d2d2d2',
}
_HATCHES = {
  policy_names.TRAINED_ON: '///',
  policy_names.EQUAL_ENTROPY: '...',
}
# Width of a figure in inches: it fits a phone, and three fit a screen.
WIDTH = 4.8
INK = '#333333'
GRID = '#e4e4e4'
MARKERS = 'osD^vPX'
LINESTYLES = ('-', '--', ':', '-.')


def panels(
  title: str, rows: int, columns: int, width: float
) -> tuple[figure_lib.Figure, np.ndarray]:
  """Returns a titled figure with a grid of panels, `width` inches each."""
  from matplotlib import figure as figure_lib

  figure = figure_lib.Figure(
    figsize=(max(width * columns, WIDTH), 2.6 * rows), layout='constrained'
  )
  figure.suptitle(title, fontsize=12)
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.flat:
    axes.grid(axis='y', color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
  return figure, grid


def purples(count: int) -> list[str]:
  """Returns colours from pink to dark blue, each darker than the one before."""
  import matplotlib
  from matplotlib import colors

  colormap = matplotlib.colormaps['plasma']
  levels = np.linspace(0.5, 0.0, count) if count > 1 else [0.3] * count
  return [colors.to_hex(colormap(level)) for level in levels]


def is_online(variant: variant_lib.Variant) -> bool:
  """Whether a policy is of online learning."""
  is_grown = variant.grow or variant.improve
  return not (is_grown or variant.is_bc or variant.control)


def shades(variants: Sequence[variant_lib.Variant]) -> dict[str, str]:
  """Returns a colour for each name: greys for BC and controls, else by step."""
  fixed = {
    variant.name: GREY
    if variant.is_bc
    else _ONLINE
    if is_online(variant)
    else _CONTROLS.get(variant.control)
    for variant in variants
  }
  rest = iter(purples(sum(shade is None for shade in fixed.values())))
  return {name: shade or next(rest) for name, shade in fixed.items()}


def hatch(variant: variant_lib.Variant) -> str:
  """Returns the hatch of a policy's bars: none for BC and ReST."""
  return 'xx' if is_online(variant) else _HATCHES.get(variant.control, '')


def label(variant: variant_lib.Variant) -> str:
  """Returns the name in lines: the family, then Grow and Improve step."""
  family = textwrap.fill(policy_names.family(variant.name), 10)
  if not (variant.grow or variant.improve):
    return family
  return f'{family}\nG{variant.grow} I{variant.improve}'


def outline(lines: Iterable[artist.Artist]) -> None:
  """Outlines dark lines, which may lie on dark bars, with a light colour."""
  from matplotlib import patheffects

  for line in lines:
    line.set_path_effects(
      [patheffects.withStroke(linewidth=2.4, foreground='white')]
    )


def outline_errors(errors: container.ErrorbarContainer | None) -> None:
  """Outlines error bars with a light colour."""
  if errors is not None:
    _, caps, bars = errors.lines
    outline((*caps, *bars))


def label_axes(axes: axes_lib.Axes, x: str, y: str) -> None:
  """Sets the labels of both axes."""
  axes.set_xlabel(x, fontsize=9)
  axes.set_ylabel(y, fontsize=9)


def make_horizontal(axes: axes_lib.Axes, x: str) -> None:
  """Turns the grid for horizontal bars, and labels the x axis."""
  axes.grid(visible=False, axis='y')
  axes.grid(axis='x', color=GRID, linewidth=0.8)
  axes.set_xlabel(x, fontsize=9)


def legend_below(figure: figure_lib.Figure, grid: np.ndarray) -> None:
  """Puts one legend below all panels, where it hides no data."""
  entries = {}
  for axes in grid.flat:
    handles, labels = axes.get_legend_handles_labels()
    for handle, label in zip(handles, labels, strict=True):
      entries.setdefault(label, handle)
  columns = min(max(2, int(figure.get_figwidth() // 1.9)), len(entries))
  # The figure grows by the height of the legend; the panels keep theirs.
  height = 0.17 * math.ceil(len(entries) / columns) + 0.1
  figure.set_figheight(figure.get_figheight() + height)
  figure.legend(
    entries.values(),
    entries.keys(),
    loc='outside lower center',
    ncols=columns,
    fontsize=8,
    frameon=False,
  )


def save(figure: figure_lib.Figure, path: str | os.PathLike[str]) -> None:
  """Writes a PNG atomically; the same figure gives the same bytes."""
  with files.atomic_write(path) as temporary:
    # Without the name and version of the drawing software.
    figure.savefig(
      temporary, format='png', dpi=150, metadata={'Software': None}
    )


def svg(figure: figure_lib.Figure) -> bytes:
  """Returns a figure, without its title, as an SVG image for a page.

  The background is transparent, and letters are outlines, so that it looks the
  same everywhere. The same figure gives the same bytes.
  """
  import matplotlib

  figure.suptitle('')
  written = io.BytesIO()
  with matplotlib.rc_context({'svg.hashsalt': 'rest_jax'}):
    figure.savefig(
      written, format='svg', transparent=True, metadata={'Date': None}
    )
  return written.getvalue()
