"""Names of policies, and what they were called before."""

import pytest

from rest_jax.evaluation import policy_names


@pytest.mark.parametrize(
  ('step', 'name'),
  [
    (('bc', 0, 0), 'BC'),
    (('ppo', 0, 0), 'PPO'),
    (('ppo', 0, 0, 'small'), 'PPO (small)'),
    (('bc', 1, 3), 'ReST G1 I3'),
    (('gold_p', 1, 2), 'ReST G1 I2 (GOLD_P)'),
    (('gold_p', 2, 1, 'mine'), 'ReST G2 I1 (mine)'),
  ],
)
def test_steps(step, name):
  assert policy_names.of_step(*step) == name


def test_controls():
  names = [policy_names.of_control(c) for c in policy_names.CONTROLS]
  assert names == ['BC trained on', 'BC at equal entropy']
  assert policy_names.of_control('trained on', 'GOLD') == 'BC trained on (GOLD)'


def test_parts():
  assert policy_names.family('ReST G1 I12 (GOLD)') == 'ReST (GOLD)'
  assert policy_names.of_grow('ReST G1 I12 (GOLD)') == 'ReST G1 (GOLD)'
  assert policy_names.variant_of('ReST G1 I12 (GOLD)') == ' (GOLD)'
  assert policy_names.family('BC') == policy_names.of_grow('BC') == 'BC'
  assert policy_names.variant_of('BC at equal entropy') == ''


@pytest.mark.parametrize(
  ('old', 'name'),
  [
    ('BC (G=0, I=0)', 'BC'),
    ('BC (G=1, I=3)', 'ReST G1 I3'),
    ('GOLD (G=1, I=3)', 'ReST G1 I3 (GOLD)'),
    ('DPO (G=2, I=1) my own', 'ReST G2 I1 (my own)'),
    ('BC at T=0.52', 'BC at equal entropy'),
    ('BC at T=0.52 dpo', 'BC at equal entropy (dpo)'),
    ('BC trained on dpo', 'BC trained on (dpo)'),
  ],
)
def test_names_of_version_0_1(old, name):
  assert policy_names.renamed(old) == name
  assert policy_names.renamed(name) == name
