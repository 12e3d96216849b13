"""Pairs are named by the files and lines they were read from."""

import pytest

from rest_jax.data import line_numbers, sources


@pytest.fixture
def parallel(tmp_path):
  for name, count in (('a', 3), ('b', 4)):
    for side in ('de', 'en'):
      (tmp_path / f'{name}.{side}').write_text('x\n' * count + '\n')
  return sources.ParallelText(
    source_files=('a.de', 'b.de'),
    reference_files=('a.en', 'b.en'),
    folder=tmp_path,
  )


def test_lines_of_files(parallel, tmp_path):
  a, b = (f'{tmp_path}/{n}.de and {tmp_path}/{n}.en' for n in 'ab')
  assert line_numbers.place(parallel, 2, 3) == f'lines 2 to 3 of {a}'
  assert line_numbers.place(parallel, 4, 6) == f'lines 1 to 3 of {b}'
  assert line_numbers.place(parallel, 3, 5) == f'line 3 of {a} to line 2 of {b}'


def test_concatenations_limits_and_headers(parallel, tmp_path):
  (tmp_path / 'c.tsv').write_text('de\ten\n' + 'x\ty\n' * 3)
  table = sources.TsvText(
    files='c.tsv', source_column='de', reference_column='en', folder=tmp_path
  )
  limited = sources.ParallelText(
    source_files=parallel.source_files,
    reference_files=parallel.reference_files,
    limit=2,
  )
  both = sources.Concatenation(sources=(limited, table), repeats=(2, 1))
  assert line_numbers.place(both, 3, 4).startswith('lines 1 to 2 of')
  # The header is a line of the file.
  assert line_numbers.place(both, 5, 7) == f'lines 2 to 4 of {tmp_path}/c.tsv'


def test_other_sources_count_pairs():
  pairs = sources.TextPairs(sources=['a'] * 9, references=['b'] * 9)
  assert line_numbers.place(pairs, 2, 8) == 'pairs 2 to 8'
