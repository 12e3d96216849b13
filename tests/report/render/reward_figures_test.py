"""Figures of rewards show the counts that they are given."""

import numpy as np
import pytest

from rest_jax.report.gather import distributions
from rest_jax.report.render import drawing, reward_figures


def make_distribution(rewards, thresholds=(), num_bins=10):
  return distributions.measure(
    lambda: iter([rewards]), thresholds, num_bins=num_bins
  )


def legend_labels(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def heights(axes, index=0):
  return list(axes.patches[index].get_data().values)


class TestRewardHistogram:
  def test_counts_thresholds_and_mean(self):
    distribution = make_distribution(np.linspace(0, 1, 1001), (0.9, 0.75))
    figure = reward_figures.reward_histogram(distribution, title='Rewards')
    axes = figure.axes[0]
    assert heights(axes) == list(distribution.counts)
    assert axes.patches[0].get_data().edges == pytest.approx(
      100 * distribution.edges
    )
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx(
      [50, 75, 90]
    )
    assert legend_labels(figure) == [
      'mean 50.0',
      'τ = 0.75 keeps 25.0 %',
      'τ = 0.9 keeps 10.0 %',
    ]


class TestKeptRewards:
  def make(self, count):
    edges = np.linspace(0, 1, 4)
    return [
      distributions.KeptDistribution(
        name=f'I={i}',
        edges=edges,
        before=np.array([3, 4, 5]),
        after=np.array([0, 1, 5 - i]),
      )
      for i in range(1, count + 1)
    ]

  @pytest.mark.parametrize('count', [1, 3, 4])
  def test_a_panel_for_each_step(self, count):
    figure = reward_figures.kept_rewards(self.make(count), title='kept')
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [
      f'I={i}' for i in range(1, count + 1)
    ]
    for number, axes in enumerate(shown, 1):
      assert heights(axes, 0) == [3, 4, 5]
      assert heights(axes, 1) == [0, 1, 5 - number]
    assert legend_labels(figure) == ['before the filter', 'after the filter']


class TestTrainingRewards:
  def test_a_line_for_each_training(self):
    figure = reward_figures.training_rewards(
      {'one': ([0, 5], [60.0, 61.0]), 'two': ([0], [61.5])}, title='training'
    )
    first, second = figure.axes[0].lines
    assert list(first.get_ydata()) == [60.0, 61.0]
    assert list(second.get_xdata()) == [0]
    assert legend_labels(figure) == ['one', 'two']
    assert first.get_color() != second.get_color()


def test_all_can_be_written_without_a_blank_axis():
  svg = drawing.svg(
    reward_figures.reward_histogram(
      make_distribution(np.full(9, 0.5)), title='Rewards'
    )
  )
  assert svg.startswith(b'<?xml')
