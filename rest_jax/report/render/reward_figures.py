"""Figures of rewards: of D_g, before and after filters, and during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rest_jax.evaluation import policy_names
from rest_jax.report.gather import distributions
from rest_jax.report.render import drawing

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

_BEFORE = '#b9b5da'


def reward_histogram(
  distribution: distributions.Distribution, *, title: str
) -> figure_lib.Figure:
  """Draws the rewards of D_g, their mean, and the share above each threshold.

  Args:
    distribution: distribution of normalised rewards; drawn x100.
  """
  figure, grid = drawing.panels(title, 1, 1, drawing.WIDTH)
  axes = grid[0][0]
  axes.stairs(
    distribution.counts, 100 * distribution.edges, fill=True, color=_BEFORE
  )
  mean = 100 * distribution.mean
  axes.axvline(
    mean, color=drawing.GREY, linestyle='--', label=f'mean {mean:.1f}'
  )
  shades = drawing.purples(len(distribution.above))
  for threshold, shade in zip(distribution.above, shades, strict=True):
    kept = 100 * distribution.fraction_above(threshold)
    axes.axvline(
      100 * threshold,
      color=shade,
      label=f'τ = {threshold:g} keeps {kept:.1f} %',
    )
  _label_counts(axes)
  drawing.legend_below(figure, grid)
  return figure


def kept_rewards(
  kept: Sequence[distributions.KeptDistribution], *, title: str
) -> figure_lib.Figure:
  """Draws the rewards of D_g before and after the filter of each Improve step.

  Source: ReST (arXiv 2308.08998), Fig. 2.

  Args:
    kept: one entry per Improve step of one Grow step, at least one.
  """
  columns = min(len(kept), 2)
  rows = -(-len(kept) // columns)
  figure, grid = drawing.panels(title, rows, columns, drawing.WIDTH / 2)
  figure.set_figheight(1.9 * rows)
  shades = drawing.purples(len(kept))
  for axes in grid.flat[len(kept) :]:
    axes.set_axis_off()
  for axes, entry, shade in zip(grid.flat, kept, shades, strict=False):
    edges = 100 * entry.edges
    axes.stairs(
      entry.before, edges, fill=True, color=_BEFORE, label='before the filter'
    )
    axes.stairs(entry.after, edges, fill=True, color=shade)
    axes.set_title(entry.name, fontsize=10)
    _label_counts(axes)
  # One legend entry for all colours of "after".
  grid[0][0].stairs(
    [0], edges[:2], fill=True, color=shades[-1], label='after the filter'
  )
  drawing.legend_below(figure, grid)
  return figure


def training_rewards(
  curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], *, title: str
) -> figure_lib.Figure:
  """Draws the sampled validation reward over the steps of each training.

  Args:
    curves: steps and rewards x100 by name of the policy.
  """
  figure, grid = drawing.panels(title, 1, 1, drawing.WIDTH)
  axes = grid[0][0]
  # BC is grey, as in all figures.
  is_bc = {name: policy_names.family(name).startswith('BC') for name in curves}
  shades = iter(drawing.purples(len(curves) - sum(is_bc.values())))
  for index, (name, (steps, rewards)) in enumerate(curves.items()):
    axes.plot(
      np.asarray(steps),
      np.asarray(rewards),
      color=drawing.GREY if is_bc[name] else next(shades),
      linestyle='--' if is_bc[name] else '-',
      linewidth=1.2,
      marker=drawing.MARKERS[index % len(drawing.MARKERS)],
      markersize=4,
      label=name,
    )
  drawing.label_axes(axes, 'training steps', 'validation reward (×100)')
  drawing.legend_below(figure, grid)
  return figure


def _label_counts(axes) -> None:
  drawing.label_axes(axes, 'reward (×100)', 'number of samples')
  axes.set_ylim(bottom=0)
  axes.yaxis.set_major_formatter('{x:,.0f}')
