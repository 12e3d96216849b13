"""Preparation warns of text that would spoil training or results."""

import random

import pytest

from rest_jax.data import sources, task, vocabularies
from rest_jax.stages import base, prepare
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.synthetic import corpus
from tests import single_stage


def _texts(count, seed=0):
  """Pairs whose sides have related lengths."""
  draw = random.Random(seed)
  pairs = []
  for _ in range(count):
    words = [
      ''.join(draw.choices('abcdeghiklmnorstu', k=4))
      for _ in range(draw.randint(1, 20))
    ]
    pairs.append((' '.join(words) + '.', ' '.join(reversed(words)) + '.'))
  return pairs


def _prepare(tmp_path, train, **limits):
  few = _texts(20, seed=1)

  def pairs(texts):
    return sources.TextPairs(
      sources=[source for source, _ in texts],
      references=[reference for _, reference in texts],
    )

  single_stage.prepared(
    task.Task(
      name='small',
      train=train if hasattr(train, 'read') else pairs(train),
      validation=limits.pop('validation', None) or pairs(few),
      test=pairs(few),
      vocabulary=limits.pop(
        'vocabulary', vocabularies.VocabularyConfig(size=60)
      ),
      **limits,
    ),
    tmp_path / 'data',
  )
  manifest = folder_lib.read_manifest(tmp_path / 'data')
  return manifest[folder_lib.WARNINGS]


def test_sound_text_has_no_warning(tmp_path):
  assert _prepare(tmp_path, _texts(300)) == []


def test_many_dropped_pairs_and_what_would_keep_them(tmp_path):
  warnings = _prepare(
    tmp_path, _texts(300), max_source_length=40, max_target_length=45
  )
  message = next(text for text in warnings if text.startswith('train'))
  counts = folder_lib.read_manifest(tmp_path / 'data')['splits']['train']
  dropped = counts['dropped_long']
  assert 30 < dropped == counts['read'] - counts['kept']
  assert f'{dropped} of 300 pairs ({dropped / 300:.1%})' in message
  needed = counts['lengths_of_95_percent']
  assert f'max_source_length={needed[0]} (now 40)' in message
  assert f'max_target_length={needed[1]} (now 45)' in message


def test_few_dropped_pairs_only_matter_where_they_are_measured(tmp_path):
  empty = [('abel', '')]
  validation = sources.TextPairs(
    sources=['abel', 'laus', 'die'], references=['', 'laus', 'die']
  )
  [message] = _prepare(tmp_path, _texts(99) + empty, validation=validation)
  assert message.startswith('validation: 1 of 3 pairs (33.3%) were dropped')
  assert '1 have an empty side' in message


def test_dropped_pairs_of_a_further_test_set_always_warn(tmp_path):
  more = sources.TextPairs(sources=['die', 'laus'], references=['die', ''])
  [message] = _prepare(tmp_path, _texts(99), more_tests={'test_2017': more})
  assert message.startswith('test_2017: 1 of 2 pairs (50.0%) were dropped')


def test_only_its_own_evaluations_read_a_test_set_that_is_added(tmp_path):
  one, two = (
    sources.TextPairs(sources=['die'], references=[text])
    for text in ('die', 'laus')
  )
  _prepare(tmp_path / 'none', _texts(99))
  _prepare(tmp_path / 'one', _texts(99), more_tests={'test_2017': one})
  _prepare(tmp_path / 'two', _texts(99), more_tests={'test_2017': two})
  none, one, two = (
    prepare.load(tmp_path / name / 'data') for name in ('none', 'one', 'two')
  )
  assert none.digest == one.digest == two.digest == one.digest_of('test')
  digests = {data.digest_of('test_2017') for data in (one, two)}
  assert len({*digests, none.digest}) == 3


def test_policies_are_not_measured_on_one_kept_pair(tmp_path):
  train = sources.TextPairs(
    sources=[source for source, _ in _texts(99)],
    references=[reference for _, reference in _texts(99)],
  )
  test = sources.TextPairs(sources=['abel', 'laus'], references=['abel', ''])
  stage = prepare.Prepare(
    task=task.Task(
      name='small',
      train=train,
      validation=train,
      test=test,
      vocabulary=vocabularies.VocabularyConfig(size=60),
    ),
    measured=('validation', 'test'),
    folder=tmp_path / 'data',
  )
  context = context_lib.Context(data_folder=stage.folder)
  with pytest.raises(ValueError, match=r'test split must keep .* got 1'):
    base.run_stage(stage, context)


def test_files_that_have_changed_since_are_named(tmp_path, caplog):
  for side, name in enumerate(('a.de', 'a.en')):
    lines = [pair[side] for pair in _texts(99)]
    (tmp_path / name).write_text('\n'.join(lines))
  train = sources.ParallelText(
    source_files='a.de', reference_files='a.en', folder=tmp_path
  )

  def messages():
    caplog.clear()
    _prepare(tmp_path, train)
    return [m for m in caplog.messages if 'has changed since' in m]

  assert messages() == []
  (tmp_path / 'a.de').touch()
  assert messages() == []
  text = (tmp_path / 'a.en').read_text()
  (tmp_path / 'a.en').write_text(text.replace('a', 'b'))
  [message] = messages()
  assert f'data: {tmp_path / "a.en"} has changed since it was read' in message
  (tmp_path / 'a.en').unlink()
  assert messages() == []


def test_misaligned_lines_are_named(tmp_path):
  texts = _texts(600)
  sides = [list(side) for side in zip(*texts, strict=True)]
  sides[1][201:350] = sides[1][200:349]
  for name, side in zip(('train.de', 'train.en'), sides, strict=True):
    (tmp_path / name).write_text('\n'.join(side) + '\n')
  files = sources.ParallelText(
    source_files='train.de', reference_files='train.en', folder=tmp_path
  )
  [message] = _prepare(tmp_path, files)
  assert message.startswith('train: about ')
  assert f'of {tmp_path}/train.de and {tmp_path}/train.en' in message
  assert 'with the reference 1 line later' in message


@pytest.mark.parametrize('kind', ['spaces', 'escaped'])
def test_tokenised_references(tmp_path, kind):
  texts = _texts(300)
  for row in range(0, 300, 4):
    source, reference = texts[row]
    if kind == 'spaces':
      reference = reference.replace('.', ' .')
    else:
      reference = f'&quot;{reference}&quot;'
    texts[row] = source, reference
  [message] = _prepare(tmp_path, texts)
  assert message.startswith('train: 25% of the references look tokenised')
  assert 'detokenise' in message


def test_the_built_in_language_is_written_so(tmp_path):
  pairs = corpus.SyntheticPairs(split='train', size=600)
  assert _prepare(tmp_path, pairs) == []


def test_references_that_the_vocabulary_cannot_write(tmp_path):
  # Wide marks become narrow ones under the usual rule.
  texts = [
    (source, reference.replace(' ', '，')) for source, reference in _texts(300)
  ]
  validation = sources.TextPairs(
    sources=[source for source, _ in texts[:50]],
    references=[reference for _, reference in texts[:50]],
  )
  warnings = _prepare(tmp_path, texts, validation=validation)
  [message] = [text for text in warnings if text.startswith('validation')]
  assert 'characters that the vocabulary cannot write (，)' in message
  assert "normalization_rule = 'identity'" in message
  vocabulary = vocabularies.VocabularyConfig(
    size=60, normalization_rule='identity'
  )
  warnings = _prepare(
    tmp_path / 'kept', texts, validation=validation, vocabulary=vocabulary
  )
  assert warnings == []
