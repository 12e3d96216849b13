"""The table of probes: every number, and a verdict that names what failed."""

import dataclasses

from rest_jax.evaluation import shares
from rest_jax.report.render import probe_table
from rest_jax.rewards import probe_results


def make_report():
  answer = probe_results.Probed
  return probe_results.Report(
    reward='learned',
    num_pairs=1200,
    mean=0.5,
    std=0.25,
    probed=(
      answer(
        name='empty',
        is_control=False,
        count=1200,
        share=shares.Share(0.975, 0.961, 0.984),
        mean_drop=1.5,
      ),
      answer(
        name='permuted',
        is_control=False,
        count=7,
        share=shares.Share(4 / 7, 0.25, 0.84),
        mean_drop=-0.25,
      ),
      answer(name='swapped_entity', is_control=False, count=0),
      answer(name='first_case', is_control=True, count=3, mean_drop=0.125),
    ),
  )


def test_by_hand():
  text = probe_table.render(make_report(), 'demo, validation', 0.9)
  assert text.split('\n') == [
    "demo, validation: reward 'learned', 1,200 references, R(x, reference) "
    '0.500 with standard deviation 0.250',
    '',
    'probe           cases  R(reference) > R(changed), %  mean drop',
    '--------------------------------------------------------------',
    'empty           1,200             97.5 [96.1, 98.4]      1.500',
    'permuted            7             57.1 [25.0, 84.0]     -0.250',
    'swapped_entity      0                       no case          -',
    '',
    'control     cases    mean |change|',
    '----------------------------------',
    'first_case      3            0.125',
    '',
    'no case, so not tested: swapped_entity',
    'FAILED minimum 90 %: permuted 57.1 %',
  ]


def test_verdicts():
  met = probe_table.render(make_report(), 'demo', 0.5).split('\n')[-1]
  assert met == 'minimum 50 %: met by 2 probes'
  unset = probe_table.render(make_report(), 'demo', None).split('\n')[-1]
  assert unset == 'no minimum was set (ProbeConfig.minimum)'


def test_agreement_within_a_source_comes_first():
  entry = {'value': 0.75, 'low': 0.5, 'high': 0.875}
  names = ('pairwise_accuracy', 'a', 'b', 'pearson')
  found = {'rows': 1200, 'sources': 300, **dict.fromkeys(names, entry)}
  report = dataclasses.replace(
    make_report(),
    agreement={
      'dev': {'whole': found, 'part': {'rows': 1200, 'sources': 300}},
      'test': {'whole': {'rows': 3, 'sources': 2}},
    },
    weights={'learned': 1.5, 'likelihood': 0.5},
  )
  lines = probe_table.render(report, 'demo', None).split('\n')
  start = lines.index('agreement with ratings, dev: 1,200 rows of 300 sources')
  assert start == 2
  cell = '0.750 [0.500, 0.875]'
  assert lines[start + 1].split() == [
    'reward',
    'pairwise',
    'accuracy',
    'a',
    'b',
  ]
  assert lines[start + 3].split('  ')[0] == 'whole'
  assert lines[start + 3].count(cell) == 3
  assert lines[start + 4].split() == ['part', '-', '-', '-']
  assert lines[start + 6].split() == ['reward', 'pearson']
  text = '\n'.join(lines)
  assert 'test: 3 rows of 2 sources, too few to measure agreement' in text
  assert 'dev ratings best: learned 1.5, likelihood 0.5\n' in text
