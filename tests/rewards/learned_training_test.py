"""Tests of fitting a reward model, and of its uncertainty under dropout."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from rest_jax.losses import regression, within_source
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import (
  corruptions,
  learned_rows,
  learned_training,
  scoring_plan,
)
from rest_jax.training import loader, optimizers, trainer
from tests.models import tiny
from tests.rewards import fakes

_RATE = 0.2
_SCALE = learned_rows.Scale(0.0, 1.0)
_LOSS = regression.Regression()


@pytest.fixture(scope='module')
def fitter():
  model = scalar.ScalarModel(
    tiny.config(vocab_size=32, num_encoder_layers=1, num_decoder_layers=1)
  )
  scoring = scoring_plan.ScoringConfig(
    max_source_length=16, max_target_length=16
  )
  return learned_training.Fitter(
    model, fakes.Characters(), scoring, mesh_lib.MeshConfig()
  )


@pytest.fixture(scope='module')
def params(fitter):
  return tiny.init(fitter.model)


def _texts(count):
  draw = np.random.default_rng(0)
  texts = [
    [''.join(draw.choice(list('abcdefg'), draw.integers(1, 9))) for _ in 'xy']
    for _ in range(count)
  ]
  sources, hypotheses = map(list, zip(*texts, strict=True))
  return corruptions.ScoredTexts(sources, hypotheses, np.zeros(count))


def _uncertainty(fitter, params, texts, rate=_RATE, draws=5, seed=1):
  return fitter.uncertainty(
    params, texts, dropout_rate=rate, num_draws=draws, seed=seed
  )


def _fit(
  fitter, params, texts, folder, *, scale=_SCALE, loss=_LOSS, **chosen_by
):
  """Fits texts for four steps; they also choose the checkpoint."""
  return fitter.fit(
    trainer.TrainerConfig(
      optimizer=optimizers.OptimizerConfig(learning_rate=3e-2, warmup_steps=1),
      max_steps=4,
      evaluate_every=1,
      tokens_per_batch=256,
      buckets=(16,),
    ),
    params=jax.tree.map(np.array, params),
    fitted=learned_training.FitTexts(texts, scale),
    chosen_by=learned_training.HeldOutTexts(texts, **chosen_by),
    loss=loss,
    directory=folder,
    description='toy',
  )


def test_uncertainty_is_the_deviation_of_passes_with_dropout(fitter, params):
  texts = _texts(10)
  found = _uncertainty(fitter, params, texts)
  rows = [
    [np.append(row, 1) for row in fakes.Characters().encode_batch(side)]
    for side in (texts.sources, texts.hypotheses)
  ]
  length = max(len(row) for side in rows for row in side)

  def padded(side):
    table = np.zeros((64, length), np.int32)
    for place in range(64):  # As the last rows of a call are filled up.
      row = side[place % len(side)]
      table[place, : len(row)] = row
    return table

  batch = loader.decoder_batch(padded(rows[0]), padded(rows[1]))
  model = scalar.ScalarModel(
    dataclasses.replace(fitter.model.config, dropout_rate=_RATE)
  )
  keys = jax.random.split(jax.random.fold_in(jax.random.key(1), 0), 5)
  rewards = np.stack(
    [model.rewards(params, batch, dropout_key=key)[:10] for key in keys]
  )
  assert rewards.std() > 0.01
  np.testing.assert_allclose(found, rewards.std(axis=0, ddof=1), rtol=1e-4)


def test_uncertainty_grows_with_dropout_and_vanishes_without(fitter, params):
  texts = _texts(70)  # More than one call.
  much, little, none = (
    _uncertainty(fitter, params, texts, rate=rate).mean()
    for rate in (0.3, 0.03, 1e-7)
  )
  assert much > 2 * little > 0
  assert none < 1e-6


def test_the_same_seed_gives_the_same_numbers(fitter, params):
  texts = _texts(5)
  first = _uncertainty(fitter, params, texts)
  np.testing.assert_array_equal(first, _uncertainty(fitter, params, texts))
  assert (first != _uncertainty(fitter, params, texts, seed=2)).any()


def test_the_checkpoint_is_chosen_by_the_sum_with_other_rewards(
  fitter, params, tmp_path
):
  draw = np.random.default_rng(1)
  texts = _texts(40)._replace(scores=draw.normal(2.0, 3.0, 40))
  scale = learned_rows.Scale.of('texts', texts.scores)
  added = draw.normal(size=40)
  kept, summary = _fit(
    fitter, params, texts, tmp_path, scale=scale, within_source=True,
    beside=added,
  )  # fmt: skip
  rewards = fitter.score(kept, texts)
  found = np.corrcoef(rewards + added, scale(texts.scores) + added)[0, 1]
  alone = np.corrcoef(rewards, scale(texts.scores))[0, 1]
  assert summary['best_objective'] == pytest.approx(found, abs=1e-5)
  assert abs(found - alone) > 0.01


@pytest.mark.parametrize('is_within', [True, False])
def test_the_checkpoint_is_chosen_by_order_within_a_source(
  fitter, params, tmp_path, is_within
):
  draw = np.random.default_rng(2)
  texts = _texts(60)
  texts = texts._replace(
    sources=[texts.sources[row // 5] for row in range(60)],
    scores=draw.normal(size=60),
  )
  groups = np.arange(60) // 5
  kept, summary = _fit(
    fitter, params, texts, tmp_path,
    loss=within_source.WithinSource(hypotheses=3), within_source=is_within,
  )  # fmt: skip
  assert summary['rows'] == 12 * 2  # Five hypotheses are three and two.
  rewards = fitter.score(kept, texts)
  found = summary['evaluation']
  signs = [
    np.sign((rewards[i] - rewards[j]) * (texts.scores[i] - texts.scores[j]))
    for i, j in itertools.combinations(range(60), 2)
    if groups[i] == groups[j] and texts.scores[i] != texts.scores[j]
  ]
  accuracy = 0.5 + 0.5 * np.mean(signs)
  assert found['pairwise_accuracy'] == pytest.approx(accuracy)
  pearson = np.corrcoef(rewards, texts.scores)[0, 1]
  assert found['pearson'] == pytest.approx(pearson, abs=1e-5)
  chosen = 'pairwise_accuracy' if is_within else 'pearson'
  assert summary['best_objective'] == found[chosen]
