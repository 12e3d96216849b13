"""Every experiment, and every file of each axis, builds and dry-runs."""

import dataclasses
import gzip
import pathlib
import re
import sys

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import compare, dry_run
from rest_jax.config import comparison, gin_files, registry
from rest_jax.data import seqio_tasks, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.interop import huggingface
from rest_jax.models import network, policy
from rest_jax.rewards import consensus, lexical, metricx
from tests.models import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]
GIN = ROOT / 'gin_configs'
COMPARISONS = sorted((GIN / 'experiments').glob('compare_*.gin'))
EXPERIMENTS = sorted(
  set((GIN / 'experiments').glob('*.gin')) - set(COMPARISONS)
)
# Experiments on the built-in task.
BUILT_IN = ('demo', 'demo_learned', 'demo_references', 'smoke')
AXES = sorted(
  path
  for axis in (
    'models',
    'rewards',
    'judges',
    'probes',
    'losses',
    'filters',
    'sampling',
    'values',
    'methods',
    'online',
    'meshes',
    'training',
  )
  for path in (GIN / axis).glob('*.gin')
)
# Some networks are others with other sizes, which tests of these sizes build.
OF_OTHER_SIZES = [
  path
  for path in (GIN / 'models').glob('*.gin')
  if "include 'gin_configs/models/" in path.read_text(encoding='utf-8')
]
TASKS = sorted((GIN / 'tasks').glob('*.gin'))
RATINGS = (
  'lang_pair\tsplit\tsource\thypothesis\tscore\tannotators\tscore_type'
  '\treference\n'
  + ''.join(
    f'{pair}\t{split}\tsource {split}\thypothesis {i}\t{i}\t1\tDA-z\tone\n'
    for pair in ('de-en', 'zh-en', 'en-zh')
    for split in ('train', 'dev', 'test')
    for i in range(3)
  )
)


@pytest.fixture
def files(tmp_path):
  """Text files of the names that the tasks ask for."""
  names = [
    'multi30k_de_en/train',
    'multi30k_de_en/val',
    'multi30k_de_en/test_2016_flickr',
    'multi30k_de_en/test_2017_flickr',
    'tatoeba_de_en/train',
    *(f'newstest_de_en/newstest{year}' for year in range(2008, 2021)),
    'tatoeba_zh_en/train',
    *(f'newstest_zh_en/newstest{year}' for year in range(2017, 2021)),
    'own',
  ]
  for name in names:
    for language in ('de', 'zh', 'en'):
      path = tmp_path / f'{name}.{language}.gz'
      path.parent.mkdir(parents=True, exist_ok=True)
      with gzip.open(path, 'wt', encoding='utf-8') as opened:
        opened.write('ein Satz\nnoch einer\n')
  (tmp_path / 'ratings').mkdir()
  for path in (tmp_path / 'ratings.tsv',):
    path.write_text(RATINGS, encoding='utf-8')
  for name in ('da_wmt15-18', 'mqm_wmt21-23'):
    with gzip.open(tmp_path / f'ratings/{name}.tsv.gz', 'wt') as opened:
      opened.write(RATINGS)
  return tmp_path


def overrides_for(path: pathlib.Path, files: pathlib.Path) -> list[str]:
  if path.stem in (
    'de_en_small',
    'de_en_new_domain',
    'de_en_recommended',
    'de_en_news',
    'zh_en_news',
  ):
    return [f'DATA={files}', 'VocabularyConfig.size=16']
  if path.stem in BUILT_IN:
    return []
  overrides = [f'DATA={files}', 'VocabularyConfig.size=16']
  if path.stem != 'summarise_small':
    overrides.append('RATINGS_FILE=ratings.tsv')
  for split in ('TRAIN', 'VALIDATION', 'TEST'):
    overrides += [
      f"{split}_SOURCES=('own.de.gz',)",
      f"{split}_REFERENCES=('own.en.gz',)",
    ]
  if path.stem == 'web_en_zh':
    overrides.append("GROW_SOURCES=('own.de.gz',)")
  return overrides


def described(paths, overrides, folder) -> str:
  registry.register()
  built = gin_files.parse_and_build(
    [str(path) for path in paths], overrides, root=registry.ROOT
  )
  return dry_run.describe(run_lib.Run(built, folder), 'rest')


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_dry_runs(path, files):
  text = described([path], overrides_for(path, files), files / 'run')
  assert 'to do     bc' in text
  assert not (files / 'run').exists()


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_bvmpo_s_lambda_falls_within_the_steps_of_every_experiment(path, files):
  registry.register()
  built = gin_files.parse_and_build(
    [str(path), str(GIN / 'losses/bvmpo.gin')],
    # Not every experiment has a learned reward for V to start from.
    [*overrides_for(path, files), "ValueStage.init='policy'"],
    root=registry.ROOT,
  )
  trainer = built.improve.trainer
  # An Improve step whose reward never rises.
  steps = min(trainer.max_steps, trainer.patience * trainer.evaluate_every)
  assert trainer.least_steps == steps <= 5000
  loss = built.improve.loss.for_training(trainer.least_steps)
  assert float(loss.coefficient(steps)) == pytest.approx(1e-5, rel=1e-4)


@pytest.mark.parametrize('path', COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_dry_runs(path, tmp_path):
  registry.register()

  def read(files, overrides):
    return gin_files.parse_and_build(
      [str(path), *files], overrides, root=comparison.Comparison
    )

  compared = read([], [])
  runs = compare.plan(
    compared,
    build=lambda spec: read(spec.gin_files, spec.overrides).experiment,
    model_dir=tmp_path,
  )
  assert list(runs) == [spec.name for spec in compared.specs()]
  for name, of_seeds in runs.items():
    assert [run.experiment.seed for run in of_seeds] == list(compared.seeds)
    assert f'variants/{name}/' in dry_run.describe(of_seeds[0], 'rest')


@pytest.mark.parametrize(
  'path',
  [path for path in AXES if path not in OF_OTHER_SIZES],
  ids=lambda path: f'{path.parent.name}/{path.stem}',
)
def test_every_axis_file_swaps_into_an_experiment(path, files):
  overrides = []
  if path.parent.name == 'models':
    # What takes time is to trace each layer.
    overrides = [
      f'NetworkConfig.num_{s}_layers=1' for s in ('encoder', 'decoder')
    ]
  if path.stem == 'none':
    overrides = ['NUM_IMPROVE_STEPS=1']
  if path.stem == 'metricx':
    overrides = [f'METRICX_DIR={metricx_folder(files)}']
  if path.stem.startswith('features'):
    overrides = ['SyntheticRatings.size=50']
  if path.stem == 'comet':
    overrides = [f'COMET_PYTHON={sys.executable}']
  if path.stem in ('embedding', 'references'):
    overrides = [f'EMBEDDING_PYTHON={sys.executable}']
  if path.stem == 'tensor_parallel':
    overrides = ['MODEL_DEVICES=1']
  if path.stem == 'multislice':
    overrides = ['SLICES=1']
  if path.stem == 'lora_bc':
    (files / 'manifest.json').write_text('{"settings": {}}')
    overrides = [f'BC_INIT_DIR={files}']
  demo = GIN / 'experiments/demo_learned.gin'
  assert 'plan of' in described([demo, path], overrides, files / 'run')


# Their settings belong to another part of the experiment, and stay.
MODIFIERS = ('refreshed', 'flawed_refreshed', 'learned_noisy_ratings')


@pytest.mark.parametrize('axis', ['filters', 'losses', 'rewards', 'sampling'])
def test_a_file_replaces_all_of_the_others_of_its_axis(axis):
  registry.register()
  demo = GIN / 'experiments/demo_learned.gin'
  paths = [
    path
    for path in sorted((GIN / axis).glob('*.gin'))
    if path.stem not in MODIFIERS
  ]

  required = {
    'comet': [f'COMET_PYTHON="{sys.executable}"'],
    'metricx': ['METRICX_DIR="given"'],
    'none': ['NUM_IMPROVE_STEPS=1'],
  }

  def build(path, *files):
    overrides = required.get(path.stem, [])
    return gin_files.parse_and_build(
      [demo, *files, path], overrides, root=registry.ROOT
    )

  for path in paths:
    others = [
      other for other in paths if other != path and other.stem not in required
    ]
    assert build(path, *others) == build(path), path


def metricx_folder(files: pathlib.Path) -> pathlib.Path:
  """The smallest folder that passes for MetricX; its numbers are random."""
  config = network.NetworkConfig(
    vocab_size=metricx.SCORE_PIECE + 1,
    emb_dim=2,
    num_heads=1,
    head_dim=2,
    mlp_dim=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
  )
  folder = files / 'metricx'
  params = tiny.init(policy.Policy(config))
  huggingface.save_policy(folder, config, params)
  vocabularies.train(
    vocabularies.VocabularyConfig(size=16),
    ['ein Satz', 'noch einer'],
    folder / metricx.VOCABULARY_FILE,
  )
  return folder


@pytest.mark.parametrize('stem', ['metricx', 'chrf', 'consensus'])
def test_a_given_reward_needs_no_ratings(stem, files):
  experiments = GIN / 'experiments'
  given = [f'METRICX_DIR={metricx_folder(files)}'] if stem == 'metricx' else []
  for name in ('demo_learned', 'iwslt14_de_en'):
    path = experiments / f'{name}.gin'
    overrides = [
      override
      for override in overrides_for(path, files)
      if not override.startswith('RATINGS_FILE')
    ]
    text = described(
      [path, GIN / f'rewards/{stem}.gin'],
      [*overrides, *given, 'Task.ratings=None'],
      files / 'run',
    )
    assert f'  reward    {stem}\n' in text
    assert 'to do     reward' not in text


def test_consensus_by_another_scorer_and_beside_likelihood(files):
  registry.register()
  path = GIN / 'experiments/demo_learned.gin'
  built = gin_files.parse_and_build(
    [path, GIN / 'rewards/consensus.gin'],
    ['Consensus.similarity=@Bleu()', 'NUM_EVIDENCE_SAMPLES=3'],
    root=registry.ROOT,
  )
  assert built.reward == consensus.Consensus(similarity=lexical.Bleu())
  assert built.evidence.decode.num_samples_per_source == 3
  text = described(
    [path, GIN / 'rewards/consensus_likelihood.gin'],
    ['Task.ratings=None'],
    files / 'run',
  )
  assert 'consensus: mean similarity to the other samples: chrf' in text
  assert 'likelihood: log-probability of the BC policy' in text
  assert 'evidence validation' in text


@pytest.mark.parametrize(
  'name, num_grow_steps, num_samples, thresholds',
  [
    # Table 1's best, and Figure 3; N of Table 2.
    ('iwslt14_de_en', 2, 100, (0.9, 0.95, 0.99)),
    ('wmt20_zh_en', 1, 25, (0.8, 0.9, 0.95, 0.99)),
    ('web_en_zh', 2, 1000, (0.95, 0.99)),
  ],
)
def test_the_numbers_of_the_paper(
  name, num_grow_steps, num_samples, thresholds, files
):
  path = GIN / f'experiments/{name}.gin'
  registry.register()
  built = gin_files.parse_and_build(
    [str(path)], overrides_for(path, files), root=registry.ROOT
  )
  assert built.num_grow_steps == num_grow_steps
  assert built.num_improve_steps == len(thresholds)
  assert built.improve.filter.values == thresholds
  assert built.grow.decode.num_samples_per_source == num_samples
  assert built.grow.decode.temperature == 0.8
  assert built.improve.trainer.max_steps == 500_000


def test_summaries_have_longer_sources_and_no_ratings(files):
  path = GIN / 'experiments/summarise_small.gin'
  text = described([path], overrides_for(path, files), files / 'run')
  assert '  task      summarise\n' in text
  assert '  reward    chrf\n' in text
  registry.register()
  built = gin_files.parse_and_build(
    [str(path)], overrides_for(path, files), root=registry.ROOT
  )
  assert built.task.ratings is None and built.trained_reward is None
  lengths = (built.task.max_source_length, built.task.max_target_length)
  assert lengths == (512, 64)
  # Whatever is kept can be sampled for, scored and trained on.
  for decode in (
    built.grow.decode, built.evaluate.decode, built.evaluate.selection,
    built.sample.decode,
  ):  # fmt: skip
    assert max(decode.source_length_buckets) == 512
    assert decode.max_target_length == 64
  assert max(built.bc.trainer.buckets) == 512


def test_any_seqio_task_by_its_name():
  registry.register()
  task = gin_files.parse_and_build(
    [
      str(GIN / 'experiments/demo_learned.gin'),
      str(GIN / 'tasks/seqio.gin'),
      str(GIN / 'rewards/chrf.gin'),
    ],
    [
      'SEQIO_TASK=my_mixture',
      'SEQIO_MODULE=my.tasks',
      'NUM_TRAIN_PAIRS=500',
      'TEST_SPLIT=newstest',
    ],
    root=registry.ROOT,
  ).task
  assert task.name == 'my_mixture' and task.ratings is None
  for pairs, split, limit in (
    (task.train, 'train', 500),
    (task.validation, 'validation', None),
    (task.test, 'newstest', None),
  ):
    assert pairs == seqio_tasks.SeqioPairs(
      task='my_mixture', module='my.tasks', split=split, limit=limit
    )


def test_a_learned_reward_needs_ratings():
  registry.register()
  with pytest.raises(ValueError, match=r'task\.ratings must name'):
    gin_files.parse_and_build(
      [
        str(GIN / 'experiments/demo_learned.gin'),
        str(GIN / 'rewards/guarded.gin'),
      ],
      ['Task.ratings=None'],
      root=registry.ROOT,
    )


def test_a_guard_may_stand_around_any_reward(files):
  path = files / 'around.gin'
  path.write_text('GUARDED_REWARD = @Chrf()\nREWARD_FLOOR = -1.0\n')
  text = described(
    [GIN / 'experiments/demo_learned.gin', GIN / 'rewards/guarded.gin', path],
    ['Task.ratings=None'],
    files / 'run',
  )
  assert 'guarded: chrf, or -1 where vetoed by length_ratio, repet' in text


@pytest.mark.parametrize(
  ('judge', 'message'),
  [
    ('@RewardStage()', 'got RewardStage, which the run trains'),
    ('@Consensus()', 'got Consensus, which compares samples'),
  ],
)
def test_a_judge_is_independent_and_scores_one_output(judge, message):
  registry.register()
  with pytest.raises(ValueError, match=message):
    gin_files.parse_and_build(
      [str(GIN / 'experiments/demo_learned.gin')],
      [f'Task.judge={judge}'],
      root=registry.ROOT,
    )


def test_sources_without_references_do_not_fit_a_reward_that_needs_them(files):
  path = GIN / 'experiments/web_en_zh.gin'
  with pytest.raises(ValueError, match="'chrf' compares with references"):
    described(
      [path, GIN / 'rewards/chrf.gin'], overrides_for(path, files), files
    )


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_what_must_be_given_is_named(path):
  if path.stem in BUILT_IN:
    pytest.skip('the built-in task needs nothing')
  registry.register()
  with pytest.raises(gin_files.ConfigError, match=r'DATA|TRAIN_SOURCES'):
    gin_files.parse_and_build([str(path)], [], root=registry.ROOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TaskAlone:
  """The root of a configuration that has a task alone."""

  task: task_lib.Task
  splits: tuple[str, ...]


def read_task(*paths: pathlib.Path) -> _TaskAlone:
  """Builds the task of some files, with what the last of them requires."""
  required = re.findall(
    r'^(\w+) = %gin\.REQUIRED', paths[-1].read_text(), re.MULTILINE
  )
  given = [
    f"{name}=('x',)"
    if name.endswith(('SOURCES', 'REFERENCES'))
    else f'{name}=x'
    for name in required
  ]
  return gin_files.parse_and_build(
    [str(path) for path in paths],
    [
      '_TaskAlone.task=%TASK',
      '_TaskAlone.splits=%EVALUATION_SPLITS',
      *given,
    ],
    root=_TaskAlone,
  )


@pytest.mark.parametrize('path', TASKS, ids=lambda path: path.stem)
def test_a_task_file_replaces_any_other_whole(path):
  registry.register()
  alone = read_task(path)
  for other in TASKS:
    assert read_task(other, path) == alone, other.stem


def test_a_task_file_says_which_settings_a_task_has():
  """A field that is new has to be reset by every task file, too."""
  text = (GIN / 'runs/task.gin').read_text()
  given = set(re.findall(r'^((?:Task|VocabularyConfig)\.\w+) =', text, re.M))
  fields = {
    f'{cls.__name__}.{field.name}'
    for cls in (task_lib.Task, vocabularies.VocabularyConfig)
    for field in dataclasses.fields(cls)
  }
  splits = {f'Task.{name}' for name in ('name', 'train', 'validation', 'test')}
  assert given == fields - splits


def test_a_misspelt_macro_suggests_the_nearest():
  registry.register()
  demo = str(GIN / 'experiments/demo_learned.gin')
  with pytest.raises(gin_files.ConfigError, match='NUM_GROW_STEPS'):
    gin_files.parse_and_build([demo], ['NUM_GROW_STEP=3'], root=registry.ROOT)


def test_the_paper_s_numbers():
  registry.register()
  sizes = {
    'iwslt': (512, 1024, 4, 6, 6),
    'wmt': (512, 2048, 8, 6, 6),
    'web': (1024, 8192, 16, 6, 6),
  }
  for name, expected in sizes.items():
    built = gin_files.parse_and_build(
      [
        str(GIN / 'experiments/demo_learned.gin'),
        str(GIN / f'models/{name}.gin'),
      ],
      [],
      root=registry.ROOT,
    ).network
    assert expected == (
      built.emb_dim,
      built.mlp_dim,
      built.num_heads,
      built.num_encoder_layers,
      built.num_decoder_layers,
    )


def test_noisy_ratings_are_noisier():
  registry.register()
  demo = GIN / 'experiments/demo_learned.gin'
  noisy = GIN / 'rewards/learned_noisy_ratings.gin'
  ratings = [
    gin_files.parse_and_build(
      [str(path) for path in paths], ['NUM_RATINGS=40'], root=registry.ROOT
    ).task.ratings
    for paths in ([demo], [demo, noisy])
  ]
  assert [rated.rater_noise for rated in ratings] == [0.15, 0.6]
  usual, noisier = (rated.read() for rated in ratings)
  assert usual.hypothesis == noisier.hypothesis
  assert noisier.score.std() > usual.score.std()


def test_files_say_what_they_provide():
  for path in AXES + TASKS:
    head = path.read_text(encoding='utf-8').split('\n\n')[0]
    assert '# Provides' in head and 'Requires' in head, path
