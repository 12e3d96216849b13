"""Warnings of a policy from differences that are made up, decode by decode."""

import pytest

from rest_jax.evaluation import policy_warnings
from tests.evaluation import made

NAME = 'ReST G1 I3, validation'


def warning(greedy, samples, self_bleu=60.0, **fields):
  return policy_warnings.warning(
    NAME,
    {'greedy': greedy, 'samples': samples},
    text='greedy',
    num_samples=8,
    self_bleu=self_bleu,
    **fields,
  )


output = made.output


def samples(distinct=6.0, **differences):
  return output(distinct, **differences)


def test_samples_up_and_greedy_down_is_sharper_and_not_better():
  assert warning(
    output(reward=(0.5, 0.4), judge=(-1.90, 0.52), BLEU=(-0.4, 0.3)),
    samples(reward=(4.0, 0.3), judge=(1.95, 0.32), BLEU=(0.9, 0.3)),
  ) == (
    f'{NAME}: sharper, not better: judge of samples +1.95 ± 0.32, greedy -1.90 '
    '± 0.52 over BC'
  )


def test_every_measure_that_says_so_is_named():
  line = warning(
    output(judge=(-1.90, 0.52), BLEU=(-1.3, 0.3)),
    samples(judge=(1.95, 0.32), BLEU=(2.0, 0.3)),
  )
  assert 'judge of samples' in line and '; BLEU of samples +2.00' in line


@pytest.mark.parametrize('measure', ['judge', 'BLEU', 'chrF'])
@pytest.mark.parametrize('decode', ['greedy', 'samples'])
def test_reward_up_and_another_down_by_one_decode_exploits(measure, decode):
  """As the planted flaw does."""
  bad = {'reward': (16.9, 0.4), measure: (-8.9, 0.5)}
  calm = {'reward': (0.1, 0.4), measure: (-0.5, 0.5)}
  line = warning(
    output(**(bad if decode == 'greedy' else calm)),
    samples(**(bad if decode == 'samples' else calm)),
  )
  assert line == (
    f'{NAME}, {decode}: reward +16.90 ± 0.40 over BC, but {measure} -8.90 ± 0.50'
    ': it may exploit the reward'
  )


def test_reward_of_samples_is_not_compared_with_bleu_of_greedy_output():
  assert not warning(
    output(reward=(-0.5, 0.4), BLEU=(-1.3, 0.3)),
    samples(reward=(4.0, 0.3), BLEU=(0.1, 0.3)),
  )


def test_a_judge_that_rises_in_greedy_output_and_samples_is_no_warning():
  assert not warning(
    output(reward=(3.0, 0.4), judge=(1.96, 0.48), chrF=(-1.0, 0.2)),
    samples(reward=(6.0, 0.3), judge=(4.8, 0.3), BLEU=(-1.0, 0.2)),
  )


def test_small_changes_are_no_warning():
  assert not warning(
    output(reward=(3.0, 0.4), judge=(-0.9, 0.5)),
    samples(reward=(6.0, 0.3), judge=(0.5, 0.3)),
  )


@pytest.mark.parametrize(
  ('distinct', 'self_bleu', 'is_collapsed'),
  [
    (1.2, 97.25, True),
    (1.2, None, True),
    (3.0, 92.0, True),
    (3.0, 85.0, False),
  ],
)
def test_samples_nearly_all_alike_with_greedy_output_no_better(
  distinct, self_bleu, is_collapsed
):
  line = warning(
    output(reward=(0.1, 0.3), judge=(0.4, 0.4)),
    samples(distinct, reward=(5.0, 0.3), judge=(5.0, 0.3)),
    self_bleu,
  )
  assert bool(line) == is_collapsed
  if is_collapsed:
    assert 'collapsed onto one output' in line
    assert f'{distinct:.1f} of 8 samples per source differ' in line
    assert line.endswith('no better than that of BC: judge +0.40 ± 0.40')
    assert (self_bleu is not None) == ('self-BLEU' in line)


def test_samples_alike_of_a_better_policy_are_no_collapse():
  better = output(judge=(2.0, 0.4))
  assert not warning(better, samples(1.1, judge=(5.0, 0.3)))
  # Without a judge, by BLEU or chrF.
  assert not warning(
    output(BLEU=(2.0, 0.4), chrF=(0.1, 0.4)), samples(1.1, BLEU=(5.0, 0.3))
  )


def test_bc_itself_has_no_warning():
  assert not warning(output(), samples(1.0), self_bleu=100.0)


def test_an_entry_without_both_decodes_has_no_warning():
  bad = output(reward=(3.0, 0.4), judge=(-3.0, 0.4))
  assert not policy_warnings.warning(
    NAME, {'greedy': bad}, text='greedy', num_samples=8
  )


def test_one_warning_a_policy_and_first_that_of_greedy_output():
  bad = {'reward': (5.0, 0.4), 'judge': (-3.0, 0.5)}
  both = warning(output(**bad), samples(1.1, **bad))
  assert both == warning(output(**bad), samples(6.0))
  assert both.startswith(f'{NAME}, greedy: reward +5.00')
  of_samples = warning(output(judge=(0.1, 0.4)), samples(6.0, **bad))
  assert of_samples.startswith(f'{NAME}, samples: reward +5.00')


def test_people_who_rated_samples_are_no_judge():
  line = warning(
    output(reward=(0.1, 0.4)),
    samples(reward=(5.0, 0.4), judge=(-3.0, 0.5)),
    rater='human',
  )
  assert 'but human -3.00 ± 0.50' in line
