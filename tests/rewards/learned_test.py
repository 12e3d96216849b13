"""Tests of the learned reward on a tiny network."""

import functools

import jax
import numpy as np
import pytest

from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import learned, scoring_plan
from tests.models import tiny
from tests.rewards import fakes

_SOURCES = ['a', 'bcd', 'a', 'efghij', 'a', 'a', 'bcd', 'a', 'klm', 'a']
_HYPOTHESES = ['x', 'yz', '', 'uvwxyz', 'x', 'xx', 'yz', 'wvu', 'yz', 'wwwww']


@functools.cache
def _model():
  model = scalar.ScalarModel(
    tiny.config(vocab_size=32, num_encoder_layers=1, num_decoder_layers=1)
  )
  params = tiny.init(model)
  # The head starts small; a larger one lets wrong positions show.
  params['decoder']['value_dense']['kernel'] = jax.random.normal(
    jax.random.key(1), (16, 1)
  )
  return model, params


def _reward(params=None, **settings):
  defaults = {
    'max_source_length': 8,
    'max_target_length': 8,
    'length_buckets': (4, 8),
    'candidate_buckets': (1, 3),
    'tokens_per_call': 12,
    'held_tokens': 16,
  }
  model, own = _model()
  return learned.LearnedReward(
    model,
    own if params is None else params,
    fakes.Characters(),
    mesh_lib.MeshConfig(),
    config=scoring_plan.ScoringConfig(**(defaults | settings)),
    digest='d',
  )


def _one_by_one(sources, hypotheses):
  """Rewards by the model itself, without padding or blocks."""
  model, params = _model()
  model_rewards = tiny.jitted(model, 'rewards')
  rewards = []
  for pair in zip(sources, hypotheses, strict=True):
    source, target = (
      np.asarray([[*row, 1]], np.int32)
      for row in fakes.Characters().encode_batch(pair)
    )
    inputs = np.pad(target[:, :-1], ((0, 0), (1, 0)))
    batch = {
      'encoder_input_tokens': source,
      'decoder_input_tokens': inputs,
      'decoder_target_tokens': target,
      'decoder_loss_weights': np.ones(target.shape, np.float32),
    }
    rewards.append(float(model_rewards(params, batch)[0]))
  return np.asarray(rewards)


def test_scores_are_those_of_the_model_in_input_order():
  rewards = _reward().score(_SOURCES, _HYPOTHESES)
  assert rewards.dtype == np.float32 and rewards.shape == (10,)
  np.testing.assert_allclose(
    rewards, _one_by_one(_SOURCES, _HYPOTHESES), atol=1e-5
  )
  # The test would be empty if all were alike.
  assert len({round(float(r), 3) for r in rewards}) == 8


@pytest.mark.parametrize(
  'settings',
  [
    {'length_buckets': (8,)},
    {'length_buckets': (3, 8), 'candidate_buckets': (1, 2)},
    {'tokens_per_call': 40, 'candidate_buckets': (1,)},
    {'held_tokens': 1, 'calls_in_flight': 1},
  ],
)
def test_padding_and_shapes_do_not_matter(settings):
  np.testing.assert_allclose(
    _reward(**settings).score(_SOURCES, _HYPOTHESES),
    _reward().score(_SOURCES, _HYPOTHESES),
    atol=1e-5,
  )


def test_order_and_company_do_not_matter():
  rewards = _reward().score(_SOURCES, _HYPOTHESES)
  order = np.random.default_rng(0).permutation(10)
  shuffled = _reward().score(
    [_SOURCES[i] for i in order], [_HYPOTHESES[i] for i in order]
  )
  np.testing.assert_allclose(shuffled, rewards[order], atol=1e-5)
  for i in range(10):
    alone = _reward().score([_SOURCES[i]], [_HYPOTHESES[i]])
    np.testing.assert_allclose(alone, rewards[i : i + 1], atol=1e-5)


def test_repeated_texts_are_scored_once():
  rewards, statistics = _reward().measured_score(_SOURCES, _HYPOTHESES)
  assert rewards[0] == rewards[4]
  assert rewards[1] == rewards[6]
  assert (statistics.hypotheses, statistics.distinct) == (10, 8)
  assert statistics.truncated == {'sources': (0, 4), 'hypotheses': (0, 8)}
  assert 0 < statistics.real_token_share < 1


def test_each_source_is_encoded_once(monkeypatch):
  encoded, decoded = [], []
  encode, rewards = learned.encode, learned.rewards_of

  def counting_encode(model, params, held, start, sources):
    encoded.extend(np.asarray(sources)[:, 0])
    return encode(model, params, held, start, sources)

  def counting_rewards(model, params, held, slots, sources, targets):
    decoded.append((len(slots), *targets.shape))
    return rewards(model, params, held, slots, sources, targets)

  monkeypatch.setattr(learned, 'encode', counting_encode)
  monkeypatch.setattr(learned, 'rewards_of', counting_rewards)
  _reward().score(_SOURCES, _HYPOTHESES)
  letters = [3 + ord(text[0]) % 29 for text in ('a', 'bcd', 'efghij', 'klm')]
  # A lone EOS (1) fills nothing up here: 3 sources of 4 tokens, 1 of 8.
  assert sorted(encoded) == sorted(letters)
  # Short: 4 of 'a', as 3 + 1, with 1 of 'bcd' and of 'klm'. Long: 1 each.
  assert decoded == [(1, 3, 4), (3, 3, 4), (1, 1, 8), (1, 1, 8)]


def test_the_empty_hypothesis_is_scored():
  rewards = _reward().score(['a'], [''])
  np.testing.assert_allclose(rewards, _one_by_one(['a'], ['']), atol=1e-5)


def test_truncated_text_is_not_read():
  reward = _reward()
  rewards, statistics = reward.measured_score(
    ['abcdefg', 'abcdefgh'], ['xxxxxxxyyy', 'xxxxxxxzzzz']
  )
  assert statistics.truncated == {'sources': (1, 2), 'hypotheses': (2, 2)}
  np.testing.assert_allclose(rewards[0], rewards[1], atol=1e-6)


def test_an_empty_list_is_scored():
  rewards, statistics = _reward().measured_score([], [])
  assert rewards.shape == (0,) and rewards.dtype == np.float32
  assert statistics is None


def test_a_nan_names_the_first_offender():
  _, params = _model()
  params = jax.tree.map(lambda x: x, params)
  table = params['token_embedder']['embedding']
  letter = 3 + ord('q') % 29
  params['token_embedder']['embedding'] = table.at[letter].set(np.nan)
  with pytest.raises(FloatingPointError, match=r'position 2 \(2 such among 4'):
    _reward(params).score(['a', 'a', 'b', 'a'], ['x', 'z', 'xqx', 'q'])


def test_inputs_are_checked():
  with pytest.raises(ValueError, match='got 2 and 1'):
    _reward().score(['a', 'b'], ['x'])


def test_one_scorer_serves_changing_parameters():
  model, params = _model()
  scorer = learned.Scorer(model, mesh_lib.MeshConfig())
  plan = scoring_plan.plan(
    scoring_plan.ScoringConfig(length_buckets=(8, 128)),
    fakes.Characters(),
    _SOURCES,
    _HYPOTHESES,
  )
  before, _ = scorer.score(scorer.place(params), plan)
  doubled = jax.tree.map(lambda x: x, params)
  doubled['decoder']['value_dense']['kernel'] *= 2
  after, _ = scorer.score(scorer.place(doubled), plan)
  np.testing.assert_allclose(after, 2 * before, atol=1e-5)


def test_devices_that_work_alone_score_the_same(monkeypatch):
  """Three meshes, as where a TPU's chips cannot work together."""
  texts = [f'{x}{n}' for n in range(3) for x in _SOURCES], _HYPOTHESES * 3
  expected = _reward().score(*texts)
  one = mesh_lib.MeshConfig().build(jax.devices()[:1])
  monkeypatch.setattr(
    mesh_lib.MeshConfig, 'build_each_local', lambda self: [one] * 3
  )
  taken = []
  calls = learned.Scorer._calls

  def counted(self, *arguments):
    number = len(taken)
    taken.append(0)
    for call in calls(self, *arguments):
      taken[number] += 1
      yield call

  monkeypatch.setattr(learned.Scorer, '_calls', counted)
  np.testing.assert_allclose(_reward().score(*texts), expected, atol=1e-6)
  assert len(taken) == 3 and min(taken) > 0
