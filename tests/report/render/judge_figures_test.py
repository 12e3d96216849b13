"""Reward against judge: the gains, and rewards at each level of the score."""

import numpy as np
import pytest

from rest_jax.evaluation import metrics
from rest_jax.evaluation import results as results_lib
from rest_jax.report.render import evidence, judge_figures
from tests.report import pages


def make_results():
  gains = {1: (5.0, 1.0), 2: (3.0, 2.0), 3: (4.0, -1.5)}
  return results_lib.Results(
    task='demo',
    variants=(
      pages.variant(0, 0),
      *(
        pages.variant(
          1,
          improve,
          difference_to_bc=metrics.Difference(reward, 0.5),
          human_difference_to_bc=metrics.Difference(human, 0.25),
        )
        for improve, (reward, human) in gains.items()
      ),
      pages.variant(1, 4),  # not judged
    ),
  )


class TestRewardAndJudge:
  def test_in_the_order_of_the_reward(self):
    left, right = judge_figures.reward_and_judge(make_results()).axes
    assert [bar.get_width() for bar in left.patches] == [3, 4, 5]
    assert [bar.get_width() for bar in right.patches] == [2, -1.5, 1]
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
      'ReST G1 I2',
      'ReST G1 I3',
      'ReST G1 I1',
    ]

  def test_nobody_was_judged(self):
    with pytest.raises(ValueError, match='none has'):
      judge_figures.reward_and_judge(pages.results())


class TestLevels:
  def test_few_scores_are_levels(self):
    groups = judge_figures.levels(
      np.array([3.0, 0.0, 3.0, 6.0]), np.array([1.0, 2.0, 3.0, 4.0])
    )
    assert [(name, list(of)) for name, of in groups] == [
      ('0', [2.0]),
      ('3', [1.0, 3.0]),
      ('6', [4.0]),
    ]

  def test_many_scores_are_seven_ranges_that_hold_all(self):
    judgements = np.linspace(0, 70, 71)
    groups = judge_figures.levels(judgements, judgements)
    assert [name for name, _ in groups][:2] == ['0 to 10', '10 to 20']
    assert [len(of) for _, of in groups] == [10, 10, 10, 10, 10, 10, 11]

  def test_ranges_without_samples_are_left_out(self):
    judgements = np.append(np.linspace(0, 0.9, 10), 7.0)
    groups = judge_figures.levels(judgements, judgements)
    assert [name for name, _ in groups] == ['0 to 1', '6 to 7']

  def test_boxes_are_the_quartiles(self):
    rewards = np.arange(101.0)
    figure = judge_figures.judged_rewards([('1', rewards)], title='boxes')
    box = figure.axes[0].patches[0].get_path().vertices
    assert sorted(set(box[:, 1])) == [25, 75]
    assert figure.axes[0].get_xticklabels()[0].get_text() == '1\n(101)'


class TestCorrelations:
  def test_between_and_within_sources_may_differ(self):
    # Inside a source the better sample has the better reward; harder sources
    # have the better rewards.
    sources = np.repeat(np.arange(12), 2)
    better = np.tile([0.0, 1.0], 12)
    judged = evidence.Judged(
      judgements=10.0 * sources + better,
      rewards=-50.0 * sources + better,
      sources=sources,
    )
    [(name, pairs, within, best, pooled)] = evidence.correlations(
      {'bc': judged}
    ).rows
    value = np.corrcoef(judged.judgements, judged.rewards)[0, 1]
    # Twelve sources are nine degrees of freedom.
    low, high = np.tanh(np.arctanh(value) + np.array([-1, 1]) * 1.96 / 3)
    assert (name, pooled) == ('bc', f'{value:+.2f} [{low:+.2f}, {high:+.2f}]')
    assert value < -0.9
    assert pairs == '100.0 % [100.0, 100.0]'
    assert within == best == '+1.00 [+1.00, +1.00]'

  def test_few_sources_are_not_measured(self):
    # Two points always lie on a line.
    judged = evidence.Judged(
      judgements=np.array([10.0, 20.0, 50.0, 60.0]),
      rewards=np.array([80.0, 81.0, 10.0, 11.0]),
      sources=np.array([3, 3, 9, 9]),
    )
    cells = evidence.correlations({'bc': judged})
    assert cells.rows == (('bc', '-', '-', '-', '-'),)
    assert 'fewer than 10 sources' in cells.title

  def test_what_does_not_vary_has_none(self):
    judged = evidence.Judged(
      np.ones(20), np.arange(20.0), np.repeat(np.arange(10), 2)
    )
    missing = ('bc', '-', '-', '-', '-')
    assert evidence.correlations({'bc': judged}).rows == (missing,)
