"""Figures that compare the reward with an independent judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rest_jax.evaluation import metrics
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report.render import drawing

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

# Number of levels of the paper's human scores, 0 to 6.
_LEVELS = 7


class Gain(NamedTuple):
  """The gains of a policy over BC x100, by the reward and by the judge."""

  policy: variant_lib.Variant
  reward: metrics.Difference
  judge: metrics.Difference


def gains(results: results_lib.Results) -> tuple[Gain, ...]:
  """Returns the policies with differences to BC in both reward and judge."""
  return tuple(
    Gain(variant, variant.difference_to_bc, variant.human_difference_to_bc)
    for variant in results.variants
    if variant.difference_to_bc and variant.human_difference_to_bc
  )


def reward_and_judge(results: results_lib.Results) -> figure_lib.Figure:
  """Draws the gains of policies over BC in reward, and in the judge's score.

  Policies are in the order of the reward, so that another order of the judge is
  seen.

  Source: ReST (arXiv 2308.08998), Fig. 7.

  Args:
    results: of one split; at least one policy of `gains`.

  Raises:
    ValueError: no policy was judged beside BC.
  """
  shown = gains(results)
  if not shown:
    raise ValueError(
      'results must hold a policy with human_difference_to_bc; none has.'
    )
  shades = drawing.shades(results.variants)
  order = sorted(shown, key=lambda gain: gain.reward.mean)
  rater = results.rater
  figure, grid = drawing.panels(
    f'{results.task}: gain in reward and in {rater} score',
    1,
    2,
    drawing.WIDTH / 2,
  )
  figure.set_figheight(max(0.32 * len(order) + 1.0, 2.4))
  places = np.arange(len(order))
  for axes, field, label in (
    (grid[0][0], 'reward', 'gain in reward (×100)'),
    (grid[0][1], 'judge', f'gain in {rater} score (×100)'),
  ):
    differences = [getattr(gain, field) for gain in order]
    bars = axes.barh(
      places,
      [difference.mean for difference in differences],
      xerr=[difference.stderr for difference in differences],
      height=0.72,
      color=[shades[gain.policy.name] for gain in order],
      hatch=[drawing.hatch(gain.policy) for gain in order],
      edgecolor='white',
      linewidth=0,
      error_kw={'ecolor': drawing.INK, 'elinewidth': 1.2, 'capsize': 2},
    )
    drawing.outline_errors(bars.errorbar)
    axes.axvline(0, color=drawing.INK, linewidth=0.8)
    axes.set_yticks(places, [gain.policy.name for gain in order])
    drawing.make_horizontal(axes, label)
  grid[0][1].tick_params(labelleft=False)
  grid[0][0].set_title(', '.join(results.splits), fontsize=10)
  return figure


def levels(
  judgements: np.ndarray, rewards: np.ndarray
) -> list[tuple[str, np.ndarray]]:
  """Groups rewards by the judge's score.

  Args:
    judgements: float [n], any unit.
    rewards: float [n] of the same samples.

  Returns:
    Names and rewards of the levels, from the lowest score to the highest.
    Levels are the scores themselves if there are at most seven, else seven
    equal ranges without empty ones.
  """
  values = np.unique(judgements)
  if len(values) <= _LEVELS:
    return [(f'{v:g}', rewards[judgements == v]) for v in values]
  edges = np.linspace(values[0], values[-1], _LEVELS + 1)
  index = np.clip(np.searchsorted(edges, judgements, 'right') - 1, 0, 6)
  return [
    (f'{edges[i]:.0f} to {edges[i + 1]:.0f}', rewards[index == i])
    for i in range(_LEVELS)
    if np.any(index == i)
  ]


def judged_rewards(
  groups: Sequence[tuple[str, np.ndarray]], *, title: str
) -> figure_lib.Figure:
  """Draws the distribution of rewards at each level of the judge's score.

  Boxes span the quartiles, lines reach from the 5th to the 95th percentile.

  Source: ReST (arXiv 2308.08998), Fig. 9 and 10.

  Args:
    groups: see `levels`; rewards x100.
  """
  figure, grid = drawing.panels(title, 1, 1, drawing.WIDTH)
  axes = grid[0][0]
  shades = drawing.purples(len(groups))
  for place, ((_, rewards), shade) in enumerate(
    zip(groups, shades, strict=True)
  ):
    boxes = axes.boxplot(
      rewards,
      positions=[place],
      widths=0.6,
      whis=(5, 95),
      showfliers=False,
      patch_artist=True,
      medianprops={'color': drawing.INK},
      whiskerprops={'color': drawing.INK},
      capprops={'color': drawing.INK},
    )
    drawing.outline(boxes['medians'][:1])
    boxes['boxes'][0].set(facecolor=shade, edgecolor='none', alpha=0.8)
  names = [f'{name}\n({len(rewards):,})' for name, rewards in groups]
  axes.set_xticks(range(len(groups)), names, fontsize=8)
  drawing.label_axes(axes, 'judge score (number of samples)', 'reward (×100)')
  return figure
