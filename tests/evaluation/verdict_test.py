"""The verdict in one sentence, from differences to BC that are made up."""

import pytest

from rest_jax.evaluation import verdict
from tests.evaluation import made


def policy(name, greedy, samples=None, **fields):
  """A policy with (mean, stderr) of its differences to BC, by decode."""
  grow, improve = 0, 0
  if name.startswith('ReST'):
    grow, improve = (int(part[1:]) for part in name.split()[1:3])
  return made.variant(
    grow,
    improve,
    name=name,
    loss='ppo' if name == 'PPO' else 'bc',
    outputs={
      'greedy': made.output(**greedy),
      'samples': made.output(**(greedy if samples is None else samples)),
    },
    **fields,
  )


def trained_on(greedy, samples=None, **fields):
  fields = {'control': 'trained on', **fields}
  return policy('BC trained on', greedy, samples, **fields)


def find(*policies):
  return verdict.of_policies([policy('BC', {}), *policies])


GAIN = {'reward': (2.0, 0.3), 'judge': (3.2, 0.5)}


@pytest.mark.parametrize(
  ('control', 'words'),
  [
    ((2.9, 0.5), 'gains about as much, +2.9 ± 0.5'),
    ((0.3, 0.5), 'gains nothing, +0.3 ± 0.5'),
    ((1.2, 0.4), 'gains less, +1.2 ± 0.4'),
    ((6.0, 0.5), 'gains more, +6.0 ± 0.5'),
  ],
)
def test_a_gain_beside_that_of_training_on(control, words):
  found = find(
    trained_on({'judge': control}),
    policy('ReST G1 I1', {'judge': (1.0, 0.5)}),
    policy('ReST G1 I2', GAIN),
  )
  assert found.sentence == (
    'Greedy output on validation: judge +3.2 ± 0.5 over BC with ReST G1 I2; BC '
    f'trained on for as many steps {words}.'
  )
  assert found[1:] == ('ReST G1 I2', 'judge', 'validation')


def test_only_samples_gain():
  cooled = policy(
    'BC at equal entropy',
    {'judge': (0.0, 0.0)},
    {'judge': (2.9, 0.2)},
    control='equal entropy',
  )
  found = find(
    cooled,
    trained_on({'judge': (0.1, 0.4)}, {'judge': (0.2, 0.4)}),
    policy('ReST G1 I1', {'judge': (0.3, 0.5)}, {'judge': (3.1, 0.3)}),
  )
  assert found.sentence == (
    'Sharper, not better: on validation, judge of samples +3.1 ± 0.3 over BC with '
    'ReST G1 I1, of greedy output +0.3 ± 0.5; BC at equal entropy gains about as '
    'much, +2.9 ± 0.2.'
  )
  assert found.recommended == 'BC'


@pytest.mark.parametrize(
  ('differences', 'words'),
  [
    (
      {'reward': (16.9, 0.4), 'judge': (-8.9, 0.5)},
      'reward +16.9 ± 0.4 over BC with ReST G1 I2, but judge -8.9 ± 0.5: the '
      'reward is exploited.',
    ),
    (
      {'reward': (4.0, 0.4), 'judge': (0.3, 0.5)},
      'only the reward rose, +4.0 ± 0.4 over BC with ReST G1 I2; judge +0.3 ± 0.5.',
    ),
    (
      {'reward': (0.1, 0.4), 'judge': (-0.02, 0.04)},
      'no gain over BC: judge -0.02 ± 0.04 with ReST G1 I2.',
    ),
    (
      {'reward': (0.1, 0.4), 'judge': (-3.0, 0.5)},
      'worse than BC: judge -3.0 ± 0.5 with ReST G1 I2.',
    ),
  ],
)
def test_where_the_judge_is_not_pleased_the_last_policy_is_told(
  differences, words
):
  found = find(
    policy('ReST G1 I1', {'judge': (0.5, 0.5)}),
    policy('ReST G1 I2', differences),
  )
  assert found.sentence == f'Greedy output on validation: {words}'
  assert found.recommended == 'BC'


@pytest.mark.parametrize(
  ('second', 'words'),
  [
    ({'reward': (5.0, 0.3), 'judge': (3.0, 0.5)}, 'raised only the reward.'),
    ({'reward': (2.1, 0.3), 'judge': (3.0, 0.5)}, 'added nothing.'),
    ({'reward': (5.0, 0.3), 'judge': (6.0, 0.5)}, None),
  ],
)
def test_what_the_second_grow_added(second, words):
  found = find(policy('ReST G1 I1', GAIN), policy('ReST G2 I1', second))
  if words is None:
    assert found.sentence.endswith('judge +6.0 ± 0.5 over BC with ReST G2 I1.')
  else:
    assert found.sentence.endswith(f'ReST G1 I1; the second Grow {words}')


@pytest.mark.parametrize('split', ['test', 'test_2017'])
def test_chosen_on_validation_and_told_of_a_test_set(split):
  found = find(
    policy('ReST G1 I1', {'judge': (2.0, 0.5)}),
    policy('ReST G1 I2', GAIN),
    policy('BC', {}, split=split),
    policy('ReST G1 I1', {'judge': (9.0, 0.5)}, split=split),
    policy('ReST G1 I2', {'judge': (2.5, 0.5)}, split=split),
  )
  assert found.recommended == 'ReST G1 I2' and found.split == 'validation'
  assert found.sentence == (
    f'Greedy output on {split}: judge +2.5 ± 0.5 over BC with ReST G1 I2.'
  )


def test_without_a_judge_the_reward_chooses_what_bleu_does_not_speak_against():
  hacked = {'reward': (9.0, 0.3), 'BLEU': (-2.0, 0.5)}
  sound = {'reward': (2.0, 0.3), 'BLEU': (1.0, 0.5)}
  found = find(policy('ReST G1 I1', sound), policy('ReST G1 I2', hacked))
  assert found[1:] == ('ReST G1 I1', 'reward', 'validation')
  assert 'reward +2.0 ± 0.3 over BC with ReST G1 I1' in found.sentence
  found = find(policy('ReST G1 I1', hacked))
  assert found.recommended == 'BC'
  assert 'but BLEU -2.0 ± 0.5: the reward is exploited' in found.sentence


def test_controls_are_those_of_the_same_variant():
  found = find(
    trained_on({'judge': (9.0, 0.5)}),
    policy('BC trained on (GOLD)', {'judge': (1.0, 0.4)}, control='trained on'),
    policy('ReST G1 I1 (GOLD)', GAIN),
  )
  assert found.sentence.endswith('gains less, +1.0 ± 0.4.')


def test_online_learning_may_be_the_best():
  found = find(policy('PPO', GAIN), policy('ReST G1 I1', {'judge': (1.0, 0.5)}))
  assert found.recommended == 'PPO'


def test_nothing_is_compared():
  assert verdict.of_policies([]) is None
  assert find() is None
  assert verdict.of_policies([policy('ReST G1 I1', GAIN)]) is None
