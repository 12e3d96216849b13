"""Tests of SeqioPairs on small tasks registered here."""

import sys

import numpy as np
import pytest
import seqio
import tensorflow as tf

from rest_jax.data import seqio_tasks, sources

PAIRS = [('ein Haus', 'a house'), ('Grüße …', 'greetings'), ('drei', 'three')]
SPLITS = ('train', 'validation')


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


def _register(name, pairs, preprocessors, dtype=tf.int32, rank=1, extra=b''):
  vocabulary = seqio.ByteVocabulary()
  if dtype == tf.string:
    vocabulary = seqio.PassThroughVocabulary(1)
  feature = seqio.Feature(
    vocabulary, dtype=dtype, rank=rank, add_eos=False, required=False
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


_TOKENIZE = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
_register('pairs_tokenized', PAIRS, _TOKENIZE)
_register('pairs_of_text', PAIRS, [], dtype=tf.string, rank=0)
_register('pairs_more', [(f'x{i}', f'y{i}') for i in range(5)], _TOKENIZE)
_register('pairs_of_tokens', PAIRS, [_tokenize_without_copy])
_register('pairs_latin', PAIRS, _TOKENIZE, extra=b'\xe4')
seqio.MixtureRegistry.add(
  'pairs_mixed', [('pairs_tokenized', 1), ('pairs_more', 3)]
)


@pytest.mark.parametrize('task', ['pairs_tokenized', 'pairs_of_text'])
def test_text_of_a_task(task):
  pairs = seqio_tasks.SeqioPairs(task=task)
  assert isinstance(pairs, sources.PairSource)
  assert list(pairs.read()) == PAIRS
  assert list(pairs.read()) == PAIRS  # The same again.
  assert isinstance(next(pairs.read()), sources.Pair)


def test_split_and_limit():
  validation = seqio_tasks.SeqioPairs(
    task='pairs_tokenized', split='validation'
  )
  assert list(validation.read()) == PAIRS[:1]
  limited = seqio_tasks.SeqioPairs(task='pairs_tokenized', limit=2)
  assert list(limited.read()) == PAIRS[:2]


def test_other_features():
  swapped = seqio_tasks.SeqioPairs(
    task='pairs_tokenized', inputs_key='targets', targets_key='inputs'
  )
  assert list(swapped.read()) == [(target, source) for source, target in PAIRS]
  alone = seqio_tasks.SeqioPairs(task='pairs_tokenized', targets_key=None)
  assert list(alone.read()) == [(source, None) for source, _ in PAIRS]


def test_mixture_draws_by_its_rates():
  mixed = seqio_tasks.SeqioPairs(task='pairs_mixed', limit=400)
  drawn = list(mixed.read())
  assert drawn == list(mixed.read())
  assert len(drawn) == 400
  share = np.mean([source.startswith('x') for source, _ in drawn])
  assert abs(share - 0.75) < 0.1  # Over four standard deviations.
  assert {pair for pair in drawn if pair.source[0] != 'x'} == set(PAIRS)


def test_module_is_imported_first(tmp_path, monkeypatch):
  (tmp_path / 'my_tasks.py').write_text(
    'import seqio\n'
    "task = seqio.TaskRegistry.get('pairs_of_text')\n"
    "seqio.TaskRegistry.add('pairs_of_mine', source=task.source,\n"
    '  preprocessors=[], output_features=task.output_features)\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  mine = seqio_tasks.SeqioPairs(task='pairs_of_mine', module='my_tasks')
  assert list(mine.read()) == PAIRS
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
    list(pairs.read())


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
