"""Tests of comparisons: what is refused, what is shared, what is pooled."""

import dataclasses

import numpy as np
import pytest

from rest_jax.cli import compare
from rest_jax.config import comparison
from rest_jax.evaluation import results as results_lib
from rest_jax.stages import folder as folder_lib
from tests import smoke
from tests.report import page_reader


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'variants': ()}, 'variants must name at least one'),
    ({'variants': (('a',), ('a', 'SEED=1'))}, 'variants must differ'),
    ({'variants': ((),)}, 'open with its name'),
    ({'variants': (('gin_configs/losses/bc.gin',),)}, 'open with its name'),
    ({'variants': (('SEED=1',),)}, 'open with its name'),
    ({'variants': (('a', 'gold'),)}, "'gold' is neither a gin file nor"),
    ({'variants': (('a',),), 'seeds': (1, 1)}, 'seeds must differ'),
  ],
)
def test_wrong_settings(arguments, message):
  with pytest.raises(ValueError, match=message):
    comparison.Comparison(experiment=smoke.settings(), **arguments)


def test_files_and_settings_of_a_variant_are_told_apart():
  compared = comparison.Comparison(
    experiment=smoke.settings(),
    variants=(('a', 'x/y.gin', 'N=3', 'z.gin', "PATH='u.gin'"),),
  )
  assert compared.specs() == [
    ('a', ('x/y.gin', 'z.gin'), ('N=3', "PATH='u.gin'"))
  ]


@pytest.mark.parametrize(
  ('change', 'field'),
  [
    ('BC_STEPS=3', 'bc'),
    ('gin_configs/rewards/flawed.gin', 'reward'),
    ('gin_configs/rewards/refreshed.gin', 'refresh'),
  ],
)
def test_a_variant_that_changes_what_is_shared_is_refused(
  tmp_path, change, field
):
  compared = comparison.Comparison(
    experiment=smoke.settings(), variants=(('other', change),)
  )
  with pytest.raises(ValueError, match=f'variant other changes {field},'):
    compare.plan(
      compared,
      build=lambda spec: smoke.settings(
        *spec.overrides, gin_files=spec.gin_files
      ),
      model_dir=tmp_path,
    )


@pytest.fixture
def _no_pictures():
  with smoke.without_pictures():
    yield


@pytest.mark.usefixtures('_no_pictures')
def test_variants_share_what_is_before_them(tmp_path):
  # A given reward: what is shared before a variant is BC, data and D_1.
  overrides = (
    'NUM_GROW_STEPS=1',
    'NUM_IMPROVE_STEPS=1',
    'Task.ratings=None',
    'ImproveConfig.include_references=False',
    'NUM_TRAIN_PAIRS=120',
    "EvaluateConfig.splits=('validation',)",
    # One loop to compile in place of a dozen.
    'DecodeConfig.row_shares=()',
    'DecodeConfig.cache_stages=(64,)',
    'DecodeConfig.queue_sources=None',
  )
  chrf = 'gin_configs/rewards/chrf.gin'
  base = smoke.settings(*overrides, gin_files=(chrf,))
  compared = comparison.Comparison(
    experiment=base,
    variants=(
      ('plain',),
      ('weighted', 'gin_configs/losses/reward_weighted_bc.gin'),
    ),
    seeds=(0, 5),
  )

  def build(spec):
    return smoke.settings(*overrides, gin_files=(chrf, *spec.gin_files))

  results = compare.run(compared, build=build, model_dir=tmp_path)
  page = page_reader.read(tmp_path / 'report' / 'index.html')
  header, *rows = page.tables[f'{results.task}, validation: levels']
  pooled = results.of_split('validation')
  rows = rows[len(pooled) + 2 :]  # Of samples.
  assert [row[0].strip() for row in rows] == [v.name for v in pooled]
  column = header.index('reward')
  assert [row[column].split(' ')[0] for row in rows] == [
    f'{variant.reward.mean:.2f}' for variant in pooled
  ]
  validation = results.of_split('validation')
  assert [variant.name for variant in validation] == [
    'BC',
    'ReST G1 I1 (plain)',
    'ReST G1 I1 (weighted)',
  ]
  assert all(variant.seeds == (0, 5) for variant in validation)
  # One BC and Grow a seed; other seeds, other policies; one data set.
  digests = [
    folder_lib.read_manifest(tmp_path / f'seed_{seed}' / 'bc')['training'][
      'params_digest'
    ]
    for seed in (0, 5)
  ]
  assert digests[0] != digests[1]
  assert (tmp_path / 'data').is_dir()
  for seed in (0, 5):
    folder = tmp_path / f'seed_{seed}'
    assert not (folder / 'data').exists()
    assert (folder / 'grow_1').is_dir()
    assert sorted(path.name for path in (folder / 'variants').iterdir()) == [
      'plain',
      'weighted',
    ]
  # The pooled mean is that of the seeds' own results.
  own = [
    results_lib.read(tmp_path / f'seed_{seed}' / 'results.json')
    for seed in (0, 5)
  ]
  for number, variant in enumerate(validation):
    found = [one.of_split('validation')[number].reward.mean for one in own]
    assert variant.reward.mean == pytest.approx(np.mean(found), rel=1e-5)
  again = compare.run(compared, build=build, model_dir=tmp_path)
  assert dataclasses.asdict(again) == dataclasses.asdict(results)
