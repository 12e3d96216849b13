"""Pairs of text in several languages: sources, special ids, stored columns."""

import numpy as np
import pytest

from rest_jax.data import pair_store, sources, vocabularies
from tests.data import tokenizer_folders

_TEXTS = [f'ein kleiner Satz {n} one small sentence {n}' for n in range(200)]
_DE_EN, _EN_DE = ('deu_Latn', 'eng_Latn'), ('eng_Latn', 'deu_Latn')


@pytest.fixture(scope='module')
def nllb(tmp_path_factory):
  folder = tokenizer_folders.nllb(tmp_path_factory.mktemp('nllb'), _TEXTS)
  return vocabularies.Vocabulary(folder, vocabularies.OF_EACH_PAIR)


def _texts(languages, count=3, **fields):
  return sources.TextPairs(
    sources=[f'ein Satz {n}' for n in range(count)],
    references=[f'one sentence {n}' for n in range(count)],
    languages=languages,
    **fields,
  )


def _both():
  return sources.Concatenation(sources=(_texts(_DE_EN), _texts(_EN_DE)))


def _built(folder, source, vocabulary):
  counts = pair_store.build(
    folder,
    'train',
    source,
    vocabulary,
    max_source_length=64,
    max_target_length=64,
  )
  return counts, pair_store.PairStore.open(folder, 'train')


def _first_of(store):
  assert store.source_tokens.first_tokens is not None
  return store.source_tokens.first_tokens.tolist()


def test_rows_have_the_codes_of_their_own_languages(tmp_path, nllb):
  counts, store = _built(tmp_path, _both(), nllb)
  assert counts['languages'] == {
    'deu_Latn-eng_Latn': 3,
    'eng_Latn-deu_Latn': 3,
  }
  assert [codes.name for codes in store.languages_of([5, 0])] == [
    'eng_Latn-deu_Latn',
    'deu_Latn-eng_Latn',
  ]
  ids = nllb.language_ids
  for row, (source, target) in enumerate([_DE_EN] * 3 + [_EN_DE] * 3):
    text = nllb.encode(store.source_text(row)).tolist()
    eos = nllb.special_ids.eos
    assert store.source_tokens[row].tolist() == [ids[source], *text, eos]
    assert _first_of(store)[row] == ids[target]
    references = store.reference_tokens
    assert references is not None and references[row][0] == ids[target]


def test_rows_equal_those_of_a_run_with_one_pair(tmp_path, nllb):
  _, mixed = _built(tmp_path / 'mixed', _both(), nllb)
  alone = vocabularies.Vocabulary(nllb.path, vocabularies.Languages(*_EN_DE))
  _, one = _built(tmp_path / 'one', _texts(None), alone)
  assert one.source_tokens.first_tokens is None
  assert one.languages_of([0]) == []
  for row in range(3):
    for side in ('source_tokens', 'reference_tokens'):
      np.testing.assert_array_equal(
        getattr(mixed, side)[3 + row], getattr(one, side)[row]
      )


def test_sources_alone_bring_their_first_token(tmp_path, nllb):
  path = tmp_path / 'text'
  path.write_text('eins\nzwei\n')
  source = sources.SourceText(files=path, languages=_DE_EN)
  _, store = _built(tmp_path, source, nllb)
  english = nllb.language_ids['eng_Latn']
  assert _first_of(store) == [english, english]


def test_a_tag_before_the_source_forces_no_token(tmp_path):
  folder = tokenizer_folders.marian(tmp_path / 'given', _TEXTS)
  vocabulary = vocabularies.Vocabulary(folder, vocabularies.OF_EACH_PAIR)
  both = sources.Concatenation(
    sources=(_texts(('deu', 'eng')), _texts(('eng', 'deu')))
  )
  _, store = _built(tmp_path, both, vocabulary)
  assert store.source_tokens.first_tokens is None
  tags = [store.source_tokens[row][0] for row in (0, 3)]
  assert tags == [vocabulary.language_ids[code] for code in ('eng', 'deu')]
  assert not vocabulary.special_ids.is_first_given


def test_an_unknown_language_names_the_pair(tmp_path, nllb):
  wrong = sources.Concatenation(
    sources=(_texts(_DE_EN), _texts(('deu_Latn', 'en')))
  )
  with pytest.raises(
    ValueError, match=r"pair 4 of split 'train': target_language .* got 'en'"
  ):
    _built(tmp_path, wrong, nllb)


@pytest.mark.parametrize(
  ('own', 'of_vocabulary', 'message'),
  [
    (None, vocabularies.OF_EACH_PAIR, 'pair 1 .* must name its languages'),
    (_DE_EN, vocabularies.Languages(*_DE_EN), 'pair 1 .* may not name'),
  ],
)
def test_languages_are_those_of_pairs_or_of_the_run(
  tmp_path, nllb, own, of_vocabulary, message
):
  vocabulary = vocabularies.Vocabulary(nllb.path, of_vocabulary)
  with pytest.raises(ValueError, match=message):
    _built(tmp_path, _texts(own), vocabulary)


def test_a_tokeniser_without_languages_is_refused(tmp_path):
  folder = tokenizer_folders.pegasus(tmp_path, _TEXTS)
  with pytest.raises(ValueError, match='has no language codes'):
    vocabularies.Vocabulary(folder, vocabularies.OF_EACH_PAIR)


def test_a_decoder_that_starts_with_a_language_is_refused(tmp_path):
  folder = tokenizer_folders.mbart(tmp_path, _TEXTS)
  with pytest.raises(ValueError, match='mBART-cc25'):
    vocabularies.Vocabulary(folder, vocabularies.OF_EACH_PAIR)


def test_columns_name_the_languages_of_a_line(tmp_path):
  path = tmp_path / 'text.tsv'
  path.write_text('to\ttext\tfrom\tout\nde\ta b\ten\tc d\nen\tc\tde\ta\n')
  source = sources.TsvText(
    files=path,
    source_column='text',
    reference_column='out',
    source_language_column='from',
    target_language_column='to',
  )
  pairs = list(source.read())
  assert pairs == [
    sources.Pair('a b', 'c d', vocabularies.Languages('en', 'de')),
    sources.Pair('c', 'a', vocabularies.Languages('de', 'en')),
  ]


def test_source_and_target_have_languages_of_their_own():
  with pytest.raises(ValueError, match="must differ; both are 'of'"):
    sources.TsvText(
      files=('text.tsv',),
      source_column='text',
      source_language_column='of',
      target_language_column='of',
    )


def test_a_line_without_a_language_is_named(tmp_path):
  path = tmp_path / 'text.tsv'
  path.write_text('a\tde\ten\nb\tde\t \n')
  source = sources.TsvText(
    files=path,
    source_column=0,
    source_language_column=1,
    target_language_column=2,
  )
  with pytest.raises(ValueError, match=r"line 2 has 'de' and ' '"):
    list(source.read())


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'source_language_column': 'from'}, 'must both name columns'),
    (
      {
        'languages': _DE_EN,
        'source_language_column': 'from',
        'target_language_column': 'to',
      },
      'languages must be None where columns',
    ),
    ({'languages': ('deu_Latn',)}, 'codes of the source and of the target'),
  ],
)
def test_languages_that_cannot_be_meant_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    sources.TsvText(files=('text.tsv',), source_column='text', **fields)
