"""Tests of reading text files."""

import gzip
import os
import random
import re

import pytest

from rest_jax.data import text_files


def _write(path, content: bytes):
  if path.suffix == '.gz':
    content = gzip.compress(content)
  path.write_bytes(content)
  return path


@pytest.mark.parametrize('name', ['a.txt', 'a.txt.gz'])
@pytest.mark.parametrize(
  ('content', 'lines'),
  [
    (b'', []),
    (b'\n', ['']),
    (b'a\nb\n', ['a', 'b']),
    (b'a\nb', ['a', 'b']),
    (b'a\n\nb\n\n', ['a', '', 'b', '']),
    (b'a\r\nb\r\n', ['a', 'b']),
    (b'a\rb\n', ['a\rb']),
    (b'\xef\xbb\xbfa\n\xef\xbb\xbfb\n', ['a', '\ufeffb']),
    (b'\xef\xbb\xbf', ['']),
    (b'a\0b\n\0\n', ['a b', ' ']),
    ('a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n'.encode(), None),
    (' ä\t€ 好\U0001f600 \n'.encode(), [' ä\t€ 好\U0001f600 ']),
  ],
)
def test_lines(tmp_path, name, content, lines):
  if lines is None:
    lines = [content.decode()[:-1]]
  path = _write(tmp_path / name, content)
  assert list(text_files.read_lines(path)) == lines


@pytest.mark.parametrize('seed', range(20))
def test_lines_are_those_that_were_written(tmp_path, seed):
  draw = random.Random(seed)
  alphabet = 'ab \t\u2028\u2029\x85\r\x0c\ufeff好é"\''
  lines = [
    ''.join(draw.choice(alphabet) for _ in range(draw.randint(0, 8)))
    for _ in range(draw.randint(1, 30))
  ]
  # A carriage return at the end is part of the line end; a mark at the start
  # of the file is none of the text.
  lines = [line.rstrip('\r') for line in lines]
  lines[0] = lines[0].lstrip('\ufeff')
  end = draw.choice(['\n', '\r\n'])
  name = draw.choice(['a', 'a.gz'])
  path = _write(tmp_path / name, ''.join(x + end for x in lines).encode())
  assert list(text_files.read_lines(path)) == lines


def test_a_missing_file_is_named_before_anything_is_read(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'path must .*nowhere\.txt'):
    next(text_files.read_lines(tmp_path / 'nowhere.txt'))
  with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
    text_files.check_files('files', [tmp_path])


@pytest.mark.parametrize('name', ['a.txt', 'a.txt.gz'])
@pytest.mark.parametrize(
  ('content', 'line', 'byte', 'bad'),
  [
    (b'\xff', 1, 0, 'ff'),
    (b'ab\nc\xe9d\n', 2, 4, 'e9'),
    (b'\xef\xbb\xbfab\r\n\0\n\xc3\n', 3, 9, 'c3'),
    ('ä\nö'.encode() + b'\xed\xa0\x80', 2, 5, 'ed'),
    (b'a\n' * 1000 + b'\x80', 1001, 2000, '80'),
  ],
)
def test_invalid_utf8_names_file_line_and_byte(
  tmp_path, name, content, line, byte, bad
):
  path = _write(tmp_path / name, content)
  words = 'decompressed text' if path.suffix == '.gz' else 'file'
  message = rf'{re.escape(str(path))} .* line {line} holds {bad}\b.* '
  message += rf'at byte {byte} \(from 0\) of the {words}\.'
  with pytest.raises(ValueError, match=message):
    list(text_files.read_lines(path))


@pytest.mark.parametrize('seed', range(20))
def test_any_bad_byte_is_found_where_it_stands(tmp_path, seed):
  draw = random.Random(seed)
  characters = [draw.choice('ab\nä好') for _ in range(200)]
  place = draw.randrange(200)
  before = ''.join(characters[:place]).encode()
  path = tmp_path / 'a.txt'
  path.write_bytes(before + b'\xff' + ''.join(characters[place:]).encode())
  line = before.count(b'\n') + 1
  message = rf'line {line} holds ff .* at byte {len(before)} \(from 0\)'
  with pytest.raises(ValueError, match=message):
    list(text_files.read_lines(path))


def test_other_encodings_are_told_apart(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('hello', encoding='utf-16')
  with pytest.raises(ValueError, match='iconv -f UTF-16'):
    list(text_files.read_lines(path))
  path.write_bytes(gzip.compress(b'hello'))
  with pytest.raises(ValueError, match=r'name it \.gz'):
    list(text_files.read_lines(path))


def test_damaged_gzip_is_an_error(tmp_path):
  path = tmp_path / 'a.gz'
  whole = gzip.compress(random.Random(0).randbytes(3000).hex().encode())
  for cut in (0, 1, 5, 20, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r'a\.gz must be a (whole )?gzip'):
      list(text_files.read_lines(path))
  for at in (len(whole) // 2, len(whole) - 6):
    flipped = bytearray(whole)
    flipped[at] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=r'a\.gz must be a whole gzip'):
      list(text_files.read_lines(path))
  path.write_bytes(b'plain text\n')
  with pytest.raises(ValueError, match=r'drop the \.gz'):
    list(text_files.read_lines(path))


def test_paths_may_be_one_or_several(tmp_path):
  assert text_files.as_paths('files', 'a') == ('a',)
  assert text_files.as_paths('files', tmp_path) == (str(tmp_path),)
  assert text_files.as_paths('files', ['a', tmp_path]) == ('a', str(tmp_path))
  with pytest.raises(ValueError, match='files must name at least one file'):
    text_files.as_paths('files', ())
  for wrong in ([None], [''], [3]):
    with pytest.raises(TypeError, match='files must hold paths'):
      text_files.as_paths('files', wrong)


def test_rows_and_tables(tmp_path):
  path = _write(tmp_path / 'a.tsv', b'x\ty\tz\n1\t"2\t3\n4\t\t6"\n')
  assert list(text_files.read_rows(path)) == [
    (1, ['x', 'y', 'z']),
    (2, ['1', '"2', '3']),
    (3, ['4', '', '6"']),
  ]
  assert list(text_files.read_table(path, ['z', 'x'], ['none', 'y'])) == [
    (2, {'z': '3', 'x': '1', 'y': '"2'}),
    (3, {'z': '6"', 'x': '4', 'y': ''}),
  ]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'header line with the columns x; the file is empty'),
    (b'y\tz\n', "must have the column 'x'; .* 'y', 'z'"),
    (b'x\tx\n', "must have one column 'x'; .* has 2"),
    (b'x\ty\ty\n', "must have one column 'y'; .* has 2"),
    (b'x\ty\n1\t2\n3\n', 'line 3: expected 2 .* got 1'),
    (b'x\ty\n1\t2\t3\n', 'line 2: expected 2 .* got 3'),
    (b'x\ty\n1\t2\n\n\n3\t4\n', 'line 3: expected 2 .* blank, and more'),
    (b'x\ty\n \r\n3\t4\n', 'line 2: .* blank'),
  ],
)
def test_table_errors_name_what_is_wrong(tmp_path, content, message):
  path = _write(tmp_path / 'a.tsv', content)
  with pytest.raises(ValueError, match=rf'a\.tsv.*{message}'):
    list(text_files.read_table(path, ['x'], ['y']))


@pytest.mark.parametrize(
  'end', [b'', b'\n', b'\n\n', b'\n \n\n', b'\r\n\r\n', b'\n\t\n', b'\n\t\t']
)
def test_blank_lines_at_the_end_are_no_rows(tmp_path, end):
  path = _write(tmp_path / 'a.tsv', b'\xef\xbb\xbfx\ty\n1\t2' + end)
  assert list(text_files.read_rows(path)) == [
    (1, ['x', 'y']),
    (2, ['1', '2']),
  ]


def test_an_empty_row_among_others_is_one(tmp_path):
  path = _write(tmp_path / 'a.tsv', b'1\t2\n\t\n3\t4\n\t\n')
  rows = [(1, ['1', '2']), (2, ['', '']), (3, ['3', '4'])]
  assert list(text_files.read_rows(path)) == rows
  # In one column a blank line is an empty text, wherever it stands.
  path = _write(tmp_path / 'b.tsv', b'1\n\n2\n\n')
  assert list(text_files.read_rows(path)) == [
    (1, ['1']),
    (2, ['']),
    (3, ['2']),
    (4, ['']),
  ]


def test_a_file_name_that_is_not_utf8_is_refused():
  name = os.fsdecode(b'stra\xdfe.de')
  with pytest.raises(
    ValueError, match=r'files must name files in UTF-8.*udcdf'
  ):
    text_files.as_paths('files', name)


def test_a_python_of_another_encoding_is_refused(monkeypatch):
  def fail(path):
    return path.encode('ascii')

  monkeypatch.setattr(os, 'fsencode', fail)
  with pytest.raises(ValueError, match=r'start with PYTHONUTF8=1'):
    text_files.as_paths('files', 'straße.de')
