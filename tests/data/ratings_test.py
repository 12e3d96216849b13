"""Tests of ratings by people."""

import gzip

import numpy as np
import pytest

from rest_jax.data import ratings

_HEADER = (
  'split\tsource\thypothesis\tscore\tannotators\tlang_pair\tscore_type\tmore'
)
_GOOD = (
  'train\tein Haus\t"a house\t0.5\t1\tde-en\tDA-z\tx',
  'train\tein Hund\ta dog\t-1e-1\t15+\tde-en\tDA-z\t',
  'dev\tzwei\ttwo\t2\t3\tde-en\tDA-z\tx',
)


@pytest.fixture
def read(tmp_path):
  """Reads ratings of given lines."""

  def read_lines(*lines, name='r.tsv', header=_HEADER, **settings):
    path = tmp_path / name
    content = ''.join(line + '\n' for line in (header, *lines)).encode()
    path.write_bytes(
      gzip.compress(content) if path.suffix == '.gz' else content
    )
    return ratings.RatingsFile(path=str(path), **settings).read()

  return read_lines


@pytest.mark.parametrize('name', ['r.tsv', 'r.tsv.gz'])
def test_rows_as_they_stand(read, name):
  made = read(*_GOOD, name=name)
  assert len(made) == 3
  assert made.source == ['ein Haus', 'ein Hund', 'zwei']
  assert made.hypothesis == ['"a house', 'a dog', 'two']
  assert made.split == ['train', 'train', 'dev']
  for column, expected in (
    (made.score, [0.5, -0.1, 2.0]),
    (made.weight, [1, 15, 3]),
  ):
    assert column.dtype == np.float32
    np.testing.assert_array_equal(column, np.array(expected, np.float32))


def test_references_are_read_where_there_are_any(read):
  header = 'split\tsource\thypothesis\tscore\treference'
  rows = (
    'train\tein Haus\ta house\t0.5\t the house ',
    'train\tein Hund\ta dog\t0.1\t',
    'dev\tzwei\ttwo\t2\ttwo',
  )
  made = read(*rows, header=header)
  assert made.reference == ['the house', '', 'two']
  assert made.select('train').reference == ['the house', '']
  none = read(*(row.rsplit('\t', 1)[0] + '\t' for row in rows), header=header)
  assert none.reference is None and none.select('dev').reference is None
  joined = ratings.join([none, made.select('dev')])
  assert joined.reference == ['', '', '', 'two']
  assert ratings.join([none, none]).reference is None


def test_optional_columns_may_be_missing(read):
  made = read(
    '1\tdev\ta\tb',
    '2\tdev\tc\td',
    header='score\tsplit\tsource\thypothesis',
  )
  np.testing.assert_array_equal(made.weight, [1, 1])
  np.testing.assert_array_equal(made.score, [1, 2])
  with pytest.raises(ValueError, match="column 'lang_pair' to choose"):
    read(
      '1\tdev\ta\tb',
      header='score\tsplit\tsource\thypothesis',
      lang_pair='de-en',
    )


def test_rows_are_chosen_by_pair_and_type(read):
  other = 'train\t好\tgood\t-5\t1\tzh-en\tMQM\t'
  more = 'train\t坏\tbad\t-25\t1\tzh-en\tMQM\t'
  third = 'train\t大\tbig\t0.5\t1\tzh-en\tDA-z\t'
  lines = (*_GOOD, other, more, third)
  assert len(read(*lines, lang_pair='de-en')) == 3
  made = read(*lines, lang_pair='zh-en', score_type='MQM')
  assert made.hypothesis == ['good', 'bad']
  # One kind is chosen, by one setting or by the other.
  assert len(read(*lines, score_type='MQM')) == 2
  kinds = 'de-en DA-z, zh-en DA-z, zh-en MQM'
  for settings, remedy in (
    ({}, 'lang_pair=de-en and score_type=DA-z'),
    ({'lang_pair': 'zh-en'}, 'score_type=DA-z'),
    ({'score_type': 'DA-z'}, 'lang_pair=de-en'),
  ):
    message = (
      f'one language pair.* it has {kinds}. Choose one, such as {remedy}.'
    )
    with pytest.raises(ValueError, match=message):
      read(*lines, **settings)
  with pytest.raises(ValueError, match=f"lang_pair='en-de'.* it has {kinds}"):
    read(*lines, lang_pair='en-de')


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('train\ta\tb\t\t1\tde-en\tDA-z\t', "score must be a finite .* got ''"),
    ('train\ta\tb\tx\t1\tde-en\tDA-z\t', "score must be a finite .* got 'x'"),
    ('train\ta\tb\tnan\t1\tde-en\tDA-z\t', "score .* got 'nan'"),
    ('train\ta\tb\t-inf\t1\tde-en\tDA-z\t', "score .* got '-inf'"),
    ('train\ta\tb\t1e39\t1\tde-en\tDA-z\t', "score .* got '1e39'"),
    ('train\ta\tb\t1\t?\tde-en\tDA-z\t', r"annotators .* got '\?'"),
    ('train\ta\tb\t1\t0\tde-en\tDA-z\t', "annotators must be above 0; got '0'"),
    ('train\t \tb\t1\t1\tde-en\tDA-z\t', 'source must not be empty'),
    ('train\ta\t\t1\t1\tde-en\tDA-z\t', 'hypothesis must not be empty'),
    ('\ta\tb\t1\t1\tde-en\tDA-z\t', 'split must not be empty'),
    ('train\ta\tb\t1\t1\tde-en', 'expected 8 tab-separated fields.* got 6'),
  ],
)
def test_a_bad_row_names_file_and_line(read, line, message):
  with pytest.raises(ValueError, match=rf'r\.tsv, line 5: {message}'):
    read(*_GOOD, line)


def test_blank_lines_are_read_over_at_the_end_alone(read):
  assert len(read(*_GOOD, '', ' ')) == len(read(*_GOOD))
  with pytest.raises(ValueError, match=r'r\.tsv, line 3: .* the line is blank'):
    read(_GOOD[0], '', *_GOOD[1:])


@pytest.mark.parametrize('missing', ['split', 'source', 'hypothesis', 'score'])
def test_a_missing_column_is_named(read, missing):
  header = _HEADER.replace(missing, 'nothing', 1)
  with pytest.raises(
    ValueError, match=rf"r\.tsv must have the column '{missing}'"
  ):
    read(*_GOOD, header=header)


def test_no_rows_is_an_error(read, tmp_path):
  with pytest.raises(ValueError, match='it has no rows'):
    read()
  path = tmp_path / 'empty.tsv'
  path.write_bytes(b'')
  with pytest.raises(ValueError, match=r'empty\.tsv must begin with a header'):
    ratings.RatingsFile(path=path).read()
  with pytest.raises(FileNotFoundError, match=r'none\.tsv'):
    ratings.RatingsFile(path=tmp_path / 'none.tsv').read()


def test_equal_scores_are_an_error(read):
  lines = ['train\ta\tb\t1\t1\t\t\t', 'train\tc\td\t1.0\t1\t\t\t']
  with pytest.raises(ValueError, match=r'all 2 of split train are 1\.0'):
    read(*lines, _GOOD[2].replace('de-en\tDA-z', '\t'))
  with pytest.raises(ValueError, match=r'all 2 are 1\.0'):
    read(*(line.replace('train', 'test') for line in lines))


def test_a_source_in_two_splits_is_an_error(read):
  leak = _GOOD[0].replace('train', 'test').replace('house', 'home')
  with pytest.raises(ValueError, match="split test has 'ein Haus' too"):
    read(*_GOOD, leak)
  # Among held-out splits it does no harm.
  assert len(read(*_GOOD, _GOOD[2].replace('dev', 'test'))) == 4


def test_select_a_split(read):
  made = read(*_GOOD)
  train = made.select('train')
  assert train.hypothesis == ['"a house', 'a dog']
  assert train.split == ['train', 'train']
  np.testing.assert_array_equal(train.weight, [1, 15])
  with pytest.raises(ValueError, match=r"\['dev', 'train'\]; got 'test'"):
    made.select('test')


def test_columns_of_one_length():
  with pytest.raises(ValueError, match=r"'source': 1, 'hypothesis': 2"):
    ratings.Ratings(
      source=['a'],
      hypothesis=['b', 'c'],
      score=np.zeros(1, np.float32),
      weight=np.zeros(1, np.float32),
      split=['train'],
    )


@pytest.mark.parametrize(
  ('name', 'lang_pair', 'counts'),
  [
    ('da_wmt15-18', 'de-en', {'train': 48_725, 'dev': 5_427, 'test': 1_060}),
    ('mqm_wmt21-23', 'zh-en', {'train': 13_633, 'dev': 2_100}),
    ('da_mlqe_pe', 'en-zh', {'train': 7_000, 'dev': 1_000}),
  ],
)
def test_real_ratings(shared_dir, name, lang_pair, counts):
  path = shared_dir / 'data' / 'ratings' / f'{name}.tsv.gz'
  made = ratings.RatingsFile(path=str(path), lang_pair=lang_pair).read()
  assert {split: made.split.count(split) for split in counts} == counts
  assert len(made) == sum(counts.values())
  assert made.weight.min() >= 1


def test_splits_that_a_reward_model_cannot_be_fitted_to(read):
  made = read(*_GOOD, 'dev\tdrei\tthree\t3\t3\tde-en\tDA-z\tx')
  ratings.check_splits(made, 'r.tsv')
  with pytest.raises(ValueError, match=r'r\.tsv must have .* its 1 row\(s\)'):
    ratings.check_splits(read(*_GOOD), 'r.tsv')
  valid = [line.replace('dev\t', 'valid\t') for line in _GOOD]
  with pytest.raises(ValueError, match=r"'valid' \(1\). Rename 'valid' to"):
    ratings.check_splits(read(*valid), 'r.tsv')


def test_the_place_of_ratings_is_their_file(tmp_path):
  path = str(tmp_path / 'r.tsv')
  assert ratings.place(ratings.RatingsFile(path=path)) == path
