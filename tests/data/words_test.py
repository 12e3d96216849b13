"""Tests of splitting text into words."""

import pytest

from rest_jax.data import words


@pytest.mark.parametrize(
  'text',
  ['A dog runs.', '曾造成一千多人死亡。', 'two  spaces', '使用 GPU 时,快', ''],
)
def test_words_are_split_and_joined(text):
  split = words.split_words(text)
  joined = words.join_words(split)
  assert ''.join(joined.split()) == ''.join(text.split())
  assert words.split_words(joined) == split


def test_spaces_separate_words():
  assert words.split_words(' A dog,\truns. ') == ['A', 'dog,', 'runs.']
  assert words.join_words(['A', 'dog,', 'runs.']) == 'A dog, runs.'


def test_tokens_are_words_and_marks():
  assert words.split_tokens("A dog's 3rd,\t人。") == [
    *['A', 'dog', "'", 's', '3rd', ',', '人', '。'],
  ]


def test_scripts_without_spaces_are_cut_into_characters():
  assert words.split_words('一千 GPU人。') == ['一', '千', 'GPU', '人', '。']
  assert words.join_words(['一', '千', 'GPU', '人']) == '一千 GPU 人'


@pytest.mark.parametrize(
  ('word', 'parts'),
  [
    ('dog', ('', 'dog', '')),
    ('("dog",', ('("', 'dog', '",')),
    ("isn't.", ('', "isn't", '.')),
    ('...', ('...', '', '')),
    ('', ('', '', '')),
  ],
)
def test_marks_are_split_off(word, parts):
  assert words.split_marks(word) == parts


@pytest.mark.parametrize(
  ('text', 'position', 'new', 'expected'),
  [
    ('a  b c', 1, 'x', 'a  x c'),
    ('a  b c', 1, '', 'a c'),
    ('a b c', 2, '', 'a b'),
    (' a b', 0, '', 'b'),
    ('一二三', 1, '', '一三'),
    ('一GPU三', 1, 'CPU', '一CPU三'),
  ],
)
def test_a_word_is_replaced_and_blanks_are_kept(text, position, new, expected):
  assert words.replace_word(text, position, new) == expected


def test_spans_are_those_of_the_words():
  text = ' A dog,\t一只 runs. '
  assert [text[start:stop] for start, stop in words.spans(text)] == (
    words.split_words(text)
  )


def test_scripts_without_spaces_are_told():
  assert words.is_unspaced('狗') and words.is_unspaced('。')
  assert not words.is_unspaced('a') and not words.is_unspaced('ß')
