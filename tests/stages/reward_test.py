"""A reward model learns a toy language from corruptions and ratings."""

import dataclasses
import json
import random
import string

import numpy as np
import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.data import sources as sources_lib
from rest_jax.data import task as task_lib
from rest_jax.data import vocabularies
from rest_jax.losses import within_source
from rest_jax.models import network as network_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import corruptions, learned_references, scoring_plan
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  base,
  bc,
  folder,
  rated_samples,
  reward,
  train_reward,
)
from rest_jax.stages import context as context_lib
from rest_jax.training import optimizers, trainer
from tests import single_stage

# Each source word has one translation; sentences are translated word by word.
_GERMAN = ('hund', 'katze', 'sieht', 'mag', 'rot', 'blau', 'haus', 'wald')
_ENGLISH = ('dog', 'cat', 'sees', 'likes', 'red', 'blue', 'house', 'wood')


def _sentences(number, seed):
  draw = random.Random(seed)
  for _ in range(number):
    words = [draw.randrange(8) for _ in range(draw.randint(3, 5))]
    yield (
      ' '.join(_GERMAN[word] for word in words),
      ' '.join(_ENGLISH[word] for word in words),
    )


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """Pairs of the toy language."""

  number: int
  seed: int

  def read(self):
    for source, reference in _sentences(self.number, self.seed):
      yield sources_lib.Pair(source, reference)


@dataclasses.dataclass(frozen=True)
class _Ratings:
  """Quality is chrF on another scale; hypotheses are corrupted references."""

  number: int = 120
  splits: tuple[str, ...] = ('train', 'train', 'dev', 'test')
  spread: float = 3.0

  def read(self):
    columns = [], [], [], []
    for index, split in enumerate(self.splits):
      pairs = list(_sentences(self.number // 2, f'ratings {index}'))
      corruptor = corruptions.Corruptor(
        corruptions.CorruptionConfig(max_corruptions=3, unrelated_share=0.0),
        *zip(*pairs, strict=True),
        seed=index,
      )
      texts = corruptor.scored(self.number)
      columns[0].extend(texts.sources)
      columns[1].extend(texts.hypotheses)
      columns[2].extend(self.spread * texts.scores - 5)
      columns[3].extend([split] * self.number)
    return ratings_lib.Ratings(
      source=columns[0],
      hypothesis=columns[1],
      score=np.asarray(columns[2], np.float32),
      weight=np.resize([1.0, 3.0], len(columns[0])).astype(np.float32),
      split=columns[3],
    )


def _trainer(steps, learning_rate=4e-3, **settings):
  defaults = {
    'optimizer': optimizers.OptimizerConfig(
      learning_rate=learning_rate, warmup_steps=20, decay='cosine'
    ),
    'max_steps': steps,
    'evaluate_every': max(steps // 2, 1),
    'tokens_per_batch': 768,
    'buckets': (24,),
  }
  return trainer.TrainerConfig(**(defaults | settings))


_SCORING = scoring_plan.ScoringConfig(
  max_source_length=24,
  max_target_length=24,
  length_buckets=(24,),
  candidate_buckets=(1,),
)


def _config(**settings):
  defaults = {
    'pretrain': _trainer(300),
    'finetune': _trainer(40, 1e-3),
    'num_corruptions': 8000,
    'max_selection_rows': 200,
    'dropout_rate': 0.0,
    'scoring': _SCORING,
    'num_resamples': 50,
    # Most of them are hardly trained.
    'must_agree': False,
  }
  return reward.RewardStage(**(defaults | settings))


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """Data and a policy that has hardly been trained."""
  root = tmp_path_factory.mktemp('start')
  # Corruptions bring capitals, marks and negations.
  alphabet = root / 'alphabet.txt'
  alphabet.write_text(
    f'{string.ascii_letters} . , ; : ! ?\nnot no never\n', encoding='utf-8'
  )
  data = single_stage.prepared(
    task_lib.Task(
      name='toy',
      train=_Pairs(400, 0),
      validation=_Pairs(100, 1),
      test=_Pairs(10, 2),
      vocabulary=vocabularies.VocabularyConfig(
        size=80, num_threads=1, extra_files=(alphabet,)
      ),
      max_source_length=24,
      max_target_length=24,
    ),
    root / 'data',
  )
  context = context_lib.Context(
    data_folder=data.directory,
    bc_folder=root / 'bc',
    network=network_lib.NetworkConfig(
      emb_dim=32,
      num_heads=2,
      head_dim=16,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_dim=48,
    ),
  )
  made = single_stage.trained(bc.BCConfig(trainer=_trainer(300)), context)
  return {'bc': made, 'ratings': _Ratings(), 'context': context}


def _run(config, *, directory, bc, ratings, context):
  stage = train_reward.TrainReward(
    config=config,
    ratings=ratings,
    bc=bc,
    data=bc.data,
    seed=0,
    folder=directory,
  )
  return base.run_stage(stage, context)


@pytest.fixture(scope='module')
def finished(start, tmp_path_factory):
  directory = tmp_path_factory.mktemp('reward') / 'reward'
  return _run(_config(), directory=directory, **start)


def _load(directory, start):
  return reward.load(
    directory, start['context'].data.vocabulary, mesh_lib.MeshConfig()
  )


def test_it_learns_to_prefer_clean_to_corrupted(finished, start):
  manifest = folder.read_manifest(finished)
  assert manifest['agreement']['test']['pearson']['value'] > 0.4
  assert manifest['corruptions']['prefers_reference'] > 0.7
  assert manifest['pretraining']['evaluation']['pearson'] > 0.5

  model = _load(finished, start)
  pairs = list(_sentences(50, 'new'))
  sources = [source for source, _ in pairs]
  right = model.score(sources, [reference for _, reference in pairs])
  for wrong in (
    [''] * 50,
    [reference for _, reference in pairs[1:] + pairs[:1]],
    sources,
  ):
    assert np.mean(right > model.score(sources, wrong)) > 0.75


def test_the_manifest_says_what_was_made(finished, start):
  manifest = folder.read_manifest(finished)
  json.dumps(manifest, allow_nan=False)
  for split in ('dev', 'test'):
    found = manifest['agreement'][split]
    assert found['rows'] == 120
    assert 50 <= found['sources'] <= 60
    for name in (
      'pairwise_accuracy',
      'pearson_within_source',
      'best_of_n',
      'pearson',
      'spearman',
      'kendall',
      'pairwise_accuracy_all',
    ):
      entry = found[name]
      assert entry['low'] <= entry['value'] <= entry['high']
      assert entry['low'] < entry['high']
  rated = _Ratings().read().select('train')
  assert manifest['rating_scale']['mean'] == pytest.approx(rated.score.mean())
  assert manifest['rating_scale']['std'] == pytest.approx(rated.score.std())
  assert (
    manifest['vocabulary']['digest'] == start['context'].data.vocabulary.digest
  )
  assert manifest['vocabulary']['unknown_share'] < 0.005
  assert manifest['network']['dropout_rate'] == 0.0
  model = _load(finished, start)
  assert model.digest == manifest['params_digest']
  assert model.name == 'learned'
  assert model.config == _SCORING


def test_agreement_is_that_of_the_loaded_model(finished, start):
  rated = _Ratings().read().select('test')
  rewards = _load(finished, start).score(rated.source, rated.hypothesis)
  found = folder.read_manifest(finished)['agreement']['test']['pearson']
  expected = np.corrcoef(rewards, rated.score)[0, 1]
  assert found['value'] == pytest.approx(expected, abs=1e-5)
  # Rewards are in standard deviations of the ratings.
  assert abs(rewards.mean()) < 0.5 and 0.3 < rewards.std() < 1.5


def test_a_finished_folder_is_used_as_it_is(finished, start):
  before = (finished / 'manifest.json').stat().st_mtime_ns
  assert _run(_config(), directory=finished, **start) == finished
  assert (finished / 'manifest.json').stat().st_mtime_ns == before
  with pytest.raises(folder.SettingsChangedError, match='num_corruptions'):
    _run(_config(num_corruptions=7), directory=finished, **start)


def test_a_reward_at_chance_stops_the_run_until_a_setting_says_otherwise(
  start, tmp_path
):
  @dataclasses.dataclass(frozen=True)
  class Chance:
    def read(self):
      rated = _Ratings(splits=('train', 'dev')).read()
      scores = np.random.default_rng(0).normal(size=len(rated))
      return dataclasses.replace(rated, score=scores.astype(np.float32))

  where = {'directory': tmp_path / 'reward'} | start | {'ratings': Chance()}
  short = {'pretrain': None, 'finetune': _trainer(2)}
  for _ in range(2):
    with pytest.raises(ValueError, match='on split dev it has pairs of one'):
      _run(_config(must_agree=True, **short), **where)
  # It is finished all the same, and can be used without another training.
  finished = start['context'].resources(tmp_path / 'reward')
  with pytest.raises(ValueError, match='on split dev it has pairs of one'):
    rewards_base.check_agreement(
      _config(must_agree=True, **short).load(finished)
    )
  assert _run(_config(must_agree=False, **short), **where).exists()
  found = folder.read_manifest(tmp_path / 'reward')['agreement']['dev']
  assert found['pairwise_accuracy']['low'] <= 0.5


def test_a_reward_above_chance_goes_on(finished):
  assert reward.refusal(_config(must_agree=True), finished) is None


def test_samples_of_the_policy_are_learned_from(start, tmp_path, monkeypatch):
  scored = []
  score_samples = corruptions.score_samples

  def recording(samples, *, chrf_beta):
    samples = list(samples)
    scored.extend(samples)
    return score_samples(samples, chrf_beta=chrf_beta)

  monkeypatch.setattr(corruptions, 'score_samples', recording)
  config = _config(
    pretrain=_trainer(2),
    finetune=_trainer(2),
    num_corruptions=10,
    num_sampled_sources=6,
    samples=sampler_lib.DecodeConfig(
      num_samples_per_source=2,
      max_target_length=12,
      source_length_buckets=(24,),
      cache_stages=(12,),
    ),
  )
  directory = _run(config, directory=tmp_path / 'reward', **start)
  assert len(scored) == 12
  translations = dict(_sentences(400, 0))
  assert all(
    translations[source] == reference for source, _, reference in scored
  )
  manifest = folder.read_manifest(directory)
  assert manifest['pretraining']['rows'] == 10 + 12


class _Raters:
  """Two raters, who count the words of a hypothesis that are right."""

  def __init__(self):
    self.asked = []

  def rate(self, sources, hypotheses):
    translations = dict(zip(_GERMAN, _ENGLISH, strict=True))
    scores = []
    for source, hypothesis in zip(sources, hypotheses, strict=True):
      right = {translations[word] for word in source.split()}
      said = hypothesis.split()
      scores.append(-len(right.symmetric_difference(said)) - 0.1 * len(said))
      self.asked.append((source, hypothesis))
    return np.array(scores, float), np.full(len(scores), 2)


def test_samples_of_the_policy_are_rated_and_learned_from(start, tmp_path):
  config = _config(
    pretrain=None,
    finetune=_trainer(2),
    loss=within_source.WithinSource(hypotheses=3),
    rated_samples=rated_samples.RatedSamples(
      decode=sampler_lib.DecodeConfig(
        num_samples_per_source=4,
        max_target_length=12,
        source_length_buckets=(24,),
        cache_stages=(12,),
      ),
      raters=None,
      num_sources=10,
      num_heldout_sources=24,
    ),
  )
  where = {'directory': tmp_path / 'reward'} | start
  with pytest.raises(FileNotFoundError, match=r'to_rate\.tsv'):
    _run(config, **where)
  path = tmp_path / 'reward'
  table = (path / 'to_rate.tsv').read_text().splitlines()
  items = [line.split('\t')[1:4] for line in table[1:]]
  split_of = {source: split for split, source, _ in items}
  rated = _Ratings().read()
  known = dict(zip(rated.source, rated.split, strict=True))
  new = {s: split for s, split in split_of.items() if s not in known}
  assert all(split_of[s] == known[s] for s in split_of.keys() & known.keys())
  assert len(split_of) == 10 + 24 > len(new) >= 30
  drawn_from = dict(_sentences(400, 0)), dict(_sentences(100, 1))
  assert all(s in drawn_from[split != 'train'] for s, split in new.items())
  heldout = list(new.values())
  assert min(heldout.count('dev'), heldout.count('test')) >= 10
  assert len(set(map(tuple, items))) == len(items) <= 34 * 4
  scores, annotators = _Raters().rate(
    *zip(*[i[1:] for i in items], strict=True)
  )
  (path / 'rated.tsv').write_text(
    'id\tscore\tannotators\n'
    + ''.join(
      f'{line.split(chr(9))[0]}\t{score}\t{count}\n'
      for line, score, count in zip(table[1:], scores, annotators, strict=True)
    )
  )
  manifest = folder.read_manifest(_run(config, **where))
  assert set(manifest['agreement']) == {
    'dev', 'test', 'sampled dev', 'sampled test',
  }  # fmt: skip
  found = manifest['agreement']['sampled dev']
  assert found['rows'] == sum(item[0] == 'dev' for item in items)
  assert manifest['ratings'] == {
    'train': 240,
    'sampled train': sum(item[0] == 'train' for item in items),
  }
  rated = rated_samples.read(path)
  assert rated is not None
  assert rated.weight.tolist() == [2.0] * len(items)
  references = dict(_sentences(400, 0)) | dict(_sentences(100, 1))
  assert rated.reference == [references[source] for source in rated.source]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_sources': 0}, 'num_sources must be'),
    ({'num_heldout_sources': 1}, 'num_heldout_sources must be'),
    ({'weight': 0.0}, 'weight must be'),
    (
      {'decode': sampler_lib.DecodeConfig(num_samples_per_source=1)},
      'decode must draw several samples',
    ),
  ],
)
def test_bad_settings_of_rated_samples_are_refused(settings, message):
  defaults = {'decode': sampler_lib.DecodeConfig(num_samples_per_source=4)}
  with pytest.raises(ValueError, match=message):
    rated_samples.RatedSamples(**(defaults | settings))


# What they add to the rows is shown in learned_references_test.
@pytest.mark.full
def test_references_of_ratings_teach_where_raters_say_nothing(start, tmp_path):
  """Ratings of chance alone leave chrF to learn from; dev is judged as it is."""
  rated = _Ratings(number=400, splits=('train', 'dev', 'test')).read()
  translations = dict(zip(_GERMAN, _ENGLISH, strict=True))
  is_train = np.array([split == 'train' for split in rated.split])
  chance = np.random.default_rng(0).normal(size=len(rated))
  rated = dataclasses.replace(
    rated,
    score=np.where(is_train, chance, rated.score).astype(np.float32),
    reference=[
      ' '.join(translations[word] for word in source.split())
      for source in rated.source
    ],
  )

  @dataclasses.dataclass(frozen=True)
  class Given:
    def read(self):
      return rated

  found = {}
  for weight in (0.0, 3.0):
    config = _config(
      pretrain=_trainer(2),
      num_corruptions=10,
      finetune=_trainer(150, 2e-3),
      references=learned_references.RatedReferences(weight=weight),
    )
    directory = _run(
      config,
      directory=tmp_path / f'reward {weight}',
      **(start | {'ratings': Given()}),
    )
    manifest = folder.read_manifest(directory)
    assert manifest['pretraining']['rows'] == 10 + 400
    # Of the ratings, whatever is fitted.
    assert manifest['rating_scale']['std'] == pytest.approx(
      rated.score[is_train].std()
    )
    found[weight] = manifest['agreement']['test']['pearson']['value']
  assert found[3.0] > found[0.0] + 0.1


def test_the_same_seed_gives_the_same_rewards(start, tmp_path):
  config = _config(
    pretrain=_trainer(3), finetune=_trainer(2), num_corruptions=50
  )
  digests = [
    folder.read_manifest(_run(config, directory=tmp_path / name, **start))[
      'params_digest'
    ]
    for name in ('first', 'second')
  ]
  assert digests[0] == digests[1]


def test_pretraining_may_be_left_out(start, tmp_path):
  config = _config(pretrain=None, finetune=_trainer(2))
  ratings = _Ratings(splits=('train', 'dev'))
  directory = _run(
    config, directory=tmp_path / 'reward', **(start | {'ratings': ratings})
  )
  manifest = folder.read_manifest(directory)
  assert manifest['pretraining'] is None
  assert list(manifest['agreement']) == ['dev']
  assert not (directory / train_reward.PRETRAIN).exists()


@pytest.mark.parametrize(
  ('ratings', 'message'),
  [
    (_Ratings(spread=0.0), "scores that differ in split 'train'"),
    (_Ratings(splits=('train', 'test')), "ratings of split 'dev'"),
    (_Ratings(splits=('dev', 'test')), "ratings of split 'train'"),
  ],
)
def test_unfit_ratings_are_refused_before_any_training(
  start, tmp_path, ratings, message
):
  with pytest.raises(ValueError, match=message):
    _run(
      _config(), directory=tmp_path / 'reward', **(start | {'ratings': ratings})
    )
  assert not (tmp_path / 'reward' / 'pretrain').exists()


def test_another_vocabulary_is_refused(finished, tmp_path):
  other = vocabularies.train(
    vocabularies.VocabularyConfig(size=25, num_threads=1),
    [reference for _, reference in _sentences(300, 5)],
    tmp_path / 'other.model',
  )
  with pytest.raises(ValueError, match='another vocabulary'):
    reward.load(finished, other, mesh_lib.MeshConfig())


def test_buckets_may_be_a_number_to_choose_from_the_data():
  trainer = _trainer(2, buckets=3)
  stage = reward.RewardStage(finetune=trainer, pretrain=trainer)
  assert stage.finetune.buckets == 3


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_corruptions': 0}, 'num_corruptions must be'),
    ({'num_sampled_sources': 0}, 'num_sampled_sources must be'),
    ({'max_selection_rows': 0}, 'max_selection_rows must be'),
    ({'num_resamples': 0}, 'num_resamples must be'),
    ({'finetune': _trainer(2, buckets=(16,))}, 'finetune.buckets must hold'),
    (
      {
        'pretrain': None,
        'samples': sampler_lib.DecodeConfig(num_samples_per_source=1),
      },
      'samples are for pre-training',
    ),
    (
      {
        'pretrain': None,
        'references': learned_references.RatedReferences(),
      },
      'references.pretrain is for pre-training',
    ),
  ],
)
def test_bad_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    _config(**settings)
