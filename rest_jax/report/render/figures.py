"""Figures of `results.json`, like those of the paper.

For colours see `drawing`. Each function returns a new `matplotlib` figure;
pyplot and its global state are not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import math
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rest_jax.evaluation import metrics, policy_names
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report.render import drawing
from rest_jax.rewards import probe_results
from rest_jax.storage import paths as storage_paths

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure as figure_lib

_FILTER_LABELS = {
  'fixed': 'threshold τ (reward, not ×100)',
  'quantile': 'quantile of D_g',
  'percentile': "percentile p of each source's samples",
  'interpolation': 'γ of γ·max + (1 − γ)·mean',
}


def average_reward(results: results_lib.Results) -> figure_lib.Figure:
  """Draws the average reward of every policy, one panel per split.

  The score of an independent judge has a second row, which shows a reward that
  rises alone. Bars are labelled with their value, because the axis may not
  start at 0; error bars are one standard error, clustered by source.

  Source: ReST (arXiv 2308.08998), Fig. 3.

  Raises:
    ValueError: there is nothing to draw.
  """
  splits = _splits(results)
  rows = [('reward', 'average reward')]
  if rater := results.rater:
    rows.append(('human', f'average {rater} score'))
  most = max(len(results.of_split(split)) for split in splits)
  figure, grid = drawing.panels(
    f'{results.task}: average reward', len(rows), len(splits), 0.6 * most + 1.2
  )
  shades = drawing.shades(results.variants)
  for row, (field, label) in enumerate(rows):
    for column, split in enumerate(splits):
      axes = grid[row][column]
      axes.set_title(split if row == 0 else '', fontsize=10)
      shown = [
        (variant, getattr(variant, field))
        for variant in results.of_split(split)
        if getattr(variant, field) is not None
      ]
      _bars(axes, label, shown, shades)
  return figure


def grow_steps(results: results_lib.Results) -> figure_lib.Figure:
  """Draws reward over Improve steps, one line per Grow step.

  The grey line is BC, with a band of one standard error. Policies whose names
  differ beyond G and I have separate lines.

  Source: ReST (arXiv 2308.08998), Fig. 4.

  Raises:
    ValueError: there is nothing to draw.
  """
  from matplotlib import ticker

  splits = _splits(results)
  figure, grid = drawing.panels(
    f'{results.task}: reward over Improve steps', 1, len(splits), 4.2
  )
  grown = [variant for variant in results.variants if variant.grow > 0]
  steps = sorted({variant.grow for variant in grown})
  shades = dict(zip(steps, drawing.purples(len(steps)), strict=True))
  families = list(
    dict.fromkeys(policy_names.family(variant.name) for variant in grown)
  )
  for axes, split in zip(grid[0], splits, strict=True):
    variants = results.of_split(split)
    for index, family in enumerate(families):
      for step in steps:
        points = [
          v
          for v in variants
          if v.grow == step and policy_names.family(v.name) == family
        ]
        if points:
          _reward_line(
            axes,
            [point.improve for point in points],
            points,
            index,
            color=shades[step],
            linestyle=drawing.LINESTYLES[index % len(drawing.LINESTYLES)],
            label=policy_names.of_grow(points[0].name),
          )
    _bc_band(axes, variants)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set_title(split, fontsize=10)
    drawing.label_axes(axes, 'Improve step I', 'average reward (×100)')
  drawing.legend_below(figure, grid)
  return figure


def best_of_n(results: results_lib.Results) -> figure_lib.Figure:
  """Draws the reward of the best of n samples over n, one line per policy.

  Source: ReST (arXiv 2308.08998), Fig. 6.

  Raises:
    ValueError: no policy has a curve.
  """
  shown = [variant for variant in results.variants if variant.best_of_n]
  if not shown:
    raise ValueError('results must hold a policy with best_of_n; none has.')
  splits = tuple(dict.fromkeys(variant.split for variant in shown))
  figure, grid = drawing.panels(
    f'{results.task}: Best-of-N sampling', 1, len(splits), 4.2
  )
  shades = drawing.shades(shown)
  markers = {
    name: drawing.MARKERS[i % len(drawing.MARKERS)]
    for i, name in enumerate(shades)
  }
  for axes, split in zip(grid[0], splits, strict=True):
    for variant in (v for v in shown if v.split == split):
      ns = sorted(variant.best_of_n)
      errors = [variant.best_of_n_stderr.get(n, 0.0) for n in ns]
      axes.errorbar(
        ns,
        [variant.best_of_n[n] for n in ns],
        yerr=errors if any(errors) else None,
        color=shades[variant.name],
        linestyle='--' if variant.is_bc or variant.control else '-',
        linewidth=1.2,
        marker=markers[variant.name],
        markersize=4.5,
        capsize=2,
        label=variant.name,
      )
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_title(split, fontsize=10)
    drawing.label_axes(
      axes,
      'number of samples N (log scale)',
      'reward of the best of N (×100)',
    )
  drawing.legend_below(figure, grid)
  return figure


def filter_values(results: results_lib.Results) -> figure_lib.Figure:
  """Draws reward over the filter's parameter, one panel per kind of filter.

  The parameter is a percentile p, an interpolation gamma, a quantile or a fixed
  threshold. The grey line is BC, with a band of one standard error.

  Source: ReST (arXiv 2308.08998), Fig. 15 and 16.

  Args:
    results: policies of one split; at least one with a filter.

  Raises:
    ValueError: no policy has a filter.
  """
  kinds = filter_kinds(results)
  if not kinds:
    raise ValueError('results must hold a policy with a filter; none has.')
  figure, grid = drawing.panels(
    f'{results.task}: reward over the value of the filter', 1, len(kinds), 4.6
  )
  for axes, kind in zip(grid[0], kinds, strict=True):
    lines: dict[str, list[variant_lib.Variant]] = {}
    for variant in results.variants:
      if variant.filter is not None and variant.filter.kind == kind:
        label = policy_names.of_grow(variant.name)
        lines.setdefault(label, []).append(variant)
    shades = drawing.purples(len(lines))
    for index, (label, variants) in enumerate(lines.items()):
      points = _by_filter_value(variants)
      _reward_line(
        axes,
        [point.filter.value for point in points if point.filter],
        points,
        index,
        color=shades[index],
        label=label,
      )
    _bc_band(axes, results.variants)
    axes.set_title(f'{kind} filter, {", ".join(results.splits)}', fontsize=10)
    drawing.label_axes(
      axes, _FILTER_LABELS.get(kind, 'value'), 'average reward (×100)'
    )
  drawing.legend_below(figure, grid)
  return figure


def filter_kinds(results: results_lib.Results) -> tuple[str, ...]:
  """Returns the kinds of filters with a finite value."""
  kinds = (
    variant.filter.kind
    for variant in results.variants
    if variant.filter is not None and math.isfinite(variant.filter.value)
  )
  return tuple(dict.fromkeys(kinds))


def probe_shares(
  report: probe_results.Report, *, title: str, minimum: float | None = None
) -> figure_lib.Figure:
  """Draws how often a reward prefers the reference to a changed one.

  There is one bar per probe with a share, with its 95 % interval and number of
  cases; bars below the minimum are darker. The grey line is chance, the dashed
  line is the minimum.
  """
  shown = [(a, a.share) for a in report.probed if a.share is not None]
  figure, grid = drawing.panels(
    f'{title}: probes of the reward', 1, 1, drawing.WIDTH
  )
  figure.set_figheight(max(0.3 * len(shown) + 1.2, 2.0))
  axes = grid[0][0]
  light, dark = drawing.purples(2)
  places = np.arange(len(shown))[::-1]
  for place, (_, share) in zip(places, shown, strict=True):
    is_missed = minimum is not None and share.value < minimum
    bars = axes.barh(
      place,
      100 * share.value,
      height=0.72,
      color=dark if is_missed else light,
      xerr=[
        [100 * (share.value - share.low)],
        [100 * (share.high - share.value)],
      ],
      error_kw={'ecolor': drawing.INK, 'elinewidth': 1.2, 'capsize': 2},
    )
    drawing.outline_errors(bars.errorbar)
  axes.set_yticks(places, [f'{a.name} ({a.count:,})' for a, _ in shown])
  axes.axvline(50, color=drawing.GREY, linewidth=1)
  if minimum is not None:
    axes.axvline(100 * minimum, color=drawing.INK, linewidth=1, linestyle='--')
  axes.set_xlim(0, 101)
  drawing.make_horizontal(axes, 'cases with R(x, reference) > R(x, changed), %')
  return figure


def write_all(
  results: results_lib.Results, directory: str | os.PathLike[str]
) -> tuple[pathlib.Path, ...]:
  """Writes every figure that the results allow.

  Args:
    results: at least one policy.

  Returns:
    The files: `average_reward.png`, `grow_steps.png` if there was a Grow step,
    `best_of_n.png` if there are curves.
  """
  drawn = {'average_reward': average_reward(results)}
  if any(variant.grow > 0 for variant in results.variants):
    drawn['grow_steps'] = grow_steps(results)
  if any(variant.best_of_n for variant in results.variants):
    drawn['best_of_n'] = best_of_n(results)
  paths = []
  for name, figure in drawn.items():
    paths.append(storage_paths.of(directory) / f'{name}.png')
    drawing.save(figure, paths[-1])
  return tuple(paths)


def _splits(results: results_lib.Results) -> tuple[str, ...]:
  if not results.variants:
    raise ValueError(
      'results must hold at least one policy; none has been evaluated yet. Run '
      '--run_mode=evaluate first, or --run_mode=rest for all stages.'
    )
  return results.splits


def _reward_line(
  axes: axes_lib.Axes,
  x: Sequence[float],
  variants: Sequence[variant_lib.Variant],
  index: int,
  **style: Any,
) -> None:
  """Draws rewards over x with error bars, and the marker of an index."""
  axes.errorbar(
    x,
    [variant.reward.mean for variant in variants],
    yerr=[variant.reward.stderr for variant in variants],
    marker=drawing.MARKERS[index % len(drawing.MARKERS)],
    capsize=3,
    **style,
  )


def _bc_band(
  axes: axes_lib.Axes, variants: Iterable[variant_lib.Variant]
) -> None:
  """Draws BC's reward as a line, with a band of one standard error."""
  for variant in filter(lambda v: v.is_bc, variants):
    mean, stderr = variant.reward.mean, variant.reward.stderr
    axes.axhline(mean, color=drawing.GREY, zorder=1, label=variant.name)
    axes.axhspan(
      mean - stderr, mean + stderr, color=drawing.GREY, alpha=0.18, linewidth=0
    )


def _bars(
  axes: axes_lib.Axes,
  label: str,
  shown: Sequence[tuple[variant_lib.Variant, metrics.Estimate]],
  shades: dict[str, str],
) -> None:
  """Draws a bar with an error bar and its value for each policy."""
  if not shown:
    axes.set_axis_off()
    return
  means = np.array([estimate.mean for _, estimate in shown])
  errors = np.array([estimate.stderr for _, estimate in shown])
  floor = _floor((means - errors).min(), (means + errors).max())
  bars = axes.bar(
    np.arange(len(shown)),
    means - floor,
    bottom=floor,
    width=0.72,
    color=[shades[variant.name] for variant, _ in shown],
    hatch=[drawing.hatch(variant) for variant, _ in shown],
    edgecolor='white',
    linewidth=0,
    yerr=errors,
    error_kw={'ecolor': drawing.INK, 'elinewidth': 1.2, 'capsize': 3},
  )
  drawing.outline_errors(bars.errorbar)
  for place, (mean, error) in enumerate(zip(means, errors, strict=True)):
    axes.annotate(
      f'{mean:.1f}',
      (place, max(mean + error, floor)),
      xytext=(0, 3),
      textcoords='offset points',
      ha='center',
      fontsize=8,
      color=drawing.INK,
    )
  top = max((means + errors).max(), floor)
  bottom = min((means - errors).min(), floor)
  axes.set_ylim(bottom, top + 0.12 * (top - bottom or 1))
  # A single bar would otherwise fill the panel.
  middle, half = (len(shown) - 1) / 2, max(len(shown), 4) / 2 + 0.1
  axes.set_xlim(middle - half, middle + half)
  names = [drawing.label(variant) for variant, _ in shown]
  axes.set_xticks(np.arange(len(shown)), names, fontsize=8)
  start = f', axis from {floor:g}' if floor else ''
  axes.set_ylabel(f'{label}\n(×100{start})', fontsize=9)


def _floor(low: float, high: float) -> float:
  """Returns the start of bars: 0, unless that would hide their differences."""
  if low <= 0 or high - low > 0.5 * high:
    return 0.0
  # Leaves room for the lowest bar; a multiple of 5 is a simple number.
  floor = 5 * math.floor((low - max(0.6 * (high - low), 2)) / 5)
  return float(max(floor, 0))


def _by_filter_value(
  variants: Iterable[variant_lib.Variant],
) -> list[variant_lib.Variant]:
  """Sorts the policies with a finite filter value by that value."""
  points = [
    (variant.filter.value, variant)
    for variant in variants
    if variant.filter is not None and math.isfinite(variant.filter.value)
  ]
  return [variant for _, variant in sorted(points, key=lambda point: point[0])]
