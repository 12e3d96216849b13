"""Tests of the sources of pairs."""

import dataclasses
import gzip
import random
import re

import pytest

from rest_jax.data import sources

Pair = sources.Pair


@pytest.fixture
def write(tmp_path):
  """Writes lines to a file and returns its path as a string."""

  def write_lines(name: str, *lines: str) -> str:
    path = tmp_path / name
    content = ''.join(line + '\n' for line in lines).encode()
    path.write_bytes(
      gzip.compress(content) if path.suffix == '.gz' else content
    )
    return str(path)

  return write_lines


def test_parallel_text_reads_files_in_order_and_twice_if_listed_twice(write):
  a, b = write('a.de', 'eins', 'zwei'), write('b.de.gz', 'drei')
  x, y = write('a.en.gz', 'one', 'two'), write('b.en', 'three')
  source = sources.ParallelText(
    source_files=(a, b, a), reference_files=(x, y, x)
  )
  once = [Pair('eins', 'one'), Pair('zwei', 'two')]
  assert list(source.read()) == [*once, Pair('drei', 'three'), *once]
  assert list(source.read()) == list(source.read())


@pytest.mark.parametrize('limit', range(1, 8))
def test_parallel_text_limit(write, limit):
  a, b = write('a', '1', '2'), write('b', '3', '4', '5')
  source = sources.ParallelText(
    source_files=(a, b), reference_files=(b, b), limit=limit
  )
  with pytest.raises(ValueError, match='got 2 and 3'):
    list(source.read())
  good = dataclasses.replace(source, source_files=(b, b))
  pairs = [Pair(text, text) for text in '345345']
  assert list(good.read()) == pairs[:limit]


@pytest.mark.parametrize('seed', range(10))
def test_unequal_line_counts_name_both(write, seed):
  draw = random.Random(seed)
  counts = draw.sample(range(6), 2)
  paths = [
    write(name, *(str(line) for line in range(count)))
    for name, count in zip('ab', counts, strict=True)
  ]
  source = sources.ParallelText(source_files=paths[0], reference_files=paths[1])
  message = f'{paths[0]} and {paths[1]} must have as many lines; '
  message += f'got {counts[0]} and {counts[1]}'
  with pytest.raises(ValueError, match=re.escape(message)):
    list(source.read())


@pytest.mark.parametrize('ends', [('', ' '), ('', '', ''), ()])
def test_blank_lines_at_the_end_are_no_pairs(write, ends):
  more = sources.ParallelText(
    source_files=write('a', '1', '', '3', *ends),
    reference_files=write('b', '1', 'x', '3', ''),
  )
  assert list(more.read()) == [Pair('1', '1'), Pair('', 'x'), Pair('3', '3')]


def test_all_files_are_looked_for_before_the_first_pair(write):
  a = write('a', '1')
  source = sources.ParallelText(
    source_files=(a, a), reference_files=(a, '/none/x')
  )
  with pytest.raises(FileNotFoundError, match=r'reference_files .* /none/x'):
    next(source.read())
  for source in (
    sources.TsvText(files=(a, '/none/x'), source_column=0),
    sources.SourceText(files=(a, '/none/x')),
  ):
    with pytest.raises(FileNotFoundError, match=r'files must .* /none/x'):
      next(source.read())


def test_tsv_text_by_name_takes_each_files_own_header(write):
  a = write('a.tsv', 'de\ten', 'eins\tone')
  b = write('b.tsv.gz', 'id\ten\tde', '1\ttwo "2\tzwei')
  source = sources.TsvText(
    files=(a, b), source_column='de', reference_column='en'
  )
  assert list(source.read()) == [Pair('eins', 'one'), Pair('zwei', 'two "2')]
  source = sources.TsvText(files=a, source_column='en', limit=1)
  assert list(source.read()) == [Pair('one', None)]
  source = sources.TsvText(files=a, source_column=1, reference_column=0)
  assert list(source.read()) == [Pair('en', 'de'), Pair('one', 'eins')]
  source = sources.TsvText(files=a, source_column=0, reference_column=2)
  with pytest.raises(
    ValueError, match=r'a\.tsv must .* 2 \(from 0\); .* has 2'
  ):
    next(source.read())


@pytest.mark.parametrize(
  ('columns', 'error', 'message'),
  [
    (('de', 'de'), ValueError, "must differ; both are 'de'"),
    (('de', 1), TypeError, "both be names .*'de' and 1"),
    ((-1, None), ValueError, 'counts from 0; got -1'),
    ((None, None), TypeError, 'names or positions; got None'),
    ((True, None), TypeError, 'names or positions; got True'),
  ],
)
def test_tsv_text_refuses_unfit_columns(columns, error, message):
  with pytest.raises(error, match=message):
    sources.TsvText(
      files='a', source_column=columns[0], reference_column=columns[1]
    )


def test_source_text_has_no_references(write):
  a, b = write('a', '1', '2'), write('b', '3', '')
  source = sources.SourceText(files=(a, b))
  assert list(source.read()) == [
    Pair(text, None) for text in ('1', '2', '3', '')
  ]
  source = sources.SourceText(files=[a, b], limit=3)
  assert list(source.read()) == [Pair(text, None) for text in '123']


def test_concatenation_repeats(write):
  a = sources.SourceText(files=write('a', '1', '2'))
  b = sources.SourceText(files=write('b', '3'))
  both = sources.Concatenation(sources=(a, b))
  assert [pair.source for pair in both.read()] == ['1', '2', '3']
  often = sources.Concatenation(sources=[both, b], repeats=[1, 2])
  assert [pair.source for pair in often.read()] == ['1', '2', '3', '3', '3']
  assert isinstance(often, sources.PairSource)
  assert often == sources.Concatenation(sources=(both, b), repeats=(1, 2))
  assert hash(often) == hash(
    sources.Concatenation(sources=(both, b), repeats=(1, 2))
  )


def test_wrong_settings_are_refused():
  with pytest.raises(ValueError, match=r'one file for each .* got 1 for 2'):
    sources.ParallelText(source_files=('a', 'b'), reference_files='c')
  for limit in (0, -3):
    with pytest.raises(ValueError, match=f'limit must .* got {limit}'):
      sources.SourceText(files='a', limit=limit)
  a = sources.SourceText(files='a')
  with pytest.raises(ValueError, match='at least one source'):
    sources.Concatenation(sources=())
  with pytest.raises(TypeError, match='must have a read method'):
    sources.Concatenation(sources=('a',))
  with pytest.raises(ValueError, match=r'one number for each .* got 1 for 2'):
    sources.Concatenation(sources=(a, a), repeats=(1,))
  with pytest.raises(ValueError, match='at least 1'):
    sources.Concatenation(sources=(a,), repeats=(0,))


def test_real_files_correspond(shared_dir):
  folder = shared_dir / 'data' / 'multi30k_de_en'
  source = sources.ParallelText(
    source_files=str(folder / 'val.de.gz'),
    reference_files=str(folder / 'val.en.gz'),
  )
  pairs = list(source.read())
  assert len(pairs) == 1014
  assert all(pair.source and pair.reference for pair in pairs)


def test_pairs_in_memory():
  made = sources.TextPairs(sources=['a', 'b'], references=['x', 'y'])
  assert list(made.read()) == [Pair('a', 'x'), Pair('b', 'y')]
  alone = sources.TextPairs(sources=['a', 'b'])
  assert list(alone.read()) == [Pair('a', None), Pair('b', None)]
  assert len({made.digest, alone.digest}) == 2
  same = sources.TextPairs(sources=('a', 'b'), references=('x', 'y'))
  assert same.digest == made.digest
  with pytest.raises(ValueError, match='got 1 for 2'):
    sources.TextPairs(sources=['a', 'b'], references=['x'])
  for wrong in ('text', ['a', 3]):
    with pytest.raises(TypeError, match='list of texts'):
      sources.TextPairs(sources=wrong)
