"""Figures as a page shows them: pictures, words, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import TYPE_CHECKING

from rest_jax.evaluation import results as results_lib
from rest_jax.report import table
from rest_jax.report.render import drawing, figures, judge_figures

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

BEHIND = ' The numbers are in the table below.'


@dataclasses.dataclass(frozen=True)
class Picture:
  """One image.

  Attributes:
    figure: what is drawn.
    alt: says it to who does not see it.
  """

  figure: figure_lib.Figure
  alt: str

  @property
  def is_wide(self) -> bool:
    """Whether it needs the width of a page."""
    return self.figure.get_figwidth() > 1.5 * drawing.WIDTH


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exhibit:
  """A figure of a page.

  Attributes:
    name: for links to it; letters, digits and '-'.
    title: its heading.
    caption: what is drawn, and of what.
    pictures: at least one; the first is shown, the others on demand.
    numbers: behind the pictures.
  """

  name: str
  title: str
  caption: str
  pictures: tuple[Picture, ...]
  numbers: table.Cells


def of_results(results: results_lib.Results) -> list[Exhibit]:
  """Returns every figure that results allow, a picture for each split.

  Args:
    results: at least one policy.
  """
  drawn = (
    _average_reward(results),
    _grow_steps(results),
    _reward_and_judge(results),
    _best_of_n(results),
    _filter_values(results),
  )
  return [exhibit for exhibit in drawn if exhibit is not None]


def _average_reward(results: results_lib.Results) -> Exhibit:
  return Exhibit(
    name='average-reward',
    title='Average reward',
    caption=(
      'Samples, with one standard error. BC and its controls are grey, ReST is '
      'stronger with each step (Fig. 3 of the paper).'
    ),
    pictures=tuple(
      Picture(
        figures.average_reward(one),
        f'Bars of the average reward on {split}: '
        + listed((v.name, f'{v.reward.mean:.1f}') for v in one.variants)
        + BEHIND,
      )
      for split, one in _by_split(results)
    ),
    numbers=table.Cells(
      'Average reward ×100',
      (
        'policy',
        'split',
        'reward',
        'standard error',
        results.rater or 'judge',
        'its error',
      ),
      tuple(
        (
          v.name,
          v.split,
          table.number(v.reward.mean),
          table.number(v.reward.stderr),
          table.number(v.human.mean if v.human else None),
          table.number(v.human.stderr if v.human else None),
        )
        for v in results.variants
      ),
    ),
  )


def _grow_steps(results: results_lib.Results) -> Exhibit | None:
  if not any(variant.grow for variant in results.variants):
    return None
  return Exhibit(
    name='grow-steps',
    title='Reward over Improve steps',
    caption=(
      'Samples; the grey level is BC with one standard error (Fig. 4 of the '
      'paper).'
    ),
    pictures=tuple(
      Picture(
        figures.grow_steps(one),
        f'Reward over Improve steps on {split}: '
        + listed((v.name, f'{v.reward.mean:.1f}') for v in one.variants)
        + BEHIND,
      )
      for split, one in _by_split(results)
      if any(variant.grow for variant in one.variants)
    ),
    numbers=table.Cells(
      'Reward ×100 by Grow and Improve step',
      ('policy', 'split', 'G', 'I', 'reward', 'to BC'),
      tuple(
        (
          v.name,
          v.split,
          str(v.grow),
          str(v.improve),
          table.estimate(v.reward),
          table.difference(v.difference_to_bc),
        )
        for v in results.variants
      ),
    ),
  )


def _reward_and_judge(results: results_lib.Results) -> Exhibit | None:
  shown = judge_figures.gains(results)
  if not shown:
    return None
  rater = results.rater
  return Exhibit(
    name='reward-and-judge',
    title=f'Gain in reward and {rater} score',
    caption=(
      'Samples, paired with BC by source, in the order of the reward: where the '
      f'right side does not follow, the policy pleases the reward and not the '
      f'{rater} (Fig. 7 of the paper).'
    ),
    pictures=tuple(
      Picture(
        judge_figures.reward_and_judge(one),
        f'Bars of gains over BC on {split}, reward and {rater} score: '
        + listed(
          (
            gain.policy.name,
            f'{gain.reward.mean:+.1f} and {gain.judge.mean:+.1f}',
          )
          for gain in judge_figures.gains(one)
        )
        + BEHIND,
      )
      for split, one in _by_split(results)
      if judge_figures.gains(one)
    ),
    numbers=table.Cells(
      'Differences to BC ×100, with two-sided p-values',
      ('policy', 'split', 'reward', 'p', rater, f'p of {rater}'),
      tuple(
        (
          gain.policy.name,
          gain.policy.split,
          table.difference(gain.reward),
          p_value(gain.reward.p_value),
          table.difference(gain.judge),
          p_value(gain.judge.p_value),
        )
        for gain in shown
      ),
    ),
  )


def _best_of_n(results: results_lib.Results) -> Exhibit | None:
  shown = [variant for variant in results.variants if variant.best_of_n]
  if not shown:
    return None
  sizes = sorted({n for variant in shown for n in variant.best_of_n})
  return Exhibit(
    name='best-of-n',
    title='Best-of-N sampling',
    caption=(
      'Reward of the best of N stored samples per source, an unbiased estimate '
      '(Fig. 6 of the paper).'
    ),
    pictures=tuple(
      Picture(
        figures.best_of_n(one),
        f'Reward of the best of {sizes[0]} to {sizes[-1]} samples on {split}: '
        + listed(
          (v.name, f'{v.best_of_n[max(v.best_of_n)]:.1f} at most')
          for v in one.variants
          if v.best_of_n
        )
        + BEHIND,
      )
      for split, one in _by_split(results)
      if any(variant.best_of_n for variant in one.variants)
    ),
    numbers=table.Cells(
      'Reward ×100 of the best of N',
      ('policy', 'split', *(f'N={n}' for n in sizes)),
      tuple(
        (v.name, v.split, *(table.number(v.best_of_n.get(n)) for n in sizes))
        for v in shown
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
    pictures=tuple(
      Picture(
        figures.filter_values(one),
        f'Reward over the value of the filter on {split}: '
        + listed(
          (f'{v.filter.kind} {v.filter.value:g}', f'{v.reward.mean:.1f}')
          for v in one.variants
          if v.filter
        )
        + BEHIND,
      )
      for split, one in _by_split(results)
      if figures.filter_kinds(one)
    ),
    numbers=table.Cells(
      'Reward ×100 by value of the filter',
      ('policy', 'split', 'filter', 'value', 'reward'),
      tuple(
        (
          v.name,
          v.split,
          v.filter.kind,
          f'{v.filter.value:g}',
          table.estimate(v.reward),
        )
        for v in results.variants
        if v.filter
      ),
    ),
  )


def p_value(p: float) -> str:
  """Shows a p-value without pretending more than it says."""
  return '< 0.0001' if p < 1e-4 else f'{p:.4f}'


def _by_split(
  results: results_lib.Results,
) -> list[tuple[str, results_lib.Results]]:
  """Results of each split, first those of test, of which the verdict is."""
  splits = sorted(results.splits, key=lambda split: split != 'test')
  return [
    (split, dataclasses.replace(results, variants=results.of_split(split)))
    for split in splits
  ]


def listed(entries: Iterable[tuple[str, str]]) -> str:
  """Words for alternative text: 'a: 1, b: 2.'"""
  words = ', '.join(f'{name}: {value}' for name, value in entries)
  return f'{words}.' if words else ''
