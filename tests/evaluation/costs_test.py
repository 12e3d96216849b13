"""Tests of what ReST and online learning have spent."""

import json

import pytest

from rest_jax.evaluation import costs


def _cost(scale, peak=1.0):
  return costs.Cost(
    samples=scale,
    distinct_samples=2 * scale,
    sampled_tokens=3 * scale,
    trained_tokens=4 * scale,
    flops=5 * scale,
    seconds=6 * scale,
    peak_rss_mb=peak,
  )


def test_what_was_spent_adds_up_and_memory_is_the_peak():
  assert _cost(1, peak=7.0) + _cost(10, peak=5.0) == _cost(11, peak=7.0)


def test_the_first_evaluation_with_a_reward():
  # It falls back below 0.7 later on, which does not matter.
  course = [(0.5, _cost(0)), (0.7, _cost(1)), (0.6, _cost(2)), (0.8, _cost(3))]
  assert costs.first_with(0.5, course) == _cost(0)
  assert costs.first_with(0.65, course) == _cost(1)
  assert costs.first_with(0.7, course) == _cost(1)
  assert costs.first_with(0.75, course) == _cost(3)
  assert costs.first_with(0.81, course) is None


def test_means_over_runs():
  def reached(reward, scale, online):
    return costs.Reached(
      policy='G=1, I=1', reward=reward, cost=_cost(scale), online=online
    )

  [both] = costs.mean(
    [[reached(60.0, 1, _cost(2))], [reached(62.0, 3, _cost(6))]]
  )
  assert both == reached(61.0, 2, _cost(4))
  [once] = costs.mean([[reached(60.0, 1, _cost(2))], [reached(62.0, 3, None)]])
  assert once.online is None
  with pytest.raises(ValueError, match='shorter'):
    costs.mean([[reached(60.0, 1, None)], []])


def test_the_file_holds_all_of_it(tmp_path):
  one = costs.Reached(policy='PPO', reward=70.5, cost=_cost(2))
  costs.write(tmp_path / 'costs.json', [one])
  [read] = json.loads((tmp_path / 'costs.json').read_text(encoding='utf-8'))
  assert costs.Reached(**{**read, 'cost': costs.Cost(**read['cost'])}) == one
