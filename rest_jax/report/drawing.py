"""What all figures share: panels, colours, the legend, files.

Supervised learning is grey and ReST is purple, darker with each step, as in the
paper. `matplotlib.pyplot` and its global state are not used. Matplotlib is imported
where something is drawn: a run starts without it.
"""

from __future__ import annotations

from collections.abc import Sequence
import io
import math
import os
import re
from typing import TYPE_CHECKING

import numpy as np

from rest_jax.evaluation import results as results_lib
from rest_jax.storage import files

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

GREY = '#7f7f7f'
_LIGHT_GREYS = ('#a3a3a3', '#c4c4c4')  # Of controls.
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
    figsize=(max(width * columns, 4.8), 3.4 * rows), layout='constrained'
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
  """Returns purples from light to dark, all of them readable on white."""
  import matplotlib
  from matplotlib import colors

  colormap = matplotlib.colormaps['Purples']
  levels = np.linspace(0.5, 0.95, count) if count > 1 else [0.75] * count
  return [colors.to_hex(colormap(level)) for level in levels]


def shades(variants: Sequence[results_lib.Variant]) -> dict[str, str]:
  """A colour for each name: greys for supervised learning, else purples."""
  greys = {
    results_lib.TRAINED_ON: _LIGHT_GREYS[0],
    results_lib.EQUAL_ENTROPY: _LIGHT_GREYS[1],
  }
  names = {
    variant.name: GREY if variant.is_bc else greys.get(variant.control)
    for variant in variants
  }
  rest = iter(purples(sum(shade is None for shade in names.values())))
  return {name: shade or next(rest) for name, shade in names.items()}


def family(variant: results_lib.Variant) -> str:
  """The name without its Grow and Improve steps."""
  return re.sub(r'\s*\(G=\d+, I=\d+\)', '', variant.name) or variant.name


def legend_below(figure: figure_lib.Figure, grid: np.ndarray) -> None:
  """Puts one legend under all panels, where no data can be."""
  entries = {}
  for axes in grid.flat:
    handles, labels = axes.get_legend_handles_labels()
    for handle, label in zip(handles, labels, strict=True):
      entries.setdefault(label, handle)
  columns = min(max(2, int(figure.get_figwidth() // 1.9)), len(entries))
  # The legend makes the figure taller, not the panels lower.
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
  """Writes a PNG atomically; the same figure gives the same bytes.

  Args:
    figure: what to write.
    path: the file.
  """
  with files.atomic_write(path) as temporary:
    # Without the name and version of the software that drew it.
    figure.savefig(
      temporary, format='png', dpi=150, metadata={'Software': None}
    )


def svg(figure: figure_lib.Figure) -> bytes:
  """Returns a figure as an SVG image for a page, which has its own title.

  The background is transparent and letters are outlines, so that it looks the
  same everywhere. The same figure gives the same bytes.

  Args:
    figure: what to write; it loses its title.
  """
  import matplotlib

  figure.suptitle('')
  written = io.BytesIO()
  with matplotlib.rc_context({'svg.hashsalt': 'rest_jax'}):
    figure.savefig(
      written, format='svg', transparent=True, metadata={'Date': None}
    )
  return written.getvalue()
