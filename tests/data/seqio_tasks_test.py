"""SeqIO tasks that are registered here, as pairs; and a run's data as tasks."""

import sys

import numpy as np
import pytest

from rest_jax.data import seqio_tasks, sources, stored_rows, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.losses import bc
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import context as context_lib
from rest_jax.training import journal, optimizers, trainer
from tests import single_stage
from tests.data import small_run
from tests.models import tiny

# Imported when they are needed, since that takes long and every worker of a run
# reads this file.
seqio = tf = None

PAIRS = [('ein Haus', 'a house'), ('Grüße …', 'greetings'), ('drei', 'three')]
SPLITS = ('train', 'validation')


def _texts(source):
  """What a source reads, without languages."""
  return [(pair.source, pair.reference) for pair in source.read()]


def _source(pairs, extra=b''):
  def dataset(split, shuffle_files, seed=None):
    del shuffle_files, seed
    chosen = pairs if split == 'train' else pairs[:1]
    return tf.data.Dataset.from_tensor_slices(
      {
        'inputs': [source.encode() + extra for source, _ in chosen],
        'targets': [target.encode() for _, target in chosen],
      }
    )

  return seqio.FunctionDataSource(dataset, splits=SPLITS)


def _register(name, pairs, preprocessors, dtype='int32', rank=1, extra=b''):
  vocabulary = seqio.ByteVocabulary()
  if dtype == 'string':
    vocabulary = seqio.PassThroughVocabulary(1)
  feature = seqio.Feature(
    vocabulary,
    dtype=tf.as_dtype(dtype),
    rank=rank,
    add_eos=False,
    required=False,
  )
  seqio.TaskRegistry.add(
    name,
    source=_source(pairs, extra),
    preprocessors=preprocessors,
    output_features={'inputs': feature, 'targets': feature},
  )


def _tokenize_without_copy(dataset, output_features):
  return seqio.preprocessors.tokenize(
    dataset, output_features, copy_pretokenized=False
  )


@pytest.fixture(autouse=True, scope='module')
def _tasks():
  """Imports the libraries, and registers what is read here."""
  global seqio, tf
  seqio = pytest.importorskip('seqio', reason='SeqIO is not installed')
  tf = pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
  tokenize = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
  _register('pairs_tokenized', PAIRS, tokenize)
  _register('pairs_of_text', PAIRS, [], dtype='string', rank=0)
  _register('pairs_more', [(f'x{i}', f'y{i}') for i in range(5)], tokenize)
  _register('pairs_of_tokens', PAIRS, [_tokenize_without_copy])
  _register('pairs_latin', PAIRS, tokenize, extra=b'\xe4')
  seqio.MixtureRegistry.add(
    'pairs_mixed', [('pairs_tokenized', 1), ('pairs_more', 3)]
  )


@pytest.mark.parametrize('task', ['pairs_tokenized', 'pairs_of_text'])
def test_text_of_a_task(task):
  pairs = seqio_tasks.SeqioPairs(task=task)
  assert isinstance(pairs, sources.PairSource)
  assert _texts(pairs) == PAIRS
  assert _texts(pairs) == PAIRS  # The same again.
  assert isinstance(next(pairs.read()), sources.Pair)


def test_split_and_limit():
  validation = seqio_tasks.SeqioPairs(
    task='pairs_tokenized', split='validation'
  )
  assert _texts(validation) == PAIRS[:1]
  limited = seqio_tasks.SeqioPairs(task='pairs_tokenized', limit=2)
  assert _texts(limited) == PAIRS[:2]


def test_other_features():
  swapped = seqio_tasks.SeqioPairs(
    task='pairs_tokenized', inputs_key='targets', targets_key='inputs'
  )
  assert _texts(swapped) == [(target, source) for source, target in PAIRS]
  alone = seqio_tasks.SeqioPairs(task='pairs_tokenized', targets_key=None)
  assert _texts(alone) == [(source, None) for source, _ in PAIRS]


def test_mixture_draws_by_its_rates():
  mixed = seqio_tasks.SeqioPairs(task='pairs_mixed', limit=400)
  drawn = _texts(mixed)
  assert drawn == _texts(mixed)
  assert len(drawn) == 400
  share = np.mean([source.startswith('x') for source, _ in drawn])
  assert abs(share - 0.75) < 0.1  # Over four standard deviations.
  assert {pair for pair in drawn if pair[0][0] != 'x'} == set(PAIRS)


def test_module_is_imported_first(tmp_path, monkeypatch):
  (tmp_path / 'my_tasks.py').write_text(
    'import seqio\n'
    "task = seqio.TaskRegistry.get('pairs_of_text')\n"
    "seqio.TaskRegistry.add('pairs_of_mine', source=task.source,\n"
    '  preprocessors=[], output_features=task.output_features)\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  mine = seqio_tasks.SeqioPairs(task='pairs_of_mine', module='my_tasks')
  assert _texts(mine) == PAIRS
  absent = seqio_tasks.SeqioPairs(task='pairs_of_mine', module='my_absent')
  with pytest.raises(ImportError, match='my_absent'):
    next(absent.read())


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'task': 'pairs_tokenised'}, "nearest are .*'pairs_tokenized'"),
    (
      {'task': 'pairs_more', 'split': 'test'},
      r"one of \['train', 'validation'",
    ),
    ({'task': 'pairs_mixed'}, 'limit must be given for the mixture'),
    ({'task': 'pairs_more', 'inputs_key': 'de'}, "inputs_key .* got 'de'"),
    ({'task': 'pairs_more', 'targets_key': 'en'}, "targets_key .* got 'en'"),
    ({'task': 'pairs_of_tokens'}, "'inputs': 'int32'.*keeps the text"),
    ({'task': 'pairs_latin'}, r"'pairs_latin'.* example 0 .* not valid UTF-8"),
  ],
)
def test_faults_while_reading(settings, message):
  pairs = seqio_tasks.SeqioPairs(**settings)
  with pytest.raises(ValueError, match=message):
    _texts(pairs)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'task': ''}, 'task must name'),
    ({'task': 'a', 'limit': 0}, 'limit must be at least 1; got 0'),
  ],
)
def test_faults_of_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    seqio_tasks.SeqioPairs(**settings)


@pytest.mark.parametrize('package', ['seqio', 'tensorflow'])
def test_missing_package_says_what_to_install(monkeypatch, package):
  monkeypatch.setitem(sys.modules, package, None)
  pairs = seqio_tasks.SeqioPairs(task='pairs_tokenized')
  with pytest.raises(ImportError, match='pip install seqio'):
    next(pairs.read())


def test_a_task_of_tfds_that_is_not_there_says_what_to_run_where(tmp_path):
  name = 'wmt_t2t_translate/de-en:1.0.0'
  for task, splits in (('pairs_tfds', None), ('pairs_tfds_split', ['train'])):
    seqio.TaskRegistry.add(
      task,
      source=seqio.TfdsDataSource(
        name, str(tmp_path), splits=splits, read_only=True
      ),
      preprocessors=[seqio.preprocessors.tokenize],
      output_features={
        'inputs': seqio.Feature(seqio.ByteVocabulary()),
        'targets': seqio.Feature(seqio.ByteVocabulary()),
      },
    )
    with pytest.raises(FileNotFoundError) as raised:
      list(seqio_tasks.SeqioPairs(task=task).read())
    assert f"'{task}' cannot be read" in str(raised.value)
    assert f"tfds.load('{name}', data_dir='{tmp_path}')" in str(raised.value)


def test_a_mixture_of_two_tasks_trains(tmp_path):
  mixed = seqio_tasks.SeqioPairs(task='pairs_mixed', limit=40)
  few = seqio_tasks.SeqioPairs(task='pairs_tokenized')
  data = single_stage.prepared(
    task_lib.Task(
      name='mixed',
      train=mixed,
      validation=few,
      test=few,
      vocabulary=vocabularies.VocabularyConfig(size=30),
    ),
    tmp_path / 'data',
  )
  assert len(data.pairs('train')) == 40
  context = context_lib.Context(
    data_folder=data.directory,
    bc_folder=tmp_path / 'bc',
    network=tiny.config(vocab_size=30),
  )
  single_stage.trained(
    bc_stage.BCConfig(
      loss=bc.BC(),
      trainer=trainer.TrainerConfig(
        max_steps=40,
        evaluate_every=20,
        log_every=5,
        tokens_per_batch=256,
        buckets=(16,),
        optimizer=optimizers.OptimizerConfig(learning_rate=0.02),
      ),
    ),
    context,
  )
  losses = [
    line['loss'] for line in journal.read_metrics(tmp_path / 'bc')
    if line['split'] == 'train'
  ]  # fmt: skip
  assert losses[-1] < losses[0] / 2


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  return folder, small_run.write(folder)


def _read(task, **options):
  dataset = task.get_dataset(split='train', sequence_length=None, **options)
  return list(dataset.as_numpy_iterator())


def _same(examples, others):
  assert len(examples) == len(others)
  for example, other in zip(examples, others, strict=True):
    assert example.keys() == other.keys()
    for key, value in example.items():
      np.testing.assert_array_equal(value, other[key])


def test_a_store_is_a_task_with_a_threshold(run):
  folder, data = run
  name = seqio_tasks.register_store(
    'store', folder / 'grow_1', threshold=0.5, reference_weight=0.5
  )
  assert name == 'store'
  task = seqio.get_mixture_or_task(name)
  rows = stored_rows.of_store(
    folder / 'grow_1', threshold=0.5, reference_weight=0.5
  ).splits['train']
  assert task.num_input_examples('train') == rows.count == 6
  examples = _read(task, shuffle=False)
  _same(
    examples,
    [
      {
        key: value.encode() if isinstance(value, str) else value
        for key, value in rows.example(number).items()
      }
      for number in range(rows.count)
    ],
  )
  _same(examples, _read(task, shuffle=False))
  # The vocabulary reads the tokens as the run does.
  vocabulary = task.output_features['targets'].vocabulary
  assert vocabulary == seqio_tasks.vocabulary(folder / 'data')
  assert vocabulary.vocab_size == data.vocabulary.size
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
  for example in examples:
    text = vocabulary.decode(example['targets'].tolist())
    assert text == example['targets_pretokenized'].decode()


def test_shuffled_rows_depend_on_the_seed_alone(run):
  folder, _ = run
  name = seqio_tasks.register_store('store_shuffled', folder / 'grow_1')
  task = seqio.get_mixture_or_task(name)
  shuffled = [_read(task, shuffle=True, seed=seed) for seed in (1, 1, 2)]
  _same(shuffled[0], shuffled[1])

  def key(example):
    return float(example['rewards']), example['inputs'].tolist()

  in_order = [key(example) for example in _read(task, shuffle=False)]
  orders = [[key(example) for example in examples] for examples in shuffled]
  assert orders[0] != orders[2] and orders[0] != in_order
  assert sorted(orders[0]) == sorted(orders[2]) == sorted(in_order)


def test_a_task_is_registered_once(run, tmp_path):
  folder, _data = run
  tasks = []
  for _ in range(2):
    seqio_tasks.register_store('once', folder / 'grow_1', threshold=0.5)
    tasks.append(seqio.get_mixture_or_task('once'))
  assert tasks[0] is tasks[1]
  with pytest.raises(ValueError, match="'once' is registered already"):
    seqio_tasks.register_store('once', folder / 'grow_1', threshold=0.6)
  with pytest.raises(ValueError, match="'pairs_more' is registered already"):
    seqio_tasks.register_pairs('pairs_more', folder / 'data')
  # One that fails leaves no task behind.
  with pytest.raises(ValueError, match='threshold must leave some rows'):
    seqio_tasks.register_store('none', folder / 'grow_1', threshold=9.0)
  assert 'none' not in seqio.TaskRegistry.names()


def test_registered_pairs_come_back_as_pairs(run):
  folder, data = run
  name = seqio_tasks.register_pairs('small_pairs', folder / 'data')
  splits = seqio.get_mixture_or_task(name).splits
  assert set(splits) == {'train', 'validation', 'test'}
  pairs = data.pairs('validation')
  read = _texts(seqio_tasks.SeqioPairs(task='small_pairs', split='validation'))
  assert read == [
    (pairs.source_text(row), pairs.reference_text(row)) for row in range(3)
  ]


def test_a_mixture_of_stores(run):
  folder, _ = run
  for name, threshold in (('store_a', 0.5), ('store_b', 0.8)):
    seqio_tasks.register_store(name, folder / 'grow_1', threshold=threshold)
  seqio.MixtureRegistry.add('stores', [('store_a', 1), ('store_b', 1)])
  dataset = seqio.get_dataset(
    'stores',
    task_feature_lengths={'inputs': 16, 'targets': 16},
    dataset_split='train',
    shuffle=True,
    seed=0,
    feature_converter=seqio.EncDecFeatureConverter(pack=True),
  )
  batch = next(dataset.as_numpy_iterator())
  assert batch['decoder_target_tokens'].shape == (16,)
  assert batch['decoder_loss_weights'].sum() > 0
