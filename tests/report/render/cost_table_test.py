"""Tests of the table of costs."""

from rest_jax.evaluation import costs
from rest_jax.report.render import cost_table


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
      costs.Reached(policy='ReST G1 I1', reward=66.5, cost=cost, online=online),
      costs.Reached(policy='ReST G1 I2', reward=70.0, cost=cost),
      costs.Reached(policy='PPO', reward=69.5, cost=online),
    ]
  )
  upper, lower, _ = (block.split('\n') for block in text.split('\n\n'))
  assert upper[2].split()[3:] == [
    '66.50', '80,000', '75,123', '1,066,000', '190,000',
  ]  # fmt: skip
  assert lower[2].split()[3:] == ['2.35', '62', '1,500']
  assert upper[3].split()[:5] == ['online', 'to', 'there', '16,384', '0']
  assert upper[5].split()[3:] == ['not', 'reached']
  assert upper[6].split()[:3] == ['PPO', '69.50', '16,384']
  # Nothing follows online learning itself but the note.
  assert len(upper) == len(lower) == 7
  assert max(map(len, text.split('\n'))) <= 80
