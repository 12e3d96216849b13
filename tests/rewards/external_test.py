"""Rewards of a program: the protocol, and every way in which it can fail."""

import gc
import os
import sys
import time

import numpy as np
import pytest

from rest_jax.rewards import base, external

# A stand-in: the reward is the difference in length to source or reference.
PROGRAM = """
import json, sys
log = open(sys.argv[1], 'a')
for line in sys.stdin:
  batch = json.loads(line)
  print(len(batch['hypotheses']), file=log, flush=True)
  others = batch['references'] or batch['sources']
  rewards = [len(o) - len(h) for o, h in zip(others, batch['hypotheses'])]
  {tamper}
  print(json.dumps({{'batch': batch['batch'], 'rewards': rewards}}), flush=True)
"""
TEXTS = (['abc', 'äöü'] * 3, ['', 'xyzw'] * 3)


@pytest.fixture
def make(tmp_path):
  """Makes the reward of a program that is tampered with."""

  def made(tamper='pass', **settings):
    script = tmp_path / 'scorer.py'
    script.write_text(PROGRAM.format(tamper=tamper), encoding='utf-8')
    config = external.External(
      program=(sys.executable, str(script), str(tmp_path / 'log')),
      **{'timeout_s': 60.0, **settings},
    )
    return config.load(None)

  yield made
  gc.collect(1)  # The young: what the test has made.


def test_rewards_in_order_and_each_text_once(make, tmp_path):
  reward = make(batch_size=1)
  np.testing.assert_array_equal(reward.score(*TEXTS), [3, -1] * 3)
  assert (tmp_path / 'log').read_text().split() == ['1', '1']
  # The same process answers again.
  np.testing.assert_array_equal(reward.score(['a'], ['bcd']), [-2])
  assert reward.score([], []).shape == (0,)


def test_references_are_handed_over(make):
  reward = make(needs_references=True)
  assert reward.needs_references
  found = reward.score(*TEXTS, ['r' * 9] * 6)
  np.testing.assert_array_equal(found, [9, 5] * 3)
  with pytest.raises(ValueError, match="'external' compares with references"):
    reward.score(*TEXTS)


def test_large_batches_both_ways(make):
  texts = [f'{i} {"x" * 200}' for i in range(3000)]
  found = make(batch_size=3000).score(texts, ['h'] * 3000)
  np.testing.assert_array_equal(found, [len(text) - 1 for text in texts])


@pytest.mark.parametrize(
  ('tamper', 'message'),
  [
    ('sys.exit(3)', r'ended with exit status 3'),
    ('1 / 0', r'(?s)ended with exit status 1.*ZeroDivisionError'),
    ('rewards.pop()', r'a reward for each of 2 hypotheses; it gave 1'),
    ('rewards.append(1)', r'a reward for each of 2 hypotheses; it gave 3'),
    ('print("loading...")', r"must answer with one line .* 'loading\.\.\.'"),
    ('rewards[0] = None', r'must answer with one line .*null'),
    ('rewards[0] = "1"', r'must answer with one line'),
    ('rewards[0] = True', r'must answer with one line'),
    ('rewards = 1', r'must answer with one line'),
    ('batch["batch"] += 1', r'must answer with one line .*"batch": 0'),
    ('print(json.dumps({"error": "no GPU"}))', r'reports: no GPU'),
  ],
)
def test_errors_in_an_answer_are_named(make, tamper, message):
  with pytest.raises(external.ExternalRewardError, match=message) as caught:
    make(tamper, name='mine').score(*TEXTS)
  assert "'mine'" in str(caught.value) and 'scorer.py' in str(caught.value)


@pytest.mark.parametrize('value', ['float("nan")', 'float("inf")'])
def test_a_reward_that_is_not_finite_names_the_row(make, value):
  with pytest.raises(FloatingPointError, match=r"'external' .*position 1 \(3"):
    make(f'rewards[1] = {value}').score(*TEXTS)


def test_a_surplus_answer_is_not_used_for_the_next_batch(make):
  extra = 'print(json.dumps({"batch": batch["batch"], "rewards": rewards}))'
  with pytest.raises(external.ExternalRewardError, match='"batch": 1'):
    make(extra, batch_size=1).score(*TEXTS)


def test_a_program_that_does_not_answer_ends_after_the_timeout(make):
  started = time.monotonic()
  reward = make('import time; time.sleep(100)', timeout_s=1.0)
  with pytest.raises(external.ExternalRewardError, match='within 1 s'):
    reward.score(*TEXTS)
  assert time.monotonic() - started < 30


def test_a_program_that_does_not_read_ends_after_the_timeout(tmp_path):
  reward = external.External(
    program=(sys.executable, '-c', 'import time; time.sleep(100)'),
    timeout_s=1.0,
  ).load(None)
  with pytest.raises(external.ExternalRewardError, match='within 1 s'):
    reward.score(['x' * 1_000_000], ['y'])


def test_the_program_ends_with_its_reward(make):
  reward = make('rewards[0] = __import__("os").getpid()')
  pid = int(reward.score(['a'], ['b'])[0])
  os.kill(pid, 0)
  del reward
  gc.collect()
  with pytest.raises(ProcessLookupError):
    os.kill(pid, 0)


@pytest.mark.parametrize(
  ('config', 'remedy'),
  [
    (external.External(program=('/no/such',)), 'Install it'),
    (external.Comet(python='/no/such', model='m'), 'pip install unbabel-comet'),
    (external.Bleurt(python='/no/such', model='m'), 'google-research/bleurt'),
  ],
)
def test_a_missing_program_says_how_to_install_it(config, remedy):
  assert isinstance(config, base.RewardConfig)
  for call in (config.check, lambda: config.load(None)):
    with pytest.raises(FileNotFoundError, match=f'(?s)no /no/such.*{remedy}'):
      call()


@pytest.mark.parametrize('kind', [external.Comet, external.Bleurt])
def test_a_missing_package_says_how_to_install_it(kind):
  config = kind(python=sys.executable, model='m')
  with pytest.raises(external.ExternalRewardError) as caught:
    config.load(None).score(['a'], ['b'], ['c'])
  assert f'cannot import {config.name}' in str(caught.value)
  assert config.install in str(caught.value)


def test_digests_tell_programs_apart():
  def digest(config):
    return external.ExternalReward(config).digest

  configs = [
    external.External(program=('a', 'b')),
    external.External(program=('a', 'c')),
    external.Comet(python='p', model='m'),
    external.Comet(python='p', model='n'),
    external.Comet(python='p', model='m', needs_references=False),
  ]
  assert len({digest(config) for config in configs}) == 5
  # The same model elsewhere is the same reward.
  assert digest(external.Comet(python='q', model='m')) == digest(configs[2])


@pytest.mark.parametrize(
  ('make_config', 'message'),
  [
    (lambda: external.External(program=()), 'program must name'),
    (lambda: external.External(program=('a',), batch_size=0), 'batch_size'),
    (lambda: external.External(program=('a',), timeout_s=0), 'timeout_s'),
    (
      lambda: external.Bleurt(python='p', model='m', needs_references=False),
      'Bleurt needs references',
    ),
  ],
)
def test_settings_are_checked(make_config, message):
  with pytest.raises(ValueError, match=message):
    make_config()
