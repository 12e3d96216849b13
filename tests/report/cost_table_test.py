"""Tests of the table of costs."""

from rest_jax.evaluation import costs
from rest_jax.report import cost_table


def test_each_policy_has_what_online_learning_spent_below_it():
  cost = costs.Cost(
    samples=80_000,
    distinct_samples=75_123,
    sampled_tokens=1_066_000,
    trained_tokens=190_000,
    flops=2.345e12,
    seconds=61.7,
    peak_rss_mb=1_500.2,
  )
  online = costs.Cost(samples=16_384, flops=9e12)
  text = cost_table.render(
    [
      costs.Reached(policy='G=1, I=1', reward=66.5, cost=cost, online=online),
      costs.Reached(policy='G=1, I=2', reward=70.0, cost=cost),
      costs.Reached(policy='PPO', reward=69.5, cost=online),
    ]
  )
  lines = text.splitlines()
  assert lines[2].split()[2:] == [
    '66.50', '80,000', '75,123', '1,066,000', '190,000', '2.35', '62', '1,500',
  ]  # fmt: skip
  assert lines[3].split()[:5] == ['online', 'to', 'there', '16,384', '0']
  assert lines[5].split()[3:] == ['not', 'reached']
  assert lines[6].split()[:3] == ['PPO', '69.50', '16,384']
  # Nothing follows online learning itself but the note.
  assert lines[7] == ''
  assert max(map(len, lines)) <= 120
