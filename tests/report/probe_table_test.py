"""The table of probes: every number, and a verdict that names what failed."""

from rest_jax.evaluation import probed, shares
from rest_jax.report import probe_table


def make_report():
  answer = probed.Probed
  return probed.Report(
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
