"""Tests of what several seeds say together, by hand."""

import numpy as np
import pytest

from rest_jax.evaluation import metrics, outputs
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report.gather import pool
from tests.evaluation import made


def _variant(reward, **changes):
  return made.variant(
    1,
    1,
    **{
      'split': 'test',
      'reward': metrics.Estimate(reward, 1.0),
      'best_of_n': {1: reward, 2: reward + 2},
      'best_of_n_stderr': {1: 1.0, 2: 1.0},
      'kept': variant_lib.Kept(
        samples=10, fraction=0.1, sources_without_samples=2
      ),
      'distinct_samples': 4,
      **changes,
    },
  )


def _scores(*of_seeds):
  ids = np.array([0, 0, 1, 1])
  return pool.Scores(
    [np.asarray(values, np.float64) for values in of_seeds],
    [ids for _ in of_seeds],
  )


def _output(reward, difference, **fields):
  return outputs.Output(
    reward=metrics.Estimate(reward, 1.0),
    bleu=20.0,
    chrf=50.0,
    difference_to_bc=metrics.Difference(difference, 1.0),
    **fields,
  )


def _column(values):
  zeros = np.zeros((2, 10), np.int64)
  return outputs.Scores(
    sources=np.array([0, 1]),
    reward=np.array(values),
    human=None,
    bleu=zeros,
    chrf=zeros,
  )


def test_outputs_are_pooled_decode_by_decode():
  bc = [{'greedy': _column([0.1, 0.2])}, {'greedy': _column([0.2, 0.3])}]
  own = [{'greedy': _column([0.4, 0.5])}, {'greedy': _column([0.7, 0.7])}]
  measured = [
    {'greedy': _output(45.0, 30.0, seconds=1.0)},
    {'greedy': _output(70.0, 45.0, seconds=3.0)},
  ]
  pooled = pool.pool_outputs(measured, own, bc)['greedy']
  assert pooled.reward.mean == pytest.approx(57.5)
  assert pooled.seconds == pytest.approx(2.0)
  # By source 40 and 35 in the mean of both seeds.
  assert pooled.difference_to_bc.mean == pytest.approx(37.5)
  assert pooled.difference_to_bc.stderr == pytest.approx(2.5)
  assert pooled.difference_stderr_across_seeds == pytest.approx(7.5)
  assert pooled.human is None and pooled.human_difference_to_bc is None
  of_bc = pool.pool_outputs(measured, bc, None)['greedy']
  assert of_bc.reward.mean == pytest.approx(20.0)


def test_pooling_by_hand():
  bc = _scores([0.1, 0.1, 0.2, 0.2], [0.2, 0.2, 0.3, 0.3])
  before = _scores([0.2, 0.2, 0.3, 0.3], [0.3, 0.3, 0.4, 0.4])
  own = _scores([0.3, 0.5, 0.5, 0.5], [0.7, 0.7, 0.7, 0.7])
  kept = variant_lib.Kept(samples=20, fraction=0.3, sources_without_samples=0)
  pooled = pool.pool(
    [
      _variant(
        45.0, bleu=20.0, bleu_difference_to_bc=metrics.Difference(1.0, 0.5)
      ),
      _variant(
        70.0,
        bleu=30.0,
        bleu_difference_to_bc=metrics.Difference(4.0, 0.7),
        kept=kept,
        seed=1,
      ),
    ],
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
  assert pooled.bleu_difference_stderr_across_seeds == pytest.approx(1.5)
  assert pooled.chrf_difference_stderr_across_seeds is None
  # 25 - 15 and 35 - 25.
  assert pooled.human_difference_stderr_across_seeds == pytest.approx(0.0)
  # By source, differences to BC are 40 and 35 in the mean of both seeds.
  by_source = np.array([40.0, 35.0])
  assert pooled.difference_to_bc.stderr == pytest.approx(
    by_source.std(ddof=1) / np.sqrt(2)
  )
  assert pooled.human_difference_to_bc.mean == pytest.approx(10)
  assert pooled.bleu == 25.0
  assert pooled.best_of_n == {1: 57.5, 2: 59.5}
  assert pooled.kept == variant_lib.Kept(
    samples=15, fraction=0.2, sources_without_samples=1
  )
  assert pooled.distinct_samples == 4


def test_what_is_equal_stays_as_it_is():
  row_filter = variant_lib.Filter(kind='fixed', value=0.7)
  pooled = pool.pool(
    [_variant(45.0, filter=row_filter, seed=seed) for seed in range(3)],
    seeds=(0, 1, 2),
    own={'reward': _scores(*[[0.1, 0.2, 0.3, 0.4]] * 3)},
    bc=None,
    previous=None,
  )
  assert pooled.filter.value == 0.7


def test_one_seed_has_no_spread():
  own = _scores([0.3, 0.5, 0.5, 0.5])
  pooled = pool.pool(
    [_variant(45.0)], seeds=(3,), own={'reward': own}, bc=None, previous=None
  )
  assert pooled.stderr_across_seeds is None
  assert pooled.difference_to_bc is None
  assert pooled.difference_to_previous is None
  assert pooled.human is None
