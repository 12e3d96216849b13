"""The tokenizer of a Hugging Face folder."""

import io
import json
import random
import re

import pytest
import sentencepiece

from rest_jax.data import vocabularies
from rest_jax.interop import tokenizer_files
from tests.data import tokenizer_folders

_LETTERS = 'abcdeßäö中文'


@pytest.fixture(scope='module')
def texts():
  draw = random.Random(0)

  def word():
    return ''.join(draw.choice(_LETTERS) for _ in range(draw.randint(1, 6)))

  return [' '.join(word() for _ in range(8)) for _ in range(300)]


def _train(texts, path, **settings):
  written = io.BytesIO()
  usual = {'vocab_size': 90, 'pad_id': 0, 'eos_id': 1, 'unk_id': 2}
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=written,
    minloglevel=3,
    hard_vocab_limit=False,
    **{**usual, 'bos_id': -1, **settings},
  )
  path.write_bytes(written.getvalue())
  return path


def test_files(tmp_path, texts):
  path = _train(texts, tmp_path / 'vocab.model')
  tokenizer_files.write(tmp_path / 'hf', path, 93)
  names = {file.name for file in (tmp_path / 'hf').iterdir()}
  assert names == {
    'spiece.model',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'generation_config.json',
  }
  assert (tmp_path / 'hf/spiece.model').read_bytes() == path.read_bytes()
  config = json.loads((tmp_path / 'hf/tokenizer_config.json').read_text())
  assert config['tokenizer_class'] == 'T5Tokenizer'
  assert config['extra_ids'] == 0
  assert [config[f'{name}_token'] for name in ('pad', 'eos', 'unk')] == [
    '<pad>',
    '</s>',
    '<unk>',
  ]
  generation = json.loads((tmp_path / 'hf/generation_config.json').read_text())
  assert generation['suppress_tokens'] == [0, 2, 90, 91, 92]


@pytest.mark.parametrize(
  'rule', ['nmt_nfkc', 'nmt_nfkc_cf', 'nfkc', 'identity']
)
def test_transformers_gives_the_same_ids(tmp_path, texts, rule):
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  config = vocabularies.VocabularyConfig(size=90, normalization_rule=rule)
  ours = vocabularies.train(config, texts, tmp_path / 'vocab.model')
  tokenizer_files.write(tmp_path, tmp_path / 'vocab.model', 90)
  (tmp_path / 'config.json').write_text('{"model_type": "t5"}')
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert len(theirs) == ours.size
  assert theirs.pad_token_id == 0
  assert theirs.eos_token_id == 1
  assert theirs.unk_token_id == 2
  odd = ['', '  abc   de ', 'ABC Ä', 'xyz abc', 'ａｂｃ ①', 'a.b,c']
  for text in [*texts[:40], *odd]:
    ids = theirs(text)['input_ids']
    assert ids == [*ours.encode(text), 1], text
    if 2 not in ids:
      decoded = theirs.decode(ids, skip_special_tokens=True)
      assert decoded == ours.decode(ids)


def test_added_tokens_are_found(tmp_path):
  assert tokenizer_files.added_tokens(tmp_path, 90) == []
  entries = {'1': '</s>', '90': '<extra_id_0>', '91': '<2de>'}
  decoder = {key: {'content': text} for key, text in entries.items()}
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'added_tokens_decoder': decoder})
  )
  (tmp_path / 'added_tokens.json').write_text('{"<2fr>": 92}')
  assert tokenizer_files.added_tokens(tmp_path, 90) == ['<2de>', '<2fr>']


def test_special_tokens_that_are_spelt_in_text(tmp_path, texts):
  """Ours reads the letters; transformers reads the token, as documented."""
  path = _train(texts, tmp_path / 'vocab.model')
  ours = vocabularies.Vocabulary(path)
  for text in ('abc </s> de', 'a</s>b', '<pad>abc', '<unk>'):
    assert not {0, 1} & set(ours.encode(text).tolist())
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  tokenizer_files.write(tmp_path, path, 90)
  (tmp_path / 'config.json').write_text('{"model_type": "t5"}')
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert theirs('abc </s> de')['input_ids'].count(1) == 2
  assert 0 in theirs('<pad>abc')['input_ids']


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'model_type': 'bpe'}, 'model_type of the sentencepiece model'),
    ({'byte_fallback': True, 'vocab_size': 400}, 'byte_fallback'),
    ({'add_dummy_prefix': False}, 'add_dummy_prefix'),
    ({'remove_extra_whitespaces': False}, 'remove_extra_whitespaces'),
    ({'pad_id': 3}, 'must have pad_id 0'),
  ],
)
def test_what_the_tokenizer_would_cut_otherwise(
  tmp_path, texts, settings, message
):
  path = _train(texts, tmp_path / 'vocab.model', **settings)
  with pytest.raises(ValueError, match=re.escape(message)):
    tokenizer_files.write(tmp_path / 'hf', path, 500)
  assert not (tmp_path / 'hf').exists()


def test_a_vocabulary_that_is_too_large(tmp_path, texts):
  path = _train(texts, tmp_path / 'vocab.model')
  with pytest.raises(ValueError, match=r'at most the 89 pieces .* has 90'):
    tokenizer_files.write(tmp_path / 'hf', path, 89)


def test_the_files_of_another_family_go_out_as_they_are(tmp_path):
  given = tokenizer_folders.nllb(
    tmp_path / 'given',
    tokenizer_folders.texts(100),
    extra_special_tokens=['deu_Latn', 'eng_Latn'],
  )
  read = vocabularies.Vocabulary(given)
  english = read.language_ids['eng_Latn']
  out = tmp_path / 'out'
  out.mkdir()
  config = {'model_type': 'm2m_100', 'forced_bos_token_id': english}
  (out / 'config.json').write_text(json.dumps(config))
  tokenizer_files.write(out, given, read.size + 2)
  assert json.loads((out / 'config.json').read_text()) == config
  assert vocabularies.Vocabulary(out).digest == read.digest
  generation = json.loads((out / 'generation_config.json').read_text())
  assert generation == {
    'decoder_start_token_id': 2,
    'pad_token_id': 1,
    'eos_token_id': 2,
    'forced_bos_token_id': english,
    'suppress_tokens': [1, 3, read.size, read.size + 1],
    'max_length': 128,
  }
  settings = json.loads((out / 'tokenizer_config.json').read_text())
  assert settings['tgt_lang'] == 'eng_Latn'
  with pytest.raises(ValueError, match='must have at most the'):
    tokenizer_files.write(out, given, read.size - 1)


def test_an_m2m_100_lists_its_languages(tmp_path):
  given = tokenizer_folders.m2m_100(
    tmp_path / 'given', tokenizer_folders.texts(100)
  )
  read = vocabularies.Vocabulary(given)
  out = tmp_path / 'out'
  out.mkdir()
  tokenizer_files.write(out, given, read.size + 2)
  settings = json.loads((out / 'tokenizer_config.json').read_text())
  listed = {
    token['content']: int(number)
    for number, token in settings['added_tokens_decoder'].items()
  }
  assert listed['__de__'] == read.language_ids['de']
  assert len(listed) == len(read.language_ids)
  assert settings['num_madeup_words'] == 2
  assert vocabularies.Vocabulary(out).digest == read.digest


@pytest.mark.parametrize('name', ['t5', 'madlad', 'marian', 'byt5', 'none'])
def test_the_tokenizer_beside_weights(tmp_path, name):
  if name == 'none':
    described = {'model_type': 't5'}
    with pytest.raises(FileNotFoundError, match='has no tokenizer beside'):
      tokenizer_files.find(tmp_path, described)
    given = tokenizer_files.find(tmp_path, described, 'x/spiece.model')
    assert str(given) == 'x/spiece.model'
    return
  folder = tokenizer_folders.FAMILIES[name](
    tmp_path / name, tokenizer_folders.texts(100)
  )
  described = json.loads((folder / 'config.json').read_text())
  # A T5's sentencepiece model says all of it.
  expected = folder / 'spiece.model' if name == 't5' else folder
  assert tokenizer_files.find(folder, described) == expected
