"""Tables of results on the terminal: every number, aligned, in 80 columns."""

import dataclasses

import pytest

from rest_jax.evaluation import metrics, outputs
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report import table
from rest_jax.report.render import result_tables
from tests.evaluation import made
from tests.report import pages


def make_variant(grow, improve, **fields):
  reward = metrics.Estimate(70.0 + improve, 0.125)
  return made.variant(grow, improve, **{'reward': reward, **fields})


def blocks(results, **fields):
  """The blocks of the text by their first line."""
  text = result_tables.render(results, **fields)
  return {b.split('\n')[0]: b.split('\n') for b in text.split('\n\n')}


def test_by_hand():
  results = results_lib.Results(
    task='demo',
    variants=(
      make_variant(0, 0, bleu=30.0, seconds=variant_lib.Seconds(improve=99.6)),
      make_variant(
        1,
        1,
        difference_to_bc=metrics.Difference(1.0, 0.1),
        bleu=31.234,
        kept=variant_lib.Kept(
          samples=5, fraction=0.1234, sources_without_samples=0
        ),
      ),
    ),
  )
  gain, level, *_ = blocks(results).values()
  assert gain == [
    'demo, validation: gain over BC',
    'policy            reward',
    '------------------------',
    'ReST G1 I1  +1.00 ± 0.10',
  ]
  assert level == [
    'demo, validation: levels',
    'policy            reward   BLEU    kept  seconds',
    '------------------------------------------------',
    'BC          70.00 ± 0.12  30.00       -      100',
    'ReST G1 I1  71.00 ± 0.12  31.23  12.3 %        0',
  ]


def test_every_split_has_a_block_with_its_own_columns():
  results = results_lib.Results(
    task='demo',
    variants=(
      make_variant(0, 0, human=metrics.Estimate(60.0, 0.2)),
      make_variant(0, 0, split='test'),
    ),
  )
  found = blocks(results)
  validation = '\n'.join(found['demo, validation: levels'])
  assert 'judge' in validation and '60.00 ± 0.20' in validation
  assert 'judge' not in '\n'.join(found['demo, test: levels'])


def test_diagnostics_have_a_block():
  results = results_lib.Results(
    task='demo',
    variants=(
      make_variant(0, 0),
      make_variant(1, 1, length_ratio=0.9, diagnostics=pages.diagnostics()),
    ),
  )
  assert blocks(results)['demo, validation: diagnostics'] == [
    'demo, validation: diagnostics',
    'policy      length  repeated  self-BLEU  wrong language     KL to BC',
    '-' * 68,
    'ReST G1 I1    0.90     1.2 %      61.25           2.0 %  1.50 ± 0.12',
  ]
  # A page has room for all of them.
  cells = result_tables.diagnostics(results, 'validation')
  assert cells.header == (
    'policy', 'length', 'repeated', 'distinct-1', 'distinct-2', 'self-BLEU',
    'wrong language', 'copied', 'KL to BC', 'a token',
  )  # fmt: skip
  assert cells.rows[0][3:5] == ('10.1 %', '30.0 %')


def _output(reward, difference=None, **fields):
  return outputs.Output(
    reward=metrics.Estimate(reward, 0.5),
    bleu=40.0,
    chrf=60.0,
    difference_to_bc=difference,
    **fields,
  )


def _decoded():
  """BC, a policy and a control, by greedy search and in samples."""
  rise = metrics.Difference(2.5, 0.25)
  variants = []
  for variant, temperature in (
    (make_variant(0, 0), 0.8),
    (
      make_variant(0, 0, name='BC at equal entropy', control='equal entropy'),
      0.52,
    ),
    (make_variant(1, 1), 0.8),
  ):
    difference = None if variant.is_bc else rise
    variants.append(
      dataclasses.replace(
        variant,
        decode=variant_lib.Decode(
          temperature=temperature, samples_per_source=4
        ),
        outputs={
          'greedy': _output(71.0, difference, seconds=2.0),
          'samples': _output(
            62.0,
            difference,
            distinct=3.5,
            human=metrics.Estimate(40.0, 1.0),
            difference_stderr_across_seeds=1.5,
          ),
        },
      )
    )
  return results_lib.Results(task='demo', variants=tuple(variants))


def test_gains_and_levels_of_greedy_outputs_stand_above_those_of_samples():
  found = blocks(_decoded())
  assert found['demo, validation: gain over BC'] == [
    'demo, validation: gain over BC',
    'policy                      reward',
    '-' * 34,
    'greedy output',
    ' ReST G1 I1           +2.50 ± 0.25',
    'samples',
    # Its greedy outputs are those of BC.
    ' BC at equal entropy  +2.50 ± 0.25',
    ' ReST G1 I1           +2.50 ± 0.25',
  ]
  assert found['demo, validation: levels'] == [
    'demo, validation: levels',
    'policy                      reward         judge   BLEU   chrF  seconds',
    '-' * 71,
    'greedy output',
    ' BC                   71.00 ± 0.50             -  40.00  60.00        0',
    ' ReST G1 I1           71.00 ± 0.50             -  40.00  60.00        0',
    'samples',
    ' BC                   62.00 ± 0.50  40.00 ± 1.00  40.00  60.00        -',
    ' BC at equal entropy  62.00 ± 0.50  40.00 ± 1.00  40.00  60.00        -',
    ' ReST G1 I1           62.00 ± 0.50  40.00 ± 1.00  40.00  60.00        -',
  ]
  (note,) = (
    b for b in found.values() if 'BC at equal entropy" is' in ' '.join(b)
  )
  assert 'sampled at T=0.52' in ' '.join(note)


def test_variants_have_temperatures_of_equal_entropy_of_their_own():
  results = _decoded()
  control = next(v for v in results.variants if v.control)
  other = dataclasses.replace(
    control,
    name='BC at equal entropy (GOLD)',
    decode=dataclasses.replace(control.decode, temperature=0.4),
  )
  note = ' '.join(result_tables.notes(results.updated([other])))
  assert 'sampled at T=0.40 or 0.52, where' in note


def test_the_verdict_comes_first():
  text = result_tables.render(_decoded())
  assert ' '.join(text.split('\n\n')[0].split()) == (
    'Greedy output on validation: reward +2.5 ± 0.2 over BC with ReST G1 I1. '
    'Recommended by the reward on validation: ReST G1 I1.'
  )


def test_the_score_of_people_is_called_human():
  rated = results_lib.Results(
    task='demo',
    variants=(
      dataclasses.replace(
        _decoded().variants[-1], human=metrics.Estimate(40.0, 1.0)
      ),
    ),
  )
  # In `_decoded` nothing but samples has a score.
  cells = result_tables.levels(rated, 'validation')
  assert 'human' in cells.header and 'judge' not in cells.header
  assert 'Reward and human x100' in result_tables.notes(rated)[0]


def test_the_wide_table_has_errors_and_distinct_outputs():
  cells = result_tables.by_decode(_decoded(), 'validation')
  assert cells.header == (
    'policy', 'decode', 'reward', 'reward to BC', 'judge', 'BLEU', 'chrF',
    'distinct', 'seconds',
  )  # fmt: skip
  assert cells.rows[-1] == (
    'ReST G1 I1', 'samples, T=0.8', '62.00 ± 0.50', '+2.50 ± 0.25',
    '40.00 ± 1.00', '40.00', '60.00', '3.50', '-',
  )  # fmt: skip
  plain = results_lib.Results(task='demo', variants=(make_variant(0, 0),))
  assert result_tables.by_decode(plain, 'validation') is None


def test_errors_across_seeds_are_of_each_decode():
  pooled = [
    dataclasses.replace(v, seeds=(0, 1), difference_stderr_across_seeds=1.0)
    for v in _decoded().variants
    if v.grow
  ]
  results = results_lib.Results(task='demo', variants=tuple(pooled))
  cells = result_tables.across_seeds(results, 'validation')
  assert cells.title == 'demo, validation: gain over BC, across 2 seeds'
  assert cells.header == ('policy', 'reward')
  assert cells.rows == (
    ('greedy output', ''),
    (' ReST G1 I1', '-'),
    ('samples', ''),
    (' ReST G1 I1', '+2.50 ± 1.50'),
  )


def test_errors_across_seeds_have_a_table_of_their_own():
  pooled = make_variant(
    1,
    1,
    seeds=(0, 1, 2),
    difference_to_bc=metrics.Difference(2.5, 0.125),
    difference_stderr_across_seeds=0.75,
    bleu_difference_to_bc=metrics.Difference(-1.5, 0.25),
    bleu_difference_stderr_across_seeds=1.25,
  )
  results = results_lib.Results(task='demo', variants=(pooled,))
  found = blocks(results)
  assert found['demo, validation: gain over BC, across 3 seeds'] == [
    'demo, validation: gain over BC, across 3 seeds',
    'policy            reward          BLEU',
    '-' * 38,
    'ReST G1 I1  +2.50 ± 0.75  -1.50 ± 1.25',
  ]
  assert 'Of several seeds' in ' '.join(result_tables.notes(results))


def test_warnings_come_last():
  variant = make_variant(
    1,
    1,
    difference_to_bc=metrics.Difference(1.0, 0.1),
    bleu_difference_to_bc=metrics.Difference(-1.0, 0.1),
  )
  second = dataclasses.replace(variant, name='PPO', loss='ppo')
  results = results_lib.Results(task='demo', variants=(variant, second))
  text = result_tables.render(results, ['bc: too short'], ['more'])
  assert text.split('\n\n')[-2:] == [
    'more',
    '\n'.join(
      [
        'WARNING bc: too short',
        f'WARNING {variant.warning}',
        f'WARNING {second.warning}',
      ]
    ),
  ]


@pytest.mark.parametrize('name', ['ReST G1 I1', 'x' * 300])
def test_fits_the_width_and_cuts_only_names(name):
  big = metrics.Difference(-123.456, 12.344)
  large = metrics.Difference(-23.456, 12.344)
  variant = make_variant(
    1,
    1,
    name=name,
    reward=big,
    human=big,
    difference_to_bc=big,
    human_difference_to_bc=big,
    kept=variant_lib.Kept(samples=1, fraction=1.0, sources_without_samples=0),
    length_ratio=1000.0,
    diagnostics=pages.diagnostics(
      distinct_1=1.0, distinct_2=1.0, repetition=1.0, kl_to_bc=big
    ),
    seconds=variant_lib.Seconds(grow=1e6),
    outputs={
      'greedy': outputs.Output(
        reward=large,
        human=large,
        bleu=100.0,
        chrf=100.0,
        seconds=1e5,
        difference_to_bc=large,
        human_difference_to_bc=large,
        bleu_difference_to_bc=large,
        chrf_difference_to_bc=large,
      )
    },
  )
  results = results_lib.Results(task='demo', variants=(variant,))
  text = result_tables.render(results)
  assert max(map(len, text.split('\n'))) <= 80 == table.MAX_WIDTH
  # Two levels and four gains; the entry's own numbers are of no decode here.
  assert text.count('-23.46 ± 12.34') == 6
  assert text.count('-123.46 ± 12.34') == 1  # KL to BC.
  assert '100.0 %' in text and '1000000' in text
  assert ('…' in text) == (len(name) == 300)


def test_columns_that_do_not_fit_stand_below_with_the_names_again():
  rows = [
    ['name', *(f'{letter * 20}' for letter in 'abcd')],
    ['first', '1', '2', '3', '4'],
  ]
  upper, lower = table.columns(rows).split('\n\n')
  assert upper.split('\n')[0].split() == ['name', 'a' * 20, 'b' * 20, 'c' * 20]
  assert upper.split('\n')[2].split() == ['first', '1', '2', '3']
  assert lower.split('\n')[0].split() == ['name', 'd' * 20]
  assert lower.split('\n')[2].split() == ['first', '4']


def test_nothing_yet():
  assert result_tables.render(results_lib.Results(task='demo')) == (
    'demo: nothing evaluated yet.'
  )
