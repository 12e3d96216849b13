"""Exhibits of what lies behind results: D_g, trainings, the judge, probes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rest_jax.evaluation import metrics, within_source
from rest_jax.report import table
from rest_jax.report.gather import distributions
from rest_jax.report.render import (
  exhibits,
  figures,
  judge_figures,
  reward_figures,
)
from rest_jax.rewards import probe_results

_NUM_RESAMPLES = 1_000
# What rounding leaves is no spread.
_HAIR = 1e-9


def of_grow(
  grow_step: int, distribution: distributions.Distribution, what: str
) -> exhibits.Exhibit:
  """Returns the histogram of one Grow step's rewards.

  Args:
    grow_step: g.
    distribution: of the rewards of D_g.
    what: which rows these are, a sentence.
  """
  title = f'Rewards of D_{grow_step}'
  thresholds = exhibits.listed(
    (f'{tau:g}', f'{100 * distribution.fraction_above(tau):.1f} % above it')
    for tau in distribution.above
  )
  return exhibits.Exhibit(
    name=f'rewards-{grow_step}',
    title=title,
    caption=f'{what} The outer bins hold the lowest and the highest 0.1 %.',
    pictures=(
      exhibits.Picture(
        reward_figures.reward_histogram(distribution, title=title),
        f'Histogram of {distribution.count:,} rewards with mean '
        f'{100 * distribution.mean:.1f}.'
        + (f' Thresholds: {thresholds}' if thresholds else '')
        + exhibits.BEHIND,
      ),
    ),
    numbers=table.Cells(
      'Samples by reward ×100',
      ('from', 'to', 'samples'),
      tuple(
        (f'{100 * low:.2f}', f'{100 * high:.2f}', f'{count:,}')
        for low, high, count in zip(
          distribution.edges[:-1],
          distribution.edges[1:],
          distribution.counts,
          strict=True,
        )
      ),
    ),
  )


def of_kept(
  grow_step: int,
  kept: Sequence[distributions.KeptDistribution],
  what: str,
) -> exhibits.Exhibit:
  """Returns the rewards of D_g before and after the filter of each step.

  Args:
    grow_step: g.
    kept: an entry for each Improve step, in the same bins.
    what: which rows these are, a sentence.
  """
  title = f'D_{grow_step} before and after each filter'
  edges = kept[0].edges
  return exhibits.Exhibit(
    name=f'kept-{grow_step}',
    title=title,
    caption=(
      f'Pale: rows that may be trained on; strong: rows that are kept. {what}'
    ),
    pictures=(
      exhibits.Picture(
        reward_figures.kept_rewards(kept, title=title),
        'Histograms of rewards before and after the filter, kept: '
        + exhibits.listed(
          (entry.name, table.percent(entry.after.sum() / entry.before.sum()))
          for entry in kept
        )
        + exhibits.BEHIND,
      ),
    ),
    numbers=table.Cells(
      'Rows by reward ×100',
      ('from', 'to', 'before', *(entry.name for entry in kept)),
      tuple(
        (
          f'{100 * edges[i]:.2f}',
          f'{100 * edges[i + 1]:.2f}',
          f'{kept[0].before[i]:,}',
          *(f'{entry.after[i]:,}' for entry in kept),
        )
        for i in range(len(edges) - 1)
      ),
    ),
  )


def of_training(
  curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
) -> exhibits.Exhibit:
  """Returns the reward by which the checkpoints of each training were chosen.

  Args:
    curves: see `reward_figures.training_rewards`.
  """
  title = 'Reward while training'
  return exhibits.Exhibit(
    name='training',
    title=title,
    caption=(
      'Sampled validation reward, which chooses checkpoints; the results have '
      'other draws.'
    ),
    pictures=(
      exhibits.Picture(
        reward_figures.training_rewards(curves, title=title),
        'Sampled validation reward over training steps, the last: '
        + exhibits.listed(
          (name, f'{rewards[-1]:.1f}') for name, (_, rewards) in curves.items()
        )
        + exhibits.BEHIND,
      ),
    ),
    numbers=table.Cells(
      'Sampled validation reward ×100',
      ('policy', 'step', 'reward'),
      tuple(
        (name, str(step), table.number(reward))
        for name, (steps, rewards) in curves.items()
        for step, reward in zip(steps, rewards, strict=True)
      ),
    ),
  )


class Judged(NamedTuple):
  """The samples of one policy, seen by the reward and by the judge.

  Attributes:
    judgements: float [n], x100.
    rewards: float [n], x100.
    sources: int [n], the source of each.
  """

  judgements: np.ndarray
  rewards: np.ndarray
  sources: np.ndarray


def correlations(judged: Mapping[str, Judged]) -> table.Cells:
  """Returns how the reward of samples agrees with the judge's score.

  First between the samples of one source, which is what a filter or Best-of-N
  chooses by; then over all samples, where easy and hard sources count as well.

  Args:
    judged: by the policy's name.
  """
  return table.Cells(
    'Agreement of reward and judge over samples of each policy, with 95 % '
    'intervals. Best of N: (judge of the sample of the highest reward - mean) / '
    f'(highest - mean) of a source. {table.MISSING}: fewer than '
    f'{metrics.MIN_CORRELATED} sources, or all alike',
    (
      'policy',
      'pairs of one source in order',
      'Pearson within a source',
      'best of N',
      'Pearson over all samples',
    ),
    tuple((name, *_correlations(found)) for name, found in judged.items()),
  )


def _correlations(judged: Judged) -> tuple[str, ...]:
  """Within sources, then over all samples."""
  groups = np.unique(judged.sources, return_inverse=True)[1]
  # Samples of a source resemble each other, so that it counts once.
  number = int(groups.max()) + 1
  ranking = within_source.rank(judged.rewards, judged.judgements, groups)
  spread = min(np.ptp(judged.judgements), np.ptp(judged.rewards))
  if number < metrics.MIN_CORRELATED or spread < _HAIR:
    return (table.MISSING,) * 4
  pooled = metrics.pearson(judged.judgements, judged.rewards)
  interval = metrics.correlation_interval(pooled, number)
  shown = f'{pooled:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]'
  if ranking.num_sources < metrics.MIN_CORRELATED:
    return (*(table.MISSING,) * 3, shown)
  accuracy, pearson, best_of_n = (
    (statistic.value, *statistic.interval(num_resamples=_NUM_RESAMPLES))
    for statistic in (
      ranking.pairwise_accuracy,
      ranking.pearson,
      ranking.best_of_n,
    )
  )
  return (
    '{:.1f} % [{:.1f}, {:.1f}]'.format(*(100 * x for x in accuracy)),
    '{:+.2f} [{:+.2f}, {:+.2f}]'.format(*pearson),
    '{:+.2f} [{:+.2f}, {:+.2f}]'.format(*best_of_n),
    shown,
  )


def of_judged(policy: str, split: str, judged: Judged) -> exhibits.Exhibit:
  """Returns how rewards are distributed at each level of the judge's score.

  Args:
    policy: whose samples these are.
    split: of their sources.
    judged: the samples.
  """
  groups = judge_figures.levels(judged.judgements, judged.rewards)
  title = 'Reward at each level of the judge’s score'
  points = (5, 25, 50, 75, 95)
  return exhibits.Exhibit(
    name='judged-rewards',
    title=title,
    caption=(
      f'{len(judged.rewards):,} samples of {policy} on {split}: quartiles, 5th '
      'and 95th percentile. A reward that is high where the judge is low can be '
      'exploited (Fig. 9 and 10 of the paper).'
    ),
    pictures=(
      exhibits.Picture(
        judge_figures.judged_rewards(groups, title=title),
        'Boxes of rewards by judge score, median: '
        + exhibits.listed((name, f'{np.median(of):.1f}') for name, of in groups)
        + exhibits.BEHIND,
      ),
    ),
    numbers=table.Cells(
      'Percentiles of reward ×100',
      ('judge score', 'samples', *(f'{p} %' for p in points)),
      tuple(
        (name, f'{len(of):,}', *map(table.number, np.percentile(of, points)))
        for name, of in groups
      ),
    ),
  )


def of_probes(
  report: probe_results.Report, title: str, minimum: float | None
) -> exhibits.Exhibit:
  """Returns how often a reward prefers references to what probes made of them.

  Args:
    report: the answers.
    title: what the references are of.
    minimum: the share that was asked for; None for none.
  """
  tested = [
    (answer, answer.share)
    for answer in report.probed
    if answer.share is not None
  ]
  return exhibits.Exhibit(
    name='probes',
    title='Probes of the reward',
    caption=(
      f'How often R prefers the reference to a changed one on {title}, with '
      '95 % intervals; grey line: chance, dashed: the minimum that was set.'
    ),
    pictures=(
      exhibits.Picture(
        figures.probe_shares(report, title=title, minimum=minimum),
        'Bars of the share of cases that the reward orders rightly: '
        + exhibits.listed(
          (a.name, table.percent(share.value)) for a, share in tested
        )
        + exhibits.BEHIND,
      ),
    ),
    numbers=table.Cells(
      'Probes',
      ('probe', 'cases', 'R(reference) > R(changed)', '95 % interval'),
      tuple(
        (
          a.name,
          f'{a.count:,}',
          table.percent(share.value),
          f'{table.percent(share.low)} to {table.percent(share.high)}',
        )
        for a, share in tested
      ),
    ),
  )
