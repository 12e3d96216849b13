"""Tests of comparisons: what is refused, what is shared, what is pooled."""

import dataclasses

import numpy as np
import pytest

from rest_jax import comparison
from rest_jax.evaluation import metrics
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
    comparison.plan(
      compared,
      build=lambda spec: smoke.settings(
        *spec.overrides, gin_files=spec.gin_files
      ),
      model_dir=tmp_path,
    )


def _variant(reward, **changes):
  return results_lib.Variant(
    **{
      'name': 'BC (G=1, I=1)',
      'loss': 'bc',
      'grow': 1,
      'improve': 1,
      'seed': 0,
      'split': 'test',
      'decode': results_lib.Decode(temperature=1.0, samples_per_source=2),
      'reward': metrics.Estimate(reward, 1.0),
      'best_of_n': {1: reward, 2: reward + 2},
      'best_of_n_stderr': {1: 1.0, 2: 1.0},
      'kept': results_lib.Kept(
        samples=10, fraction=0.1, sources_without_samples=2
      ),
      'distinct_samples': 4,
      **changes,
    }
  )


def _scores(*of_seeds):
  ids = np.array([0, 0, 1, 1])
  return comparison._Scores(
    [np.asarray(values, np.float64) for values in of_seeds],
    [ids for _ in of_seeds],
  )


def test_pooling_by_hand():
  bc = _scores([0.1, 0.1, 0.2, 0.2], [0.2, 0.2, 0.3, 0.3])
  before = _scores([0.2, 0.2, 0.3, 0.3], [0.3, 0.3, 0.4, 0.4])
  own = _scores([0.3, 0.5, 0.5, 0.5], [0.7, 0.7, 0.7, 0.7])
  kept = results_lib.Kept(samples=20, fraction=0.3, sources_without_samples=0)
  pooled = comparison.pool(
    [_variant(45.0, bleu=20.0), _variant(70.0, bleu=30.0, kept=kept, seed=1)],
    seeds=(0, 1),
    own={'reward': own, 'human': before},
    bc={'reward': bc, 'human': bc},
    previous={'reward': before},
  )
  assert pooled.seeds == (0, 1)
  assert pooled.reward.mean == pytest.approx(100 * (0.45 + 0.7) / 2)
  # Means of the seeds are 45 and 70: standard deviation 12.5 sqrt(2) of two.
  assert pooled.stderr_across_seeds == pytest.approx(12.5)
  assert pooled.difference_to_bc.mean == pytest.approx(57.5 - 20)
  assert pooled.difference_to_previous.mean == pytest.approx(57.5 - 30)
  # 45 - 15 and 70 - 25.
  assert pooled.difference_stderr_across_seeds == pytest.approx(7.5)
  # By source, differences to BC are 40 and 35 in the mean of both seeds.
  by_source = np.array([40.0, 35.0])
  assert pooled.difference_to_bc.stderr == pytest.approx(
    by_source.std(ddof=1) / np.sqrt(2)
  )
  assert pooled.human_difference_to_bc.mean == pytest.approx(10)
  assert pooled.bleu == 25.0
  assert pooled.best_of_n == {1: 57.5, 2: 59.5}
  assert pooled.kept == results_lib.Kept(
    samples=15, fraction=0.2, sources_without_samples=1
  )
  assert pooled.distinct_samples == 4


def test_one_seed_has_no_spread():
  own = _scores([0.3, 0.5, 0.5, 0.5])
  pooled = comparison.pool(
    [_variant(45.0)], seeds=(3,), own={'reward': own}, bc=None, previous=None
  )
  assert pooled.stderr_across_seeds is None
  assert pooled.difference_to_bc is None
  assert pooled.difference_to_previous is None
  assert pooled.human is None


def test_variants_share_what_is_before_them(tmp_path):
  base = smoke.settings('NUM_GROW_STEPS=1', 'NUM_IMPROVE_STEPS=1')
  compared = comparison.Comparison(
    experiment=base,
    variants=(
      ('plain',),
      ('weighted', 'gin_configs/losses/reward_weighted_bc.gin'),
    ),
    seeds=(0, 5),
  )

  def build(spec):
    return smoke.settings(
      'NUM_GROW_STEPS=1', 'NUM_IMPROVE_STEPS=1', gin_files=spec.gin_files
    )

  results = comparison.run(compared, build=build, model_dir=tmp_path)
  page = page_reader.read(tmp_path / 'report' / 'index.html')
  header, *rows = page.tables[f'{results.task}, validation']
  pooled = results.of_split('validation')
  assert [row[0] for row in rows] == [variant.name for variant in pooled]
  column = header.index('reward')
  assert [row[column].split(' ')[0] for row in rows] == [
    f'{variant.reward.mean:.2f}' for variant in pooled
  ]
  validation = results.of_split('validation')
  assert [variant.name for variant in validation] == [
    'BC (G=0, I=0)',
    'BC (G=1, I=1) plain',
    'REWARD_WEIGHTED_BC (G=1, I=1) weighted',
  ]
  assert all(variant.seeds == (0, 5) for variant in validation)
  # One BC, reward and Grow a seed; other seeds, other policies; one data set.
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
  again = comparison.run(compared, build=build, model_dir=tmp_path)
  assert dataclasses.asdict(again) == dataclasses.asdict(results)
