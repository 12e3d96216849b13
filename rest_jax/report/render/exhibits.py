"""Figures of a page: pictures, alternative texts, and drawn numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
from typing import TYPE_CHECKING

from rest_jax.evaluation import results as results_lib
from rest_jax.report import table
from rest_jax.report.render import drawing, figures, judge_figures

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

# Names and values for an alternative text.
_Entries = Iterable[tuple[str, str]]
_POLICY: table.Columns = (
  ('policy', lambda variant: variant.name),
  ('split', lambda variant: variant.split),
)


@dataclasses.dataclass(frozen=True)
class Picture:
  """One image.

  Attributes:
    alt: alternative text for people who do not see it.
  """

  figure: figure_lib.Figure
  alt: str

  @property
  def is_wide(self) -> bool:
    """Whether it needs the width of a page."""
    return self.figure.get_figwidth() > 1.5 * drawing.WIDTH


def picture(
  figure: figure_lib.Figure, words: str, entries: _Entries = ()
) -> Picture:
  """Returns a picture with an alternative text.

  Args:
    entries: names and values to list after `words`.
  """
  behind = ' The numbers are in the table below.'
  return Picture(figure, f'{words}{listed(entries)}{behind}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exhibit:
  """A figure of a page.

  Attributes:
    name: anchor for links; letters, digits and '-'.
    pictures: at least one; the first is shown, the others on demand.
  """

  name: str
  title: str
  caption: str
  pictures: tuple[Picture, ...]
  numbers: table.Cells


def of_results(results: results_lib.Results) -> list[Exhibit]:
  """Returns every figure that the results allow, with a picture per split."""
  drawn = (
    _average_reward(results),
    _grow_steps(results),
    _reward_and_judge(results),
    _best_of_n(results),
    _filter_values(results),
  )
  return [exhibit for exhibit in drawn if exhibit is not None]


def _pictures(
  results: results_lib.Results,
  draw: Callable[[results_lib.Results], figure_lib.Figure],
  words: str,
  entries: Callable[[results_lib.Results], _Entries],
  is_drawn: Callable[[results_lib.Results], object] = bool,
) -> tuple[Picture, ...]:
  """Draws each split with something to draw."""
  of_splits = [
    dataclasses.replace(results, variants=results.of_split(split))
    for split in results.reported_splits
  ]
  return tuple(
    picture(draw(one), f'{words} on {one.splits[0]}: ', entries(one))
    for one in of_splits
    if is_drawn(one)
  )


def _rewards(results: results_lib.Results) -> _Entries:
  return ((v.name, f'{v.reward.mean:.1f}') for v in results.variants)


def _average_reward(results: results_lib.Results) -> Exhibit:
  rater = results.rater or 'judge'
  return Exhibit(
    name='average-reward',
    title='Average reward',
    caption=(
      'Samples, with one standard error. BC and its controls are grey, ReST is '
      'stronger with each step (Fig. 3 of the paper).'
    ),
    pictures=_pictures(
      results, figures.average_reward, 'Bars of the average reward', _rewards
    ),
    numbers=table.of(
      'Average reward ×100',
      results.variants,
      (
        *_POLICY,
        ('reward', lambda v: table.number(v.reward.mean)),
        ('standard error', lambda v: table.number(v.reward.stderr)),
        (rater, lambda v: table.number(v.human and v.human.mean)),
        ('its error', lambda v: table.number(v.human and v.human.stderr)),
      ),
    ),
  )


def _has_grown(results: results_lib.Results) -> bool:
  return any(variant.grow for variant in results.variants)


def _grow_steps(results: results_lib.Results) -> Exhibit | None:
  if not _has_grown(results):
    return None
  return Exhibit(
    name='grow-steps',
    title='Reward over Improve steps',
    caption=(
      'Samples; the grey level is BC with one standard error (Fig. 4 of the '
      'paper).'
    ),
    pictures=_pictures(
      results,
      figures.grow_steps,
      'Reward over Improve steps',
      _rewards,
      _has_grown,
    ),
    numbers=table.of(
      'Reward ×100 by Grow and Improve step',
      results.variants,
      (
        *_POLICY,
        ('G', lambda v: str(v.grow)),
        ('I', lambda v: str(v.improve)),
        ('reward', lambda v: table.shown(v.reward)),
        ('to BC', lambda v: table.shown(v.difference_to_bc)),
      ),
    ),
  )


def _reward_and_judge(results: results_lib.Results) -> Exhibit | None:
  gains = judge_figures.gains(results)
  if not gains:
    return None
  rater = results.rater
  return Exhibit(
    name='reward-and-judge',
    title=f'Gain in reward and {rater} score',
    caption=(
      'Samples, paired with BC by source, in the order of the reward: if the '
      'right side does not follow, the policy exploits the reward without '
      f'pleasing the {rater} (Fig. 7 of the paper).'
    ),
    pictures=_pictures(
      results,
      judge_figures.reward_and_judge,
      f'Bars of gains over BC, reward and {rater} score,',
      lambda one: (
        (
          gain.policy.name,
          f'{gain.reward.mean:+.1f} and {gain.judge.mean:+.1f}',
        )
        for gain in judge_figures.gains(one)
      ),
      judge_figures.gains,
    ),
    numbers=table.of(
      'Differences to BC ×100, with two-sided p-values',
      gains,
      (
        ('policy', lambda gain: gain.policy.name),
        ('split', lambda gain: gain.policy.split),
        ('reward', lambda gain: table.shown(gain.reward)),
        ('p', lambda gain: p_value(gain.reward.p_value)),
        (rater, lambda gain: table.shown(gain.judge)),
        (f'p of {rater}', lambda gain: p_value(gain.judge.p_value)),
      ),
    ),
  )


def _best_of_n(results: results_lib.Results) -> Exhibit | None:
  with_curves = [variant for variant in results.variants if variant.best_of_n]
  if not with_curves:
    return None
  sizes = sorted({n for variant in with_curves for n in variant.best_of_n})
  return Exhibit(
    name='best-of-n',
    title='Best-of-N sampling',
    caption=(
      'Reward of the best of N stored samples per source, an unbiased estimate '
      '(Fig. 6 of the paper).'
    ),
    pictures=_pictures(
      results,
      figures.best_of_n,
      f'Reward of the best of {sizes[0]} to {sizes[-1]} samples',
      lambda one: (
        (v.name, f'{v.best_of_n[max(v.best_of_n)]:.1f} at most')
        for v in one.variants
        if v.best_of_n
      ),
      lambda one: any(variant.best_of_n for variant in one.variants),
    ),
    numbers=table.Cells(
      'Reward ×100 of the best of N',
      ('policy', 'split', *(f'N={n}' for n in sizes)),
      tuple(
        (v.name, v.split, *(table.number(v.best_of_n.get(n)) for n in sizes))
        for v in with_curves
      ),
    ),
  )


def _filter_values(results: results_lib.Results) -> Exhibit | None:
  if not figures.filter_kinds(results):
    return None
  return Exhibit(
    name='filter-values',
    title='Reward over the value of the filter',
    caption=(
      'Samples of each Improve step, over the value of its filter (Fig. 15 and '
      '16 of the paper).'
    ),
    pictures=_pictures(
      results,
      figures.filter_values,
      'Reward over the value of the filter',
      lambda one: (
        (f'{v.filter.kind} {v.filter.value:g}', f'{v.reward.mean:.1f}')
        for v in one.variants
        if v.filter
      ),
      figures.filter_kinds,
    ),
    numbers=table.of(
      'Reward ×100 by value of the filter',
      (v for v in results.variants if v.filter),
      (
        *_POLICY,
        ('filter', lambda v: v.filter.kind),
        ('value', lambda v: f'{v.filter.value:g}'),
        ('reward', lambda v: table.shown(v.reward)),
      ),
    ),
  )


def p_value(p: float) -> str:
  """Formats a p-value with at most four decimals."""
  return '< 0.0001' if p < 1e-4 else f'{p:.4f}'


def listed(entries: _Entries) -> str:
  """Lists names and values for an alternative text: 'a: 1, b: 2.'"""
  words = ', '.join(f'{name}: {value}' for name, value in entries)
  return f'{words}.' if words else ''
