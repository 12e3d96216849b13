"""Exhibits behind the results: D_g, trainings, the judge, probes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rest_jax.evaluation import correlations as correlations_lib
from rest_jax.evaluation import within_source
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
_MIN_SPREAD = 1e-9  # A smaller spread is a rounding error.


def of_grow(
  grow_step: int, distribution: distributions.Distribution, what: str
) -> exhibits.Exhibit:
  """Returns the histogram of one Grow step's rewards.

  Args:
    what: a sentence that describes the rows.
  """
  title = f'Rewards of D_{grow_step}'
  return exhibits.Exhibit(
    name=f'rewards-{grow_step}',
    title=title,
    caption=f'{what} The outer bins hold the lowest and the highest 0.1 %.',
    pictures=(
      exhibits.picture(
        reward_figures.reward_histogram(distribution, title=title),
        f'Histogram of {distribution.count:,} rewards with mean '
        f'{100 * distribution.mean:.1f}.'
        + (' Thresholds: ' if distribution.above else ''),
        (
          (
            f'{tau:g}',
            f'{100 * distribution.fraction_above(tau):.1f} % above it',
          )
          for tau in distribution.above
        ),
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
    kept: one entry per Improve step, in the same bins.
    what: a sentence that describes the rows.
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
      exhibits.picture(
        reward_figures.kept_rewards(kept, title=title),
        'Histograms of rewards before and after the filter, kept: ',
        (
          (entry.name, table.percent(entry.after.sum() / entry.before.sum()))
          for entry in kept
        ),
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
  """Returns the reward that chose the checkpoints of each training."""
  title = 'Reward while training'
  return exhibits.Exhibit(
    name='training',
    title=title,
    caption=(
      'Sampled validation reward, which chooses checkpoints; the results are of '
      'other samples.'
    ),
    pictures=(
      exhibits.picture(
        reward_figures.training_rewards(curves, title=title),
        'Sampled validation reward over training steps, the last: ',
        ((name, f'{rewards[-1]:.1f}') for name, (_, rewards) in curves.items()),
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
  """The samples of one policy, scored by the reward and by the judge.

  Attributes:
    judgements: float [n], x100.
    rewards: float [n], x100.
    sources: int [n], the source of each sample.
  """

  judgements: np.ndarray
  rewards: np.ndarray
  sources: np.ndarray


def correlations(judged: Mapping[str, Judged]) -> table.Cells:
  """Returns the agreement of the reward of samples with the judge's score.

  First within sources, as filters and Best-of-N use the reward; then over all
  samples, which also reflects the difficulty of sources.
  """
  return table.Cells(
    'Agreement of reward and judge over samples of each policy, with 95 % '
    'intervals. Best of N: (judge of the sample of the highest reward - mean) / '
    f'(highest - mean) of a source. {table.MISSING}: fewer than '
    f'{correlations_lib.MIN_CORRELATED} sources, or all alike',
    (
      'policy',
      'pairs of one source in order',
      'Pearson within a source',
      'best of N',
      'Pearson over all samples',
    ),
    tuple((name, *_correlations(samples)) for name, samples in judged.items()),
  )


def _correlations(judged: Judged) -> tuple[str, ...]:
  """Returns the cells: agreement within sources, then over all samples."""
  groups = np.unique(judged.sources, return_inverse=True)[1]
  # Samples of a source resemble each other: each source counts once.
  num_sources = int(groups.max()) + 1
  ranking = within_source.rank(judged.rewards, judged.judgements, groups)
  spread = min(np.ptp(judged.judgements), np.ptp(judged.rewards))
  if num_sources < correlations_lib.MIN_CORRELATED or spread < _MIN_SPREAD:
    return (table.MISSING,) * 4
  pooled = correlations_lib.pearson(judged.judgements, judged.rewards)
  interval = correlations_lib.interval(pooled, num_sources)
  shown = f'{pooled:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]'
  if ranking.num_sources < correlations_lib.MIN_CORRELATED:
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
  """Returns the distribution of rewards at each level of the judge's score."""
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
      exhibits.picture(
        judge_figures.judged_rewards(groups, title=title),
        'Boxes of rewards by judge score, median: ',
        ((name, f'{np.median(rewards):.1f}') for name, rewards in groups),
      ),
    ),
    numbers=table.Cells(
      'Percentiles of reward ×100',
      ('judge score', 'samples', *(f'{p} %' for p in points)),
      tuple(
        (
          name,
          f'{len(rewards):,}',
          *map(table.number, np.percentile(rewards, points)),
        )
        for name, rewards in groups
      ),
    ),
  )


def of_probes(
  report: probe_results.Report, title: str, minimum: float | None
) -> exhibits.Exhibit:
  """Returns how often a reward prefers references to changed references."""
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
      exhibits.picture(
        figures.probe_shares(report, title=title, minimum=minimum),
        'Bars of the share of cases that the reward orders rightly: ',
        ((a.name, table.percent(share.value)) for a, share in tested),
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
