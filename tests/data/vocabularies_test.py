"""Tests of the vocabularies."""

import dataclasses
import gzip
import hashlib
import io
import random
import re

import numpy as np
import pytest
import sentencepiece

from rest_jax.data import vocabularies, vocabulary_training

_CONFIG = vocabularies.VocabularyConfig(size=40, num_threads=2)


def _train_with(texts, **settings) -> bytes:
  """Trains a model directly, with ids of one's own."""
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=written,
    vocab_size=40,
    minloglevel=3,
    **settings,
  )
  return written.getvalue()


@pytest.mark.parametrize('model_type', ['unigram', 'bpe'])
def test_training_twice_gives_the_same_bytes(tmp_path, texts, model_type):
  config = dataclasses.replace(_CONFIG, model_type=model_type)
  a = vocabularies.train(config, texts, tmp_path / 'a.model')
  b = vocabularies.train(config, iter(texts), tmp_path / 'deep' / 'b.model')
  content = (tmp_path / 'a.model').read_bytes()
  assert content == (tmp_path / 'deep' / 'b.model').read_bytes()
  assert a.digest == b.digest == hashlib.sha256(content).hexdigest()
  assert str(tmp_path).encode() not in content
  assert a.size == 40
  other = dataclasses.replace(config, size=41)
  c = vocabularies.train(other, texts, tmp_path / 'c.model')
  assert c.digest != a.digest


def test_training_makes_no_noise(tmp_path, texts, capfd):
  vocabularies.train(_CONFIG, texts, tmp_path / 'a.model')
  with pytest.raises(ValueError, match='size must be at most'):
    vocabularies.train(
      dataclasses.replace(_CONFIG, size=100_000), texts, tmp_path / 'a.model'
    )
  captured = capfd.readouterr()
  assert captured.out == ''
  assert captured.err == ''


def test_text_survives(vocabulary, texts):
  rows = vocabulary.encode_batch(texts)
  assert vocabulary.decode_batch(rows) == texts
  for text, row in zip(texts[:20], rows, strict=False):
    assert row.dtype == np.int32
    np.testing.assert_array_equal(vocabulary.encode(text), row)
    assert vocabulary.decode(row) == text
    # Neither PAD nor EOS nor, for known letters, UNK.
    assert row.min() > 2
    assert row.max() < vocabulary.size


def test_decoding_stops_at_eos_and_skips_pad(vocabulary):
  ids = vocabulary.encode('abc de').tolist()
  assert vocabulary.decode([*ids, 1, *ids]) == 'abc de'
  assert vocabulary.decode([0, *ids, 0, 0]) == 'abc de'
  assert vocabulary.decode(np.array([*ids, 1, 0, 0], np.uint16)) == 'abc de'
  assert vocabulary.decode([]) == ''
  assert vocabulary.decode([1, *ids]) == ''
  assert vocabulary.decode_batch([]) == []
  assert vocabulary.decode_batch([[], ids, [1]]) == ['', 'abc de', '']


def test_ids_beyond_the_vocabulary_read_as_unknown(vocabulary):
  unknown = vocabulary.decode([2])
  assert '⁇' in unknown
  for ids in (
    [vocabulary.size],
    [100_000],
    [-1],
    np.array([65_535], np.uint16),
  ):
    assert vocabulary.decode(ids) == unknown
  assert vocabulary.decode([vocabulary.size - 1]) != unknown


def test_odd_text_is_encoded(vocabulary):
  for text in ('', '  ', '\u200b'):
    assert vocabulary.encode(text).shape == (0,)
  assert 2 in vocabulary.encode('好')
  assert vocabulary.encode('\u2028a\0b\x85').dtype == np.int32


def test_extra_files_and_coverage(tmp_path, texts):
  extra = tmp_path / 'extra.gz'
  extra.write_bytes(gzip.compress(b'xyz xyz zyx\n' * 100))
  config = dataclasses.replace(_CONFIG, extra_files=str(extra))
  assert config.extra_files == (str(extra),)
  with_extra = vocabularies.train(config, texts, tmp_path / 'a.model')
  without = vocabularies.train(_CONFIG, texts, tmp_path / 'b.model')
  assert 2 not in with_extra.encode('xyz')
  assert 2 in without.encode('xyz')
  rare = [*texts, '好']
  config = dataclasses.replace(_CONFIG, character_coverage=0.999)
  assert 2 in vocabularies.train(config, rare, tmp_path / 'c').encode('好')
  config = dataclasses.replace(_CONFIG, character_coverage=1.0)
  assert 2 not in vocabularies.train(config, rare, tmp_path / 'd').encode('好')


def test_normalisation_is_a_setting(tmp_path, texts):
  texts = [*texts, 'Ａ A']
  plain = dataclasses.replace(_CONFIG, normalization_rule='identity')
  kept = vocabularies.train(plain, texts, tmp_path / 'a')
  assert kept.decode(kept.encode('Ａ')) == 'Ａ'
  folded = vocabularies.train(_CONFIG, texts, tmp_path / 'b')
  assert folded.decode(folded.encode('Ａ')) == 'A'


def test_more_texts_than_the_maximum_are_sampled(tmp_path, texts):
  config = dataclasses.replace(_CONFIG, max_texts=100)
  a = vocabularies.train(config, texts, tmp_path / 'a')
  b = vocabularies.train(config, texts, tmp_path / 'b')
  first = vocabularies.train(_CONFIG, texts[:100], tmp_path / 'c')
  assert a.digest == b.digest
  assert a.digest != first.digest


@pytest.mark.parametrize('model_type', ['unigram', 'bpe'])
def test_an_unattainable_size_names_the_largest(tmp_path, texts, model_type):
  config = dataclasses.replace(_CONFIG, size=20_000, model_type=model_type)
  with pytest.raises(ValueError, match='got 20000') as error:
    vocabularies.train(config, texts, tmp_path / 'a')
  largest = int(re.search(r'size must be at most (\d+)', str(error.value))[1])
  assert not (tmp_path / 'a').exists()
  config = dataclasses.replace(config, size=largest)
  assert vocabularies.train(config, texts, tmp_path / 'a').size == largest
  with pytest.raises(ValueError, match=f'at most {largest}'):
    vocabularies.train(
      dataclasses.replace(config, size=largest + 1), texts, tmp_path / 'a'
    )


def test_a_size_below_the_characters_names_the_smallest(tmp_path, texts):
  # Eight letters, the word mark, PAD, EOS and UNK.
  with pytest.raises(ValueError, match=r'size must be at least 12 .* got 11'):
    vocabularies.train(
      dataclasses.replace(_CONFIG, size=11), texts, tmp_path / 'a'
    )
  config = dataclasses.replace(_CONFIG, size=12)
  assert vocabularies.train(config, texts, tmp_path / 'a').size == 12


@pytest.mark.parametrize('texts', [[], ['', '  ', '\u2028'], ['\u200b']])
def test_no_text_is_an_error(tmp_path, texts):
  with pytest.raises(ValueError, match=r'(hold|from) (some )?text'):
    vocabularies.train(_CONFIG, texts, tmp_path / 'a')


def test_an_existing_model_is_copied(tmp_path, texts, vocabulary):
  existing = tmp_path / 'given.model'
  existing.write_bytes(
    _train_with(texts, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
  )
  config = vocabularies.VocabularyConfig(model_file=str(existing))

  def unread():
    raise AssertionError('texts must not be read')
    yield ''

  copied = vocabularies.train(config, unread(), tmp_path / 'vocab.model')
  assert (tmp_path / 'vocab.model').read_bytes() == existing.read_bytes()
  assert copied.digest == vocabularies.Vocabulary(existing).digest


def test_an_existing_model_with_other_ids_is_refused(tmp_path, texts):
  existing = tmp_path / 'given.model'
  existing.write_bytes(_train_with(texts))
  config = vocabularies.VocabularyConfig(model_file=str(existing))
  message = 'pad_id 0, eos_id 1, unk_id 2; .* pad_id -1, eos_id 2, unk_id 0'
  with pytest.raises(ValueError, match=message):
    vocabularies.train(config, [], tmp_path / 'vocab.model')
  with pytest.raises(ValueError, match=message):
    vocabularies.Vocabulary(existing)
  assert not (tmp_path / 'vocab.model').exists()


def test_a_missing_or_damaged_model_is_an_error(tmp_path, texts):
  path = tmp_path / 'given.model'
  config = vocabularies.VocabularyConfig(model_file=str(path))
  with pytest.raises(FileNotFoundError, match=r'model_file .*given\.model'):
    vocabularies.train(config, [], tmp_path / 'vocab.model')
  whole = _train_with(texts, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
  for content in (b'not a model', b'', whole[: len(whole) // 2]):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'model_file .*given\.model'):
      vocabularies.Vocabulary(path)


def test_a_missing_extra_file_is_named(tmp_path, texts):
  config = dataclasses.replace(_CONFIG, extra_files=('/none/x',))
  with pytest.raises(FileNotFoundError, match=r'extra_files .* /none/x'):
    vocabularies.train(config, texts, tmp_path / 'a')


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ({'size': 3}, 'size must be at least 4'),
    ({'character_coverage': 0.5}, 'character_coverage must be in'),
    ({'character_coverage': 1.1}, 'character_coverage must be in'),
    ({'model_type': 'word'}, r"model_type must be one of \('unigram', 'bpe'\)"),
    ({'normalization_rule': 'x'}, 'normalization_rule must be one of'),
    ({'max_texts': 0}, 'max_texts must be at least 1'),
    ({'num_threads': 0}, 'num_threads must be at least 1'),
  ],
)
def test_wrong_settings_are_refused(setting, message):
  with pytest.raises(ValueError, match=message):
    vocabularies.VocabularyConfig(**setting)


@pytest.mark.parametrize('seed', range(5))
def test_batches_agree_with_single_rows(vocabulary, seed):
  draw = random.Random(seed)
  rows = [
    [draw.randrange(0, 60) for _ in range(draw.randrange(12))]
    for _ in range(30)
  ]
  assert vocabulary.decode_batch(rows) == [vocabulary.decode(r) for r in rows]


@pytest.mark.parametrize('model_type', ['unigram', 'bpe'])
@pytest.mark.parametrize('blank', [' ', ''])
def test_long_lines_are_learned_from(tmp_path, texts, model_type, blank):
  config = dataclasses.replace(_CONFIG, model_type=model_type)
  # Each is longer than the 4,192 bytes that sentencepiece reads.
  long = [blank.join(texts) * 20 for _ in range(3)]
  assert min(len(text) for text in long) > 2 * 4192
  alone = vocabularies.train(config, long, tmp_path / 'long.model')
  assert alone.size == 40
  # Beside short lines they count as well: only they have these letters.
  some = vocabularies.train(
    config, [*texts, 'ÄÖÜ' * 5_000], tmp_path / 'some.model'
  )
  assert some.decode(some.encode('ÄÖÜ')) == 'ÄÖÜ'


def test_no_text_is_lost_in_parts():
  words = ' '.join(str(number) for number in range(3_000))
  for text in (words, words.replace(' ', ''), '天' * 5_000, 'a' * 4192):
    parts = list(vocabulary_training._readable([text]))
    assert ''.join(parts) == text
    assert max(len(part.encode()) for part in parts) <= 4192
  parts = list(vocabulary_training._readable([words]))
  assert [word for part in parts for word in part.split()] == words.split()


def test_lines_with_the_reserved_character_are_learned_from(tmp_path, texts):
  vocabulary = vocabularies.train(
    _CONFIG, [*texts, *['ÄÖ ▅ Ü'] * 50], tmp_path / 'a.model'
  )
  assert vocabulary.decode(vocabulary.encode('ÄÖ Ü')) == 'ÄÖ Ü'


@pytest.mark.parametrize(
  ('texts', 'message'),
  [
    (['\u200b'] * 20, 'hold text that is left once it is normalised'),
    (['ab', 'a\ud800b'], 'half of a surrogate pair at character 1'),
  ],
)
def test_unusable_text_is_said(tmp_path, texts, message):
  with pytest.raises(ValueError, match=message):
    vocabularies.train(_CONFIG, texts, tmp_path / 'a.model')
