"""The table on the terminal: every number, aligned, in 120 columns."""

import dataclasses

import pytest

from rest_jax.evaluation import metrics, outputs
from rest_jax.evaluation import results as results_lib
from rest_jax.report import table


def make_variant(grow, improve, **fields):
  full = {
    'name': results_lib.variant_name('bc', grow, improve),
    'split': 'validation',
    'reward': metrics.Estimate(70.0 + improve, 0.125),
  }
  return results_lib.Variant(
    loss='bc',
    grow=grow,
    improve=improve,
    seed=0,
    decode=results_lib.Decode(temperature=0.8, samples_per_source=4),
    **{**full, **fields},
  )


def test_by_hand():
  results = results_lib.Results(
    task='demo',
    variants=(
      make_variant(0, 0, bleu=30.0, seconds=results_lib.Seconds(improve=99.6)),
      make_variant(
        1,
        1,
        difference_to_bc=metrics.Difference(1.0, 0.1),
        bleu=31.234,
        kept=results_lib.Kept(
          samples=5, fraction=0.1234, sources_without_samples=0
        ),
      ),
    ),
  )
  lines = table.render(results).split('\n')
  assert lines[:5] == [
    'demo, validation',
    'policy               reward         to BC   BLEU    kept  seconds',
    '-----------------------------------------------------------------',
    'BC (G=0, I=0)  70.00 ± 0.12             -  30.00       -      100',
    'BC (G=1, I=1)  71.00 ± 0.12  +1.00 ± 0.10  31.23  12.3 %        0',
  ]


def test_every_split_has_a_block_with_its_own_columns():
  results = results_lib.Results(
    task='demo',
    variants=(
      make_variant(0, 0, human=metrics.Estimate(60.0, 0.2)),
      make_variant(0, 0, split='test'),
    ),
  )
  validation, test, _ = table.render(results).split('\n\n')
  assert 'human' in validation and '60.00 ± 0.20' in validation
  assert test.startswith('demo, test') and 'human' not in test


def make_diagnostics(**fields):
  full = {
    'sources': 250,
    'repetition': 0.0125,
    'distinct_1': 0.101,
    'distinct_2': 0.3,
    'self_bleu': 61.25,
    'wrong_language': 0.02,
    'wrong_language_references': 0.01,
    'copied': 0.004,
    'kl_to_bc': metrics.Estimate(1.5, 0.125),
    'kl_to_bc_per_token': 0.1254,
  }
  return results_lib.Diagnostics(**{**full, **fields})


def test_diagnostics_have_a_block():
  results = results_lib.Results(
    task='demo',
    variants=(
      make_variant(0, 0),
      make_variant(1, 1, length_ratio=0.9, diagnostics=make_diagnostics()),
    ),
  )
  assert table.render(results).split('\n\n')[1].split('\n') == [
    'demo, validation: diagnostics',
    'policy         length  repeated  distinct-1  distinct-2  self-BLEU  wrong '
    'language  copied     KL to BC  a token',
    '-' * 112,
    'BC (G=1, I=1)    0.90     1.2 %      10.1 %      30.0 %      61.25        '
    '   2.0 %   0.4 %  1.50 ± 0.12    0.125',
  ]


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
    (make_variant(0, 0, name='BC at T=0.52', control='equal entropy'), 0.52),
    (make_variant(1, 1), 0.8),
  ):
    difference = None if variant.is_bc else rise
    variants.append(
      dataclasses.replace(
        variant,
        decode=results_lib.Decode(
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


def test_decodes_stand_below_the_name_of_their_policy():
  text = table.render(_decoded())
  (block,) = [b for b in text.split('\n\n') if ': by decode' in b]
  assert block.split('\n') == [
    'demo, validation: by decode',
    'policy, decode     reward         to BC  human   BLEU   chrF  seconds',
    '-' * 69,
    'BC (G=0, I=0)',
    '  greedy            71.00             -      -  40.00  60.00      2.0',
    '  samples, T=0.8    62.00             -  40.00  40.00  60.00        -',
    'BC at T=0.52',
    '  greedy            71.00  +2.50 ± 0.25      -  40.00  60.00      2.0',
    '  samples, T=0.52   62.00  +2.50 ± 0.25  40.00  40.00  60.00        -',
    'BC (G=1, I=1)',
    '  greedy            71.00  +2.50 ± 0.25      -  40.00  60.00      2.0',
    '  samples, T=0.8    62.00  +2.50 ± 0.25  40.00  40.00  60.00        -',
  ]
  assert table.NOTE_OF_DECODES in text and table.NOTE_OF_CONTROLS in text


def test_the_wide_table_has_errors_and_distinct_outputs():
  cells = table.by_decode(_decoded(), 'validation')
  assert cells.header == (
    'policy', 'decode', 'reward', 'reward to BC', 'human', 'BLEU', 'chrF',
    'distinct', 'seconds',
  )  # fmt: skip
  assert cells.rows[-1] == (
    'BC (G=1, I=1)', 'samples, T=0.8', '62.00 ± 0.50', '+2.50 ± 0.25',
    '40.00 ± 1.00', '40.00', '60.00', '3.50', '-',
  )  # fmt: skip
  plain = results_lib.Results(task='demo', variants=(make_variant(0, 0),))
  assert table.by_decode(plain, 'validation') is None


def test_errors_across_seeds_are_of_each_decode():
  pooled = [
    dataclasses.replace(v, seeds=(0, 1), difference_stderr_across_seeds=1.0)
    for v in _decoded().variants
    if v.grow
  ]
  results = results_lib.Results(task='demo', variants=tuple(pooled))
  cells = table.across_seeds(results, 'validation')
  assert cells.header == ('policy', 'decode', 'seeds', 'reward')
  assert cells.rows == (
    ('BC (G=1, I=1)', 'greedy', '2', '-'),
    ('BC (G=1, I=1)', 'samples, T=0.8', '2', '+2.50 ± 1.50'),
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
  blocks = table.render(results).split('\n\n')
  assert blocks[1].split('\n') == [
    'demo, validation: to BC, across seeds',
    'policy         seeds        reward          BLEU',
    '-' * 48,
    'BC (G=1, I=1)      3  +2.50 ± 0.75  -1.50 ± 1.25',
  ]
  assert blocks[-2] == table.NOTE_OF_SEEDS


def test_warnings_come_last():
  variant = make_variant(
    1,
    1,
    difference_to_bc=metrics.Difference(1.0, 0.1),
    bleu_difference_to_bc=metrics.Difference(-1.0, 0.1),
  )
  second = dataclasses.replace(variant, split='test')
  results = results_lib.Results(task='demo', variants=(variant, second))
  assert table.render(results).split('\n\n')[-1].split('\n') == [
    f'WARNING {variant.warnings[0]}',
    f'WARNING {second.warnings[0]}',
  ]


@pytest.mark.parametrize('name', ['BC (G=1, I=1)', 'x' * 300])
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
    bleu=100.0,
    chrf=100.0,
    kept=results_lib.Kept(samples=1, fraction=1.0, sources_without_samples=0),
    length_ratio=1000.0,
    diagnostics=make_diagnostics(
      distinct_1=1.0, distinct_2=1.0, repetition=1.0, kl_to_bc=big
    ),
    seconds=results_lib.Seconds(grow=1e6),
    outputs={
      'best of 100': outputs.Output(
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
  text = table.render(results_lib.Results(task='demo', variants=(variant,)))
  assert max(map(len, text.split('\n'))) <= table.MAX_WIDTH
  assert text.count('-123.46 ± 12.34') == 5
  assert text.count('-23.46 ± 12.34') == 4
  assert '100.0 %' in text and '1000000' in text
  assert ('…' in text) == (len(name) == 300)


def test_nothing_yet():
  assert table.render(results_lib.Results(task='demo')) == (
    'demo: nothing evaluated yet.'
  )
