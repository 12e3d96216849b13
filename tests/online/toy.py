"""Sources of random tokens, and a reward that counts one token."""

import numpy as np

from rest_jax.data import pair_store, ragged, vocabularies
from rest_jax.online import objective, ppo, rollout
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import optimizers, trainer
from tests.models import tiny
from tests.training import toy

WANTED = 7
NUM_SOURCES = 20
MESH = mesh_lib.MeshConfig()


class Pairs(pair_store.PairStore):
  """Rows of 2 to 6 random tokens, in memory."""

  def __init__(self, num_rows: int = NUM_SOURCES, seed: int = 0):
    random = np.random.default_rng(seed)
    self.source_tokens = ragged.Ragged.from_lists(
      [
        [*random.integers(3, toy.VOCAB, size).tolist(), 1]
        for size in random.integers(1, 6, num_rows)
      ]
    )

  def source_text(self, row: int) -> str:
    return ' '.join(map(str, self.source_tokens[row]))


class Vocabulary(vocabularies.Vocabulary):
  """Writes token ids as numbers."""

  def __init__(self):
    pass

  def decode_batch(self, rows):
    return [' '.join(map(str, row)) for row in rows]


class Wanted:
  """The share of tokens that are `WANTED`, minus 1; the normaliser adds it."""

  name = 'wanted'
  digest = 'wanted'
  needs_references = False

  def __init__(self, fail_at=None):
    self._calls = 0
    self._fail_at = fail_at

  def score(self, sources, hypotheses, references=None):
    assert len(sources) == len(hypotheses)
    self._calls += 1
    if self._calls == self._fail_at:
      raise KeyboardInterrupt
    shares = [
      np.mean([word == str(WANTED) for word in text.split()] or [0.0])
      for text in hypotheses
    ]
    return np.asarray(shares, np.float32) - 1.0


def config(**changes) -> ppo.PPOConfig:
  settings = {
    'decode': sampler_lib.DecodeConfig(
      num_samples_per_source=4,
      temperature=1.0,
      max_target_length=8,
      block_sources=8,
      source_length_buckets=(8,),
      cache_stages=(8,),
      row_shares=(),
    ),
    'optimizer': optimizers.OptimizerConfig(learning_rate=1e-2),
    'loss': objective.ClippedObjective(),
    'sources_per_iteration': 8,
    'epochs': 3,
    'kl_coefficient': 0.0,
    'evaluate_every': 2,
    'tokens_per_batch': 128,
    'buckets': (8,),
  }
  return ppo.PPOConfig(**{**settings, **changes})


def environment(policy, settings, reward=None, seed=3) -> rollout.Environment:
  return rollout.Environment(
    sampler=sampler_lib.Sampler(
      policy, settings.decode, MESH.build(), is_shared=True
    ),
    pairs=Pairs(),
    num_sources=NUM_SOURCES,
    vocabulary=Vocabulary(),
    reward=reward or Wanted(),
    normalizer=normalize.Normalizer(-1.0, 0.0),
    seed=seed,
  )


def train(
  directory,
  settings=None,
  *,
  num_samples=128,
  reward=None,
  cut=None,
  cut_by=KeyboardInterrupt,
  objectives=None,
):
  """Trains the toy.

  Args:
    directory: of the stage.
    settings: of `config`.
    num_samples: hypotheses to draw.
    reward: of the training; the evaluation has one of its own.
    cut: an iteration whose evaluation is cut off.
    cut_by: what cuts it off.
    objectives: by iteration, instead of an evaluation.
  """
  settings = settings or config()
  policy = toy.make_policy()
  judged = environment(policy, settings, seed=5)

  def evaluate(params, iteration):
    if iteration == cut:
      raise cut_by
    if objectives is not None:
      return {'objective': objectives[iteration]}
    drawn = judged.draw(params, 0, NUM_SOURCES)
    mean = float(judged.rewards(drawn, judged.texts(drawn)).mean())
    return {'objective': mean, 'reward': mean}

  return ppo.train(
    settings,
    trainer.Given(policy, tiny.init(policy)),
    environment(policy, settings, reward),
    num_samples=num_samples,
    evaluate_fn=evaluate,
    mesh_config=MESH,
    directory=directory,
    seed=4,
  )
