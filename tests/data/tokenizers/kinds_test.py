"""Tokenisers of every family, beside sentencepiece and transformers."""

import importlib.util
import json

import pytest
import sentencepiece

from rest_jax.data import vocabularies
from rest_jax.data.tokenizers import base, kinds
from tests.data import tokenizer_folders

_HAS_TOKENIZERS = importlib.util.find_spec('tokenizers') is not None
_LANGUAGES = {
  'nllb': ('deu_Latn', 'zho_Hans'),
  'mbart': ('de_DE', 'zh_CN'),
  'mbart50': ('de_DE', 'zh_CN'),
  'm2m_100': ('de', 'zh'),
}
_LISTED = {'extra_special_tokens': ['deu_Latn', 'eng_Latn', 'zho_Hans']}
# Pieces of the library and of transformers' own classes that are not those of
# sentencepiece: blanks at the end are a piece there, and text is stripped here.
_TEXTS = tokenizer_folders.texts(120) + [
  text.rstrip() for text in tokenizer_folders.ODD
]


@pytest.fixture(scope='module', params=sorted(tokenizer_folders.FAMILIES))
def family(request, tmp_path_factory):
  """A family's name and a folder with its tokeniser."""
  name = request.param
  if name == 'bart' and not _HAS_TOKENIZERS:
    pytest.skip('tokenizers is not installed')
  folder = tmp_path_factory.mktemp(name)
  listed = _LISTED if name == 'nllb' else {}
  tokenizer_folders.FAMILIES[name](folder, _TEXTS, **listed)
  return name, folder


def _vocabulary(family):
  name, folder = family
  languages = base.Languages(*_LANGUAGES.get(name, (None, None)))
  return vocabularies.Vocabulary(folder, languages)


def test_ids_and_text_are_those_of_transformers(family):
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  name, folder = family
  if name == 'mt5':
    pytest.skip('transformers 5 reads no byte pieces for T5Tokenizer')
  languages = _LANGUAGES.get(name)
  settings = {}
  if languages:
    settings = dict(zip(('src_lang', 'tgt_lang'), languages, strict=True))
  theirs = transformers.AutoTokenizer.from_pretrained(folder, **settings)
  ours = _vocabulary(family)
  special = set(theirs.all_special_ids)
  for text in _TEXTS:
    [ids] = ours.source.encode_batch([text])
    found = ours.source.complete(ids).tolist()
    expected = theirs(text)['input_ids']
    if name == 'madlad':  # There unknown text is EOS.
      expected = [
        ours.special_ids.unk if i == 2 else i for i in expected[:-1]
      ] + expected[-1:]
    assert found == expected, text
    if ours.special_ids.unk not in found:
      decoded = theirs.decode(ids.tolist(), skip_special_tokens=True)
      assert ours.decode(ids) == decoded
    [ids] = ours.target.encode_batch([text])
    expected = theirs(text_target=text)['input_ids']
    if name == 'mbart':  # The language begins the decoder's input.
      assert expected.pop() == ours.special_ids.decoder_start
    assert [i for i in ours.target.complete(ids) if i not in special] == [
      i for i in expected if i not in special
    ]


def test_known_text_survives(family):
  ours = _vocabulary(family)
  for text in _TEXTS[:50]:
    [ids] = ours.target.encode_batch([text])
    row = ours.target.complete(ids)
    assert ours.special_ids.pad not in row
    assert row[-1] == ours.special_ids.eos
    assert row.max() < ours.size
    if ours.special_ids.unk not in row:
      back = ours.decode([*row, *[ours.special_ids.pad] * 2])
      assert back.split() == ours.decode(ids).split()
      if name_keeps_text(family):
        assert back == text


def name_keeps_text(family) -> bool:
  """Whether the family's tokeniser gives back every known text as it is."""
  return family[0] in ('byt5', 'bart', 'gemma')


def test_fairseq_shifts_the_ids_of_sentencepiece(tmp_path):
  folder = tokenizer_folders.nllb(tmp_path, _TEXTS)
  model = sentencepiece.SentencePieceProcessor(
    model_file=str(folder / 'sentencepiece.bpe.model')
  )
  ours = vocabularies.Vocabulary(folder, base.Languages('deu_Latn', 'eng_Latn'))
  count = model.get_piece_size() + 1
  text = 'Ein Haus.'
  [ids] = ours.source.encode_batch([text])
  assert ids.tolist() == [{0: 3}.get(i, i + 1) for i in model.encode(text)]
  # NLLB's codes follow the pieces: ace_Arab is the first, deu_Latn the 42nd.
  deu, eng = count + 41, count + 46
  assert ours.source.complete(ids).tolist() == [deu, *ids, 2]
  assert ours.target.complete(ids).tolist() == [eng, *ids, 2]
  special = ours.special_ids
  assert (special.pad, special.eos, special.unk) == (1, 2, 3)
  assert (special.decoder_start, special.forced_first) == (2, eng)
  assert ours.decode([eng, *ids, 2, 1]) == model.decode(model.encode(text))


def test_released_numbers_of_languages_are_read(tmp_path):
  folder = tokenizer_folders.nllb(tmp_path, _TEXTS)
  added = [{'id': 901, 'content': 'deu_Latn'}, {'id': 900, 'content': '<mask>'}]
  (folder / 'tokenizer.json').write_text(json.dumps({'added_tokens': added}))
  ours = kinds.read(folder)
  assert ours.languages == {'deu_Latn': 901}
  assert ours.size == 902


def test_mbart_stands_the_language_last(tmp_path):
  folder = tokenizer_folders.mbart(tmp_path, _TEXTS)
  ours = vocabularies.Vocabulary(folder, base.Languages('de_DE', 'en_XX'))
  german = kinds.read(folder).languages['de_DE']
  english = kinds.read(folder).languages['en_XX']
  assert ours.source.complete([9]).tolist() == [9, 2, german]
  assert ours.target.complete([9]).tolist() == [9, 2]
  assert ours.special_ids.decoder_start == english
  assert ours.special_ids.forced_first is None


def test_pegasus_shifts_by_103(tmp_path):
  folder = tokenizer_folders.pegasus(tmp_path, _TEXTS)
  model = sentencepiece.SentencePieceProcessor(
    model_file=str(folder / 'spiece.model')
  )
  ours = vocabularies.Vocabulary(folder)
  expected = [i + 103 for i in model.encode('Ein Haus.')]
  assert ours.encode('Ein Haus.').tolist() == expected
  assert ours.special_ids.unk == 105
  assert ours.size == model.get_piece_size() + 103


def test_marian_has_a_model_for_each_side(tmp_path):
  folder = tokenizer_folders.marian(tmp_path, _TEXTS)
  ids = json.loads((folder / 'vocab.json').read_text())
  ours = vocabularies.Vocabulary(folder)
  for side, name in ((ours.source, 'source'), (ours.target, 'target')):
    model = sentencepiece.SentencePieceProcessor(
      model_file=str(folder / f'{name}.spm')
    )
    spelt = model.encode('Ein Haus.', out_type=str)
    [found] = side.encode_batch(['Ein Haus.'])
    assert found.tolist() == [ids.get(piece, ids['<unk>']) for piece in spelt]
  special = ours.special_ids
  assert special.pad == special.decoder_start == ids['<pad>']
  assert special.eos == 0
  tag = ids['>>deu<<']
  [tagged] = ours.source.encode_batch(['>>deu<< Ein Haus.'])
  assert tagged.tolist()[0] == tag
  for code in ('deu', '>>deu<<'):
    to_german = vocabularies.Vocabulary(folder, base.Languages(None, code))
    assert to_german.source.complete([7]).tolist() == [tag, 7, 0]
    assert to_german.target.complete([7]).tolist() == [7, 0]


def test_madlad_stands_the_tag_of_the_target_first(tmp_path):
  folder = tokenizer_folders.madlad(tmp_path, _TEXTS)
  tagged = vocabularies.Vocabulary(folder)
  [spelt] = tagged.source.encode_batch(['<2de> Ein Haus.'])
  ours = vocabularies.Vocabulary(folder, base.Languages(None, 'de'))
  [plain] = ours.source.encode_batch(['Ein Haus.'])
  assert ours.source.complete(plain).tolist() == [*spelt, 2]
  assert ours.target.complete(plain).tolist() == [*plain, 2]
  with pytest.raises(ValueError, match=r"one of the 4 language codes .* 'fr'"):
    _ = vocabularies.Vocabulary(folder, base.Languages(None, 'fr')).source


def test_t5_folders_add_sentinels(tmp_path):
  folder = tokenizer_folders.t5(tmp_path, _TEXTS)
  alone = vocabularies.Vocabulary(folder / 'spiece.model')
  ours = vocabularies.Vocabulary(folder)
  assert ours.size == alone.size + 100
  found = ours.encode('Ein <extra_id_0> Haus').tolist()
  first = alone.size + 99
  assert found == [
    *alone.encode('Ein'), first, *alone.encode('Haus')
  ]  # fmt: skip
  assert (
    ours.decode(found).split()
    == alone.decode([i for i in found if i != first]).split()
  )


def test_bytes_of_utf8(tmp_path):
  ours = vocabularies.Vocabulary(tokenizer_folders.byt5(tmp_path, ()))
  assert ours.encode('aé').tolist() == [100, 0xC3 + 3, 0xA9 + 3]
  # Half a character is left out.
  assert ours.decode([100, 0xC3 + 3]) == 'a'
  assert ours.size == 384


def test_byte_pieces_stand_for_what_has_none(tmp_path):
  ours = vocabularies.Vocabulary(tokenizer_folders.mt5(tmp_path, _TEXTS))
  found = ours.encode('𐍈')
  assert ours.special_ids.unk not in found
  assert ours.decode(found) == '𐍈'


@pytest.mark.skipif(not _HAS_TOKENIZERS, reason='tokenizers is not installed')
def test_bart_keeps_ends_for_the_ends_of_rows(tmp_path):
  ours = vocabularies.Vocabulary(tokenizer_folders.bart(tmp_path, _TEXTS))
  assert ours.source.complete([9]).tolist() == [0, 9, 2]
  assert ours.special_ids.forced_first == 0
  spelt = ours.encode('a</s>b<pad>')
  assert not {1, 2} & set(spelt.tolist())
  assert ours.decode(spelt) == 'a</s>b<pad>'


@pytest.mark.parametrize(
  ('languages', 'message'),
  [
    (('deu_Latn', None), 'target_language must be one of the 202 .* got None'),
    (('de', 'eng_Latn'), "source_language must be one of .* got 'de'"),
  ],
)
def test_an_unknown_language_is_named(tmp_path, languages, message):
  folder = tokenizer_folders.nllb(tmp_path, _TEXTS)
  ours = vocabularies.Vocabulary(folder, base.Languages(*languages))
  with pytest.raises(ValueError, match=message):
    _ = ours.source


def test_languages_of_a_tokeniser_without_any_are_refused(tmp_path):
  folder = tokenizer_folders.pegasus(tmp_path, _TEXTS)
  with pytest.raises(
    ValueError, match=r"has no language codes; got None and 'de'"
  ):
    vocabularies.Vocabulary(folder, base.Languages(None, 'de'))


def test_a_folder_without_a_tokeniser_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(FileNotFoundError, match=r'holds config\.json'):
    kinds.read(tmp_path)


def test_a_copy_has_all_files_and_the_same_digest(tmp_path):
  folder = tokenizer_folders.marian(tmp_path / 'given', _TEXTS)
  config = vocabularies.VocabularyConfig(
    model_file=str(folder), target_language='deu'
  )
  made = vocabularies.make(config, [], tmp_path / 'data')
  assert made.path == tmp_path / 'data' / 'vocabulary'
  assert {path.name for path in made.files} == {
    'source.spm',
    'target.spm',
    'vocab.json',
    'config.json',
    'tokenizer_config.json',
  }
  given = vocabularies.Vocabulary(folder)
  assert made.digest == given.digest
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**config, 'd_model': 9}))
  assert vocabularies.Vocabulary(folder).digest == given.digest
  (folder / 'target.spm').write_bytes((folder / 'source.spm').read_bytes())
  assert vocabularies.Vocabulary(folder).digest != given.digest
