"""Tests of what is measured of a user's files."""

import random

import pytest

from rest_jax.own_data import facts

WORDS = {
  'der': 'the', 'Hund': 'dog', 'sieht': 'sees', 'eine': 'a', 'Katze': 'cat',
  'am': 'by', 'Haus': 'house', 'und': 'and', 'geht': 'goes', 'heute': 'today',
}  # fmt: skip


def write_pairs(folder, name, num_pairs, seed=0):
  """Writes pairs of three to twelve words; returns their files."""
  draw = random.Random(f'{name} {seed}')
  rows = [
    draw.choices(list(WORDS), k=draw.randint(3, 12)) for _ in range(num_pairs)
  ]
  paths = folder / f'{name}.de', folder / f'{name}.en'
  texts = (
    [' '.join(row) for row in rows],
    [' '.join(WORDS[word] for word in row) for row in rows],
  )
  for path, lines in zip(paths, texts, strict=True):
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  return tuple(map(str, paths))


def write_files(folder, **changes):
  return facts.Files(
    **{
      'train': write_pairs(folder, 'train', 300),
      'validation': write_pairs(folder, 'validation', 40),
      **changes,
    }
  )


RATINGS = 'split\tsource\thypothesis\tscore\n' + ''.join(
  f'{split}\tHund {split} {row}\tdog {row}\t{row % 5}\n'
  for split in ('train', 'dev', 'test')
  for row in range(30)
)


def test_pairs_characters_and_lengths_are_counted(tmp_path):
  measured = facts.measure(write_files(tmp_path))
  assert (measured.num_train, measured.num_validation) == (300, 40)
  text = ' '.join([*WORDS, *WORDS.values()])
  assert measured.num_characters == len(set(text))
  assert (measured.num_ratings, measured.rated) == (0, None)
  # A piece a word at best, with the sentence's end; a piece a letter at worst.
  assert 13 <= measured.source.longest <= 12 * 7 + 1
  assert measured.longer.longest == max(
    measured.source.longest, measured.target.longest
  )
  assert measured == facts.measure(write_files(tmp_path))


def test_the_vocabulary_is_no_larger_than_the_text_allows(tmp_path):
  """Twenty words have no 430 pieces."""
  assert 30 < facts.measure(write_files(tmp_path)).vocabulary_size < 300


def test_blank_pairs_do_not_count(tmp_path):
  train = write_pairs(tmp_path, 'blank', 300)
  for path in train:
    with open(path, encoding='utf-8') as opened:
      lines = opened.readlines()
    lines[10] = '\n'
    with open(path, 'w', encoding='utf-8') as opened:
      opened.writelines(lines)
  assert facts.measure(write_files(tmp_path, train=train)).num_train == 299


def test_ratings_are_read_and_measured(tmp_path):
  path = tmp_path / 'ratings.tsv'
  path.write_text(RATINGS, encoding='utf-8')
  measured = facts.measure(write_files(tmp_path, ratings=str(path)))
  assert measured.num_ratings == 90
  assert measured.rated is not None and measured.rated.longest > 3
  assert not measured.rated_within
  path.write_text(RATINGS.replace('train 1', 'train 0'), encoding='utf-8')
  assert facts.measure(write_files(tmp_path, ratings=str(path))).rated_within
  path.write_text(RATINGS.replace('dev', 'valid'), encoding='utf-8')
  with pytest.raises(ValueError, match=r"split 'dev'.*Rename 'valid'"):
    facts.measure(write_files(tmp_path, ratings=str(path)))


def test_sources_for_grow_count_among_the_lengths(tmp_path):
  path = tmp_path / 'grow.de'
  path.write_text('Hund\n\n' + 'Katze ' * 60 + '\n', encoding='utf-8')
  alone = facts.measure(write_files(tmp_path))
  measured = facts.measure(write_files(tmp_path, grow=str(path)))
  assert (alone.num_grow, measured.num_grow) == (None, 2)
  assert measured.source.longest > alone.source.longest
  assert measured.target == alone.target
  path.write_text('\n', encoding='utf-8')
  with pytest.raises(ValueError, match=r'grow must have sources; .*grow\.de'):
    facts.measure(write_files(tmp_path, grow=str(path)))


def test_errors_in_a_file_are_named(tmp_path):
  few = write_pairs(tmp_path, 'few', 199)
  with pytest.raises(ValueError, match=r'train must have at least 200 .* 199'):
    facts.measure(write_files(tmp_path, train=few))
  few = write_pairs(tmp_path, 'few', 19)
  with pytest.raises(ValueError, match=r'validation must have at least 20 '):
    facts.measure(write_files(tmp_path, validation=few))
  files = write_files(tmp_path)
  short, other = files.train[0], files.validation[1]
  with pytest.raises(ValueError, match=r'as many lines; got 300 and 40'):
    facts.measure(write_files(tmp_path, train=(short, other)))
  with pytest.raises(FileNotFoundError, match=r'no file .*missing\.de'):
    facts.measure(
      write_files(tmp_path, train=(str(tmp_path / 'missing.de'), other))
    )
  latin = tmp_path / 'latin.de'
  latin.write_bytes('Häuser\n'.encode('latin-1') * 300)
  with pytest.raises(ValueError, match=r'latin\.de must be UTF-8; line 1'):
    facts.measure(write_files(tmp_path, train=(str(latin), files.train[1])))
  with pytest.raises(ValueError, match='train must be two files'):
    facts.Files(train='a.de', validation=files.validation)
