"""Tiny tokenisers of each family, in the file layout of its releases."""

import gzip
import io
import json
import pathlib

import sentencepiece

SPECIAL = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
_SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
_NAMES = (
  'tatoeba_de_en/test.de.gz',
  'tatoeba_de_en/test.en.gz',
  'tatoeba_zh_en/test.zh.gz',
)
ODD = (
  'Hello 👋🏽 world 🧑‍🚀!',
  'Cafe\u0301 A\u030angstro\u0308m n\u0303',
  '𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𒀀 𐍈 and 你好，世界。',
  'tab\there  two   spaces ',
  ' leading and trailing ',
  'Ｆｕｌｌ ｗｉｄｔｈ １２３ ﬁ ½',
  'a\u00a0b\u2009c\u200bd',
)


def train(texts, size, **settings) -> bytes:
  """Returns the bytes of a sentencepiece model."""
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=written,
    vocab_size=size,
    minloglevel=3,
    hard_vocab_limit=False,
    num_threads=1,
    character_coverage=0.99,
    **settings,
  )
  return written.getvalue()


def write(folder, config, settings, **contents) -> pathlib.Path:
  """Writes a folder: config.json, tokenizer_config.json and other files."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in (
    ('config.json', config),
    ('tokenizer_config.json', settings),
    *contents.items(),
  ):
    if content is None:
      continue
    if not isinstance(content, bytes):
      content = json.dumps(content, ensure_ascii=False).encode()
    (folder / name.replace('__', '.')).write_bytes(content)
  return folder


def nllb(folder, texts, **settings):
  return write(
    folder,
    {'model_type': 'm2m_100', 'decoder_start_token_id': 2},
    {'tokenizer_class': 'NllbTokenizer', **settings},
    sentencepiece__bpe__model=train(texts, 700, model_type='bpe'),
  )


def mbart(folder, texts):
  return write(
    folder,
    {'model_type': 'mbart'},
    {'tokenizer_class': 'MBartTokenizer'},
    sentencepiece__bpe__model=train(texts, 700),
  )


def mbart50(folder, texts, **settings):
  return write(
    folder,
    {'model_type': 'mbart', 'decoder_start_token_id': 2},
    {'tokenizer_class': 'MBart50Tokenizer', **settings},
    sentencepiece__bpe__model=train(texts, 700),
  )


def _spelt(serialized, specials):
  model = sentencepiece.SentencePieceProcessor(model_proto=serialized)
  spelt = [model.id_to_piece(i) for i in range(model.get_piece_size())]
  return [*specials, *(piece for piece in spelt if piece not in specials)]


def m2m_100(folder, texts):
  model = train(texts, 700)
  spelt = _spelt(model, ['<s>', '<pad>', '</s>', '<unk>'])
  return write(
    folder,
    {'model_type': 'm2m_100', 'decoder_start_token_id': 2},
    {'tokenizer_class': 'M2M100Tokenizer', 'language_codes': 'm2m100'},
    sentencepiece__bpe__model=model,
    vocab__json={piece: number for number, piece in enumerate(spelt)},
  )


def marian(folder, texts, tags=('>>deu<<', '>>eng<<')):
  half = len(texts) // 2
  source, target = train(texts[:half], 600), train(texts[half:], 600)
  spelt = _spelt(source, ['</s>', '<unk>', *tags])
  known = set(spelt)
  spelt += [p for p in _spelt(target, []) if p not in known]
  spelt.append('<pad>')
  pad = len(spelt) - 1
  return write(
    folder,
    {
      'model_type': 'marian',
      'pad_token_id': pad,
      'eos_token_id': 0,
      'decoder_start_token_id': pad,
      'vocab_size': len(spelt),
    },
    {'tokenizer_class': 'MarianTokenizer'},
    source__spm=source,
    target__spm=target,
    vocab__json={piece: number for number, piece in enumerate(spelt)},
  )


def pegasus(folder, texts):
  return write(
    folder,
    {'model_type': 'pegasus'},
    {'tokenizer_class': 'PegasusTokenizer'},
    spiece__model=train(texts, 700, pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
  )


def t5(folder, texts):
  return write(
    folder,
    {'model_type': 't5'},
    {'tokenizer_class': 'T5Tokenizer'},
    spiece__model=train(texts, 700, pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
  )


def mt5(folder, texts):
  """Byte pieces, and sentinels among the pieces, as mT5's model has."""
  return write(
    folder,
    {'model_type': 'mt5'},
    {'tokenizer_class': 'T5Tokenizer', 'extra_ids': 0},
    spiece__model=train(
      texts,
      900,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      byte_fallback=True,
    ),
  )


def madlad(folder, texts):
  return write(
    folder,
    {
      'model_type': 't5',
      'pad_token_id': 1,
      'eos_token_id': 2,
      'decoder_start_token_id': 0,
    },
    {
      'tokenizer_class': 'T5Tokenizer',
      'extra_ids': 0,
      'pad_token': '<s>',
      'eos_token': '</s>',
      'unk_token': '<unk>',
    },
    spiece__model=train(texts, 700, user_defined_symbols=['<2de>', '<2en>']),
  )


def byt5(folder, texts):
  del texts
  return write(
    folder, {'model_type': 't5'}, {'tokenizer_class': 'ByT5Tokenizer'}
  )


def gemma(folder, texts):
  return write(
    folder,
    {'model_type': 't5gemma'},
    {
      'tokenizer_class': 'GemmaTokenizer',
      'bos_token': '<bos>',
      'eos_token': '<eos>',
      'pad_token': '<pad>',
      'unk_token': '<unk>',
    },
    tokenizer__model=train(
      texts,
      900,
      model_type='bpe',
      pad_id=0,
      eos_id=1,
      bos_id=2,
      unk_id=3,
      eos_piece='<eos>',
      bos_piece='<bos>',
      byte_fallback=True,
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      normalization_rule_name='identity',
    ),
  )


def bart(folder, texts):
  """Byte-level BPE; needs the `tokenizers` library."""
  import tokenizers

  model = tokenizers.ByteLevelBPETokenizer()
  model.train_from_iterator(
    texts,
    vocab_size=500,
    special_tokens=['<s>', '<pad>', '</s>', '<unk>', '<mask>'],
    show_progress=False,
  )
  folder.mkdir(parents=True, exist_ok=True)
  model.save_model(str(folder))
  return write(
    folder,
    {
      'model_type': 'bart',
      'decoder_start_token_id': 2,
      'forced_bos_token_id': 0,
    },
    {'tokenizer_class': 'BartTokenizer'},
  )


FAMILIES = {
  'nllb': nllb,
  'mbart': mbart,
  'mbart50': mbart50,
  'm2m_100': m2m_100,
  'marian': marian,
  'pegasus': pegasus,
  't5': t5,
  'mt5': mt5,
  'madlad': madlad,
  'byt5': byt5,
  'gemma': gemma,
  'bart': bart,
}


def texts(count=300) -> list[str]:
  """Returns sentences in three languages, or made up without shared data."""
  found = []
  for name in _NAMES:
    path = _SHARED / name
    if path.is_file():
      with gzip.open(path, 'rt', encoding='utf-8') as lines:
        found += [line.rstrip('\n') for line in lines][:count]
  if found:
    return found
  words = [
    'ein',
    'zwei',
    'drei',
    'the',
    'cat',
    'sat',
    'on',
    'mat',
    '你好',
    '世界',
    'größer',
    'Straße',
  ]
  return [
    ' '.join(words[(i * k + k) % len(words)] for k in range(1, 9))
    for i in range(count)
  ]
