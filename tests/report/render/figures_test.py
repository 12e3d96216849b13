"""Figures: what is drawn, that no data is hidden, and equal bytes."""

import io
import itertools
import sys

from matplotlib import colors, container
from matplotlib.backends import backend_agg
import numpy as np
import pytest

from rest_jax.evaluation import metrics, policy_names, shares
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report.render import drawing, figures
from rest_jax.rewards import probe_results
from tests.evaluation import made


def make_variant(grow, improve, split='validation', loss='bc', **fields):
  full = {
    'reward': metrics.Estimate(70.0 + 5 * grow + improve, 0.25),
    'best_of_n': {1: 70.0 + improve, 2: 75.0 + improve, 4: 80.0 + improve},
  }
  return made.variant(
    grow, improve, loss=loss, split=split, **{**full, **fields}
  )


STEPS = ((0, 0), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))


def make_results(**fields):
  return results_lib.Results(
    task='demo',
    variants=tuple(
      make_variant(*step, split, **fields)
      for split in ('validation', 'test')
      for step in STEPS
    ),
  )


def saturation(color):
  return colors.rgb_to_hsv(colors.to_rgb(color))[1]


def lightness(color):
  return sum(colors.to_rgb(color))


def legend_labels(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


class TestAverageReward:
  def test_bars_are_the_rewards(self):
    figure = figures.average_reward(make_results())
    assert [axes.get_title() for axes in figure.axes] == ['validation', 'test']
    bars = figure.axes[0].patches
    tops = [bar.get_y() + bar.get_height() for bar in bars]
    assert tops == pytest.approx([70, 75, 76, 77, 81, 82])
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ['70.0', '75.0', '76.0', '77.0', '81.0', '82.0']
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks[0] == 'BC' and ticks[-1] == 'ReST\nG2 I2'

  def test_policies_can_be_told_apart_without_colours(self):
    variants = [
      make_variant(0, 0),
      *(
        make_variant(
          0, 0, name=policy_names.of_control(control), control=control
        )
        for control in policy_names.CONTROLS
      ),
      make_variant(0, 0, loss='ppo'),
      *(make_variant(1, improve) for improve in (1, 2, 3)),
    ]
    shades = drawing.shades(variants)

    def grey(variant):
      """Lightness L* of CIELAB, from 0 to 100."""
      channels = np.array(colors.to_rgb(shades[variant.name]))
      linear = np.where(
        channels <= 0.04045,
        channels / 12.92,
        ((channels + 0.055) / 1.055) ** 2.4,
      )
      return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16

    for a, b in itertools.combinations(variants, 2):
      is_hatched_otherwise = drawing.hatch(a) != drawing.hatch(b)
      assert is_hatched_otherwise or abs(grey(a) - grey(b)) > 10, (a, b)

  def test_error_bars_have_a_light_outline(self):
    errors, _ = figures.average_reward(make_results()).axes[0].containers
    _, caps, (lines,) = errors.lines
    for part in (*caps, lines):
      (stroke, *_) = part.get_path_effects()
      assert stroke._gc['foreground'] == 'white'

  def test_bc_is_grey_and_rest_ever_darker_purple(self):
    bars = figures.average_reward(make_results()).axes[0].patches
    shades = [bar.get_facecolor()[:3] for bar in bars]
    assert saturation(shades[0]) == 0
    assert all(saturation(shade) > 0.1 for shade in shades[1:])
    assert all(shade[2] > shade[1] for shade in shades[1:])
    steps = [lightness(shade) for shade in shades[1:]]
    assert steps == sorted(steps, reverse=True)

  def test_a_cut_axis_is_said(self):
    axes = figures.average_reward(make_results()).axes[0]
    floor = axes.get_ylim()[0]
    assert 0 < floor < 70
    assert f'axis from {floor:g}' in axes.get_ylabel()
    wide = results_lib.Results(
      task='demo',
      variants=(
        make_variant(0, 0, reward=metrics.Estimate(20.0, 1.0)),
        make_variant(1, 1, reward=metrics.Estimate(80.0, 1.0)),
      ),
    )
    axes = figures.average_reward(wide).axes[0]
    assert axes.get_ylim()[0] == 0
    assert 'axis from' not in axes.get_ylabel()

  @pytest.mark.parametrize('means', [(-30.0, -5.0), (-5.0, 60.0), (0.0, 0.0)])
  def test_no_reward_leaves_the_axes(self, means):
    results = results_lib.Results(
      task='demo',
      variants=tuple(
        make_variant(grow, grow, reward=metrics.Estimate(mean, 1.0))
        for grow, mean in enumerate(means)
      ),
    )
    low, high = figures.average_reward(results).axes[0].get_ylim()
    assert low <= min(means) - 1 and max(means) + 1 <= high

  def test_the_judge_has_a_row(self):
    figure = figures.average_reward(
      make_results(human=metrics.Estimate(61.0, 0.5))
    )
    assert len(figure.axes) == 4
    assert 'judge' in figure.axes[2].get_ylabel()
    bar = figure.axes[2].patches[0]
    assert bar.get_y() + bar.get_height() == pytest.approx(61.0)

  def test_error_bars_are_one_standard_error(self):
    axes = figures.average_reward(make_results()).axes[0]
    (errors,) = (
      part
      for part in axes.containers
      if isinstance(part, container.ErrorbarContainer)
    )
    segments = errors.lines[2][0].get_segments()
    assert [high - low for (_, low), (_, high) in segments] == pytest.approx(
      [0.5] * 6
    )


class TestGrowSteps:
  def test_a_line_for_each_grow_step(self):
    figure = figures.grow_steps(make_results())
    lines = figure.axes[0].containers
    assert [line.get_label() for line in lines] == ['ReST G1', 'ReST G2']
    first, second = (line.lines[0] for line in lines)
    assert list(first.get_xdata()) == [0, 1, 2]
    assert list(first.get_ydata()) == [75, 76, 77]
    assert list(second.get_xdata()) == [1, 2]
    assert lightness(second.get_color()) < lightness(first.get_color())
    assert set(legend_labels(figure)) == {'BC', 'ReST G1', 'ReST G2'}

  def test_other_losses_are_other_lines(self):
    results = make_results().updated(
      [make_variant(1, 1, loss='gold'), make_variant(1, 2, loss='gold')]
    )
    lines = figures.grow_steps(results).axes[0].containers
    assert [line.get_label() for line in lines] == [
      'ReST G1',
      'ReST G2',
      'ReST G1 (GOLD)',
    ]
    styles = {
      (c.lines[0].get_linestyle(), c.lines[0].get_color()) for c in lines
    }
    assert len(styles) == 3


class TestBestOfN:
  def test_curves(self):
    figure = figures.best_of_n(make_results(best_of_n_stderr={1: 0.5}))
    axes = figure.axes[0]
    assert axes.get_xscale() == 'log'
    assert len(axes.containers) == len(STEPS)
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == [1, 2, 4]
    assert list(line.get_ydata()) == [70, 75, 80]
    figure.draw_without_rendering()
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert {'1', '2', '4'} <= set(shown)

  def test_one_name_has_one_colour_in_all_panels(self):
    # BC alone was evaluated on the second split.
    variants = [make_variant(*step) for step in STEPS]
    variants += [make_variant(0, 0, 'test'), make_variant(2, 2, 'test')]
    figure = figures.best_of_n(
      results_lib.Results(task='demo', variants=tuple(variants))
    )
    shades = [
      {c.get_label(): c.lines[0].get_color() for c in axes.containers}
      for axes in figure.axes
    ]
    assert len(shades[1]) == 2
    assert shades[1].items() <= shades[0].items()
    assert sorted(legend_labels(figure)) == sorted(shades[0])

  def test_policies_without_curves_are_left_out(self):
    results = results_lib.Results(
      task='demo',
      variants=(make_variant(0, 0), make_variant(1, 1, best_of_n={})),
    )
    assert legend_labels(figures.best_of_n(results)) == ['BC']
    with pytest.raises(ValueError, match='none has'):
      figures.best_of_n(make_results(best_of_n={}))


class TestFilterValues:
  def test_a_line_for_each_grow_step_and_a_panel_for_each_kind(self):
    results = results_lib.Results(
      task='demo',
      variants=(
        make_variant(0, 0),
        *(
          make_variant(
            grow,
            improve,
            filter=variant_lib.Filter(kind='percentile', value=value),
          )
          for grow in (1, 2)
          # Not in the order of their values.
          for improve, value in ((1, 90.0), (2, 50.0))
        ),
        make_variant(
          3, 1, filter=variant_lib.Filter(kind='interpolation', value=0.25)
        ),
      ),
    )
    figure = figures.filter_values(results)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
      'percentile filter, validation',
      'interpolation filter, validation',
    ]
    first, second = figure.axes[0].containers
    assert first.get_label() == 'ReST G1'
    assert list(first.lines[0].get_xdata()) == [50, 90]
    assert list(first.lines[0].get_ydata()) == [77, 76]
    assert list(second.lines[0].get_ydata()) == [82, 81]
    (lone,) = figure.axes[1].containers
    assert list(lone.lines[0].get_xdata()) == [0.25]
    assert 'BC' in legend_labels(figure)

  def test_without_filters(self):
    assert figures.filter_kinds(make_results()) == ()
    with pytest.raises(ValueError, match='none has'):
      figures.filter_values(make_results())


class TestProbeShares:
  def make_report(self, values):
    return probe_results.Report(
      reward='learned',
      num_pairs=9,
      mean=0.0,
      std=1.0,
      probed=(
        *(
          probe_results.Probed(
            name=name,
            is_control=False,
            count=9,
            share=shares.Share(share, share - 0.05, share + 0.02),
            mean_drop=1.0,
          )
          for name, share in values.items()
        ),
        probe_results.Probed(name='untested', is_control=False, count=0),
        probe_results.Probed(
          name='mild', is_control=True, count=9, mean_drop=0.1
        ),
      ),
    )

  def test_a_bar_for_each_share_and_the_missed_ones_darker(self):
    report = self.make_report({'empty': 0.9, 'permuted': 0.6})
    axes = figures.probe_shares(report, title='demo', minimum=0.8).axes[0]
    first, second = axes.patches
    assert (first.get_width(), second.get_width()) == pytest.approx((90, 60))
    assert first.get_y() > second.get_y()
    assert lightness(first.get_facecolor()[:3]) > lightness(
      second.get_facecolor()[:3]
    )
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == ['empty (9)', 'permuted (9)']
    (segment, _) = (
      part.lines[2][0].get_segments()[0]
      for part in axes.containers
      if isinstance(part, container.ErrorbarContainer)
    )
    assert [x for x, _ in segment] == pytest.approx([85, 92])
    assert 80 in [line.get_xdata()[0] for line in axes.lines]

  def test_nothing_to_draw_is_an_empty_panel(self):
    axes = figures.probe_shares(self.make_report({}), title='demo').axes[0]
    assert not axes.patches


@pytest.mark.parametrize('count', [1, 6, 24])
def test_nothing_overlaps(count):
  """Titles, labels and legend lie inside the figure, the legend off the data."""
  losses = [f'loss{index}' for index in range(count)]
  results = results_lib.Results(
    task='a task of some length',
    variants=(
      make_variant(0, 0),
      *(make_variant(1, 1, loss=loss) for loss in losses),
    ),
  )
  for draw in (figures.average_reward, figures.grow_steps, figures.best_of_n):
    figure = draw(results)
    figure.draw_without_rendering()
    renderer = backend_agg.FigureCanvasAgg(figure).get_renderer()
    box = figure.get_tightbbox(renderer)  # in inches
    assert box.x0 > -0.1 and box.y0 > -0.1
    assert box.x1 < figure.get_figwidth() + 0.1
    assert figure.axes[0].get_window_extent(renderer).height > 150
    for legend in figure.legends:
      panel = figure.axes[0].get_tightbbox(renderer)
      assert not legend.get_window_extent(renderer).overlaps(panel)


class TestFiles:
  def test_write_all(self, tmp_path):
    names = [
      path.name for path in figures.write_all(make_results(), tmp_path / 'new')
    ]
    assert names == ['average_reward.png', 'grow_steps.png', 'best_of_n.png']
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == sorted(names)
    bc = results_lib.Results(
      task='demo', variants=(make_variant(0, 0, best_of_n={}),)
    )
    assert [p.name for p in figures.write_all(bc, tmp_path)] == [
      'average_reward.png'
    ]

  def test_equal_bytes_without_software_or_date(self, tmp_path):
    contents = []
    for name in ('a.png', 'b.png'):
      drawing.save(figures.best_of_n(make_results()), tmp_path / name)
      contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(b'\x89PNG')
    assert b'Software' not in contents[0] and b'tEXt' not in contents[0]

  def test_nothing_to_draw(self, tmp_path):
    with pytest.raises(ValueError, match='none has been evaluated'):
      figures.write_all(results_lib.Results(task='demo'), tmp_path)
    assert not list(tmp_path.iterdir())

  def test_pyplot_is_not_touched(self):
    before = 'matplotlib.pyplot' in sys.modules
    figures.average_reward(make_results()).savefig(io.BytesIO())
    assert ('matplotlib.pyplot' in sys.modules) == before

  def test_svg_is_repeatable_and_loses_its_title(self):
    pictures = []
    for _ in range(2):
      figure = figures.best_of_n(make_results())
      pictures.append(drawing.svg(figure))
      assert figure.get_suptitle() == ''
    assert pictures[0] == pictures[1]
    assert b'<svg' in pictures[0] and b'<dc:date>' not in pictures[0]
