"""The customary split, on a made-up miniature of the official archive."""

import gzip
import pathlib
import tarfile

import pytest

from rest_jax.data import iwslt, sources
from rest_jax.data import task as task_lib

pytest.importorskip('sacremoses', reason='pip install sacremoses')

NUM_TALK_LINES = 50
HEADER = {
  'de': (
    '<url>http://www.ted.com/talks/lang/de/nobody.html</url>',
    '<keywords>talks, Nichts</keywords>',
    '<speaker>Niemand</speaker>',
    '<talkid>1</talkid>',
    '<title>Niemand: Über nichts</title>',
    '<description>Ein Vortrag  über nichts.</description>',
  ),
  'en': (
    '<url>http://www.ted.com/talks/lang/en/nobody.html</url>',
    '<keywords>talks, nothing</keywords>',
    '<speaker>Nobody</speaker>',
    '<talkid>1</talkid>',
    '<title>Nobody: On nothing</title>',
    '<description>A talk on nothing.</description>',
  ),
}
# German, English, and why the pair does not stay. By words, without a tokeniser,
# the first would be dropped and the second would stay.
SPECIAL = (
  ('Hallo Welt!', 'Hi!', ''),
  ('Ja, ja, ja.', 'Yes yes.', 'ratio'),
  ('a b c', 'a b', ''),
  ('a b', 'a b c d', 'ratio'),
  ('', 'Something.', 'empty'),
  ('Etwas.', ' ', 'empty'),
  (' '.join('a' * 175), ' '.join('b' * 175), ''),
  (' '.join('a' * 176), ' '.join('b' * 175), 'long'),
  ('a b', 'a ' + 'b' * 1001, 'long'),
)
# Two talks; each has a title and a description that stay.
NUM_STAY = 2 * (2 + NUM_TALK_LINES) + sum(not why for *_, why in SPECIAL)
SEGMENTS = dict(zip(iwslt.TEST_SEGMENTS, (3, 4, 5, 6, 7), strict=True))


def talks(language: int) -> list[str]:
  side = ('de', 'en')[language]
  words = ('Das ist Satz {} & mehr.', 'This is sentence {} & more.')[language]
  talk = [f' {words.format(i)} ' for i in range(NUM_TALK_LINES)]
  return [
    *HEADER[side],
    *talk,
    *HEADER[side],
    *talk,
    *(pair[language] for pair in SPECIAL),
  ]


def test_set(name: str, language: str, number: int) -> str:
  """The XML of a test set of two documents."""
  kind = 'srcset' if language == 'de' else 'refset'
  lines = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<!DOCTYPE mteval [<!ENTITY evil SYSTEM "file:///etc/passwd">]>',
    '<mteval>',
    f'<{kind} setid="iwslt2014-{name}" srclang="german">',
    '<doc docid="1" genre="lectures">',
    f'<title>Not a segment of {name}</title>',
    f'<seg id="1"> {name} It’s A &amp; B &lt; C &evil; </seg>',
    '</doc>',
    '<doc docid="2" genre="lectures">',
    *(
      f'  <seg id="{i}"> {name} {language} {i}. </seg>'
      for i in range(1, number)
    ),
    '</doc>',
    f'</{kind}>',
    '</mteval>',
  ]
  return '\n'.join(lines) + '\n'


test_set.__test__ = False


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  path = tmp_path / 'de-en'
  path.mkdir()
  for index, language in enumerate(('de', 'en')):
    train = path / f'train.tags.de-en.{language}'
    train.write_text('\n'.join(talks(index)) + '\n', encoding='utf-8')
    for name, number in SEGMENTS.items():
      file = path / f'IWSLT14.{name}.de-en.{language}.xml'
      file.write_text(test_set(name, language, number), encoding='utf-8')
  return path


def read(path, split, **settings) -> list[sources.Pair]:
  archive = iwslt.IwsltArchive(path=path, split=split, **settings)
  return [(pair.source, pair.reference) for pair in archive.read()]


@pytest.mark.parametrize('texts', SPECIAL, ids=range(len(SPECIAL)))
def test_which_pairs_stay(texts):
  assert iwslt.unfit(texts[:2]) == texts[2]


def test_the_counts_and_every_23rd_pair(folder):
  train, validation = read(folder, 'train'), read(folder, 'validation')
  assert (len(train) + len(validation), len(validation)) == (NUM_STAY, 4)
  assert NUM_STAY == 107
  texts = [
    [' '.join(line.replace('<title>', '').split()) for line in side]
    for side in (talks(0), talks(1))
  ]
  assert train[0] == ('Niemand: Über nichts', 'Nobody: On nothing')
  assert train[1] == ('Ein Vortrag über nichts.', 'A talk on nothing.')
  assert train[2] == (texts[0][6], texts[1][6])
  # Number 23 of those that stay: 2 of the header, then sentence 20.
  assert validation[0] == (
    'Das ist Satz 20 & mehr.',
    'This is sentence 20 & more.',
  )
  assert validation[0] not in train[:60]
  assert train[21] == ('Das ist Satz 19 & mehr.', 'This is sentence 19 & more.')
  assert train[22] == ('Das ist Satz 21 & mehr.', 'This is sentence 21 & more.')
  assert ('a b c', 'a b') in train


def test_the_test_sets_in_their_order(folder):
  pairs = read(folder, 'test')
  assert len(pairs) == sum(SEGMENTS.values()) == 25
  # Entities of XML are read, and what a file declares is not.
  first = "TED.dev2010 It's A & B < C &evil;"
  assert pairs[0] == (first, first)
  assert pairs[1:3] == [
    ('TED.dev2010 de 1.', 'TED.dev2010 en 1.'),
    ('TED.dev2010 de 2.', 'TED.dev2010 en 2.'),
  ]
  names = [source.split()[0] for source, _ in pairs]
  assert list(dict.fromkeys(names)) == [
    'TED.dev2010', 'TEDX.dev2012', 'TED.tst2010', 'TED.tst2011', 'TED.tst2012',
  ]  # fmt: skip


def test_entities_are_read_in_all_files_and_do_not_decide_what_stays(folder):
  # As it stands the last pair has 4 tokens on either side.
  first = 'R&amp;D &lt;b&gt; &quot;x&quot; &apos;y&#39; it’s &#228; &evil;'
  added = ((first, first), ('a &amp;', 'a b c d'))
  for index, language in enumerate(('de', 'en')):
    path = folder / f'train.tags.de-en.{language}'
    with path.open('a', encoding='utf-8') as opened:
      opened.writelines(pair[index] + '\n' for pair in added)
  assert [iwslt.unfit(pair) for pair in added] == ['', '']
  assert iwslt.unfit(('a &', 'a b c d')) == 'ratio'
  for _ in range(2):  # Found out, and remembered.
    pairs = read(folder, 'train') + read(folder, 'validation')
    plain = "R&D <b> \"x\" 'y' it's ä &evil;"
    assert (plain, plain) in pairs
    assert ('a &', 'a b c d') in pairs


def test_text_as_benchmarks_have_it(folder):
  cased = read(folder, 'train', tokenized=True)
  assert cased[0][0] == 'Niemand : Über nichts'
  assert cased[2][1] == 'This is sentence 0 &amp; more .'
  lower = read(folder, 'train', tokenized=True, lowercase=True)
  assert lower[0][0] == 'niemand : über nichts'
  assert len(lower) == len(read(folder, 'train'))
  plain = read(folder, 'test', lowercase=True)
  assert plain[1][0] == 'ted.dev2010 de 1.'


@pytest.mark.parametrize('kind', ['parent', 'tgz', 'tar'])
def test_folder_and_archive_give_the_same(folder, kind):
  path = folder.parent
  if kind != 'parent':
    path = folder.parent / f'de-en.{kind}'
    with tarfile.open(path, 'w:gz' if kind == 'tgz' else 'w') as opened:
      opened.add(folder, 'de-en')
  for split in iwslt.SPLITS:
    assert read(path, split) == read(folder, split)


def test_counts_are_said_and_held_against_the_official_ones(
  folder, caplog, monkeypatch
):
  def warnings():
    iwslt._stays.clear()
    caplog.clear()
    with caplog.at_level('INFO', logger='absl'):
      read(folder, 'train')
      read(folder, 'validation')
    infos = [r for r in caplog.records if r.levelname == 'INFO']
    # Once, though it was read twice.
    assert [r.getMessage() for r in infos] == [
      'iwslt14: 113 pairs of talks, 107 stay (dropped: 2 empty, 2 long, 2 by '
      'ratio); 103 for training, 4 for validation, 25 for test'
    ]
    return [r.getMessage() for r in caplog.records if r not in infos]

  assert warnings() == [
    f'iwslt14: IWSLT14.{name}.de-en has {SEGMENTS[name]} segments, the '
    f'official one {official}'
    for name, official in (
      ('TED.dev2010', 887),
      ('TEDX.dev2012', 1165),
      ('TED.tst2010', 1565),
      ('TED.tst2011', 1433),
      ('TED.tst2012', 1700),
    )
  ]
  assert sum(iwslt.TEST_SEGMENTS.values()) == iwslt.CUSTOMARY_PAIRS['test']
  monkeypatch.setattr(iwslt, 'TEST_SEGMENTS', SEGMENTS)
  monkeypatch.setattr(
    iwslt, 'CUSTOMARY_PAIRS', {'train': 103, 'validation': 4, 'test': 25}
  )
  assert warnings() == []
  monkeypatch.setitem(iwslt.CUSTOMARY_PAIRS, 'train', 104)
  (line,) = warnings()
  assert line.startswith(
    'iwslt14: 103 pairs for train, where 104 are customary'
  )


def test_the_tokeniser_runs_once_and_again_for_other_files(folder, monkeypatch):
  read(folder, 'train')
  unfit = iwslt.unfit
  seen = []
  monkeypatch.setattr(
    iwslt, 'unfit', lambda pair: seen.append(pair) or unfit(pair)
  )
  assert len(read(folder, 'train')) == 103
  assert not seen
  for language in ('de', 'en'):
    with open(folder / f'train.tags.de-en.{language}', 'a') as opened:
      opened.write('one more\n')
  assert len(read(folder, 'train')) == 104
  assert len(seen) == 114


FILES = (
  'train.tags.de-en.de',
  'train.tags.de-en.en',
  *(
    f'IWSLT14.{name}.de-en.{language}.xml'
    for name in SEGMENTS
    for language in ('de', 'en')
  ),
)


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('packed', [False, True])
def test_a_missing_file_is_named(folder, name, packed):
  (folder / name).unlink()
  path = folder
  if packed:
    path = folder.parent / 'de-en.tgz'
    with tarfile.open(path, 'w:gz') as opened:
      opened.add(folder, 'de-en')
  # Of any split's files, as soon as D is read to its end.
  with pytest.raises(FileNotFoundError, match=name):
    read(path, 'train')


@pytest.mark.parametrize('name', FILES)
def test_an_altered_file_is_named(folder, name):
  """One line less on one side."""
  lines = (folder / name).read_text(encoding='utf-8').splitlines()
  at = next(
    i for i, line in enumerate(lines) if '<seg id="2"' in line or 'Satz 7' in
    line or 'sentence 7' in line
  )  # fmt: skip
  del lines[at]
  (folder / name).write_text('\n'.join(lines) + '\n', encoding='utf-8')
  other = name.replace('.de.xml', '.en.xml')
  with pytest.raises(ValueError, match='altered') as raised:
    read(folder, 'train')
  assert name in str(raised.value) or other in str(raised.value)
  assert 'segment 3 on' in str(raised.value) or '112' in str(raised.value)


@pytest.mark.parametrize(
  'segment', ['<seg id="2"> cut', '<seg id="2">a</seg><seg id="3">b</seg>']
)
def test_a_segment_that_is_not_whole_is_named(folder, segment):
  path = folder / 'IWSLT14.TED.tst2011.de-en.en.xml'
  text = path.read_text(encoding='utf-8')
  whole = '  <seg id="2"> TED.tst2011 en 2. </seg>'
  assert whole in text
  path.write_text(text.replace(whole, segment), encoding='utf-8')
  with pytest.raises(ValueError, match=r'tst2011\.de-en\.en\.xml .*line 11: '):
    read(folder, 'test')


def test_wrong_paths_and_damaged_archives(folder):
  with pytest.raises(FileNotFoundError, match=r'the archive de-en\.tgz'):
    read(folder / 'nothing', 'train')
  with pytest.raises(ValueError, match="got 'dev'"):
    iwslt.IwsltArchive(path=folder, split='dev')
  path = folder.parent / 'de-en.tgz'
  with tarfile.open(path, 'w:gz') as opened:
    opened.add(folder, 'de-en')
  whole = path.read_bytes()
  for content in (whole[: len(whole) // 2], b'', gzip.compress(b'no tar')):
    path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=r'de-en\.tgz'):
      read(path, 'train')
  bad = folder / 'train.tags.de-en.en'
  bad.write_bytes(bad.read_bytes().replace(b'sentence 3 ', b'sentence \xff '))
  with pytest.raises(ValueError, match='line 10 holds ff'):
    read(folder, 'train')


def test_a_task_of_it_is_prepared(folder, tmp_path):
  """By the gin file, to the folder `data/`."""
  from rest_jax import experiment_run as run_lib
  from rest_jax.cli import dry_run
  from rest_jax.config import gin_files, registry

  registry.register()
  built = gin_files.parse_and_build(
    [
      'gin_configs/experiments/iwslt14_de_en.gin',
      'gin_configs/tasks/iwslt14_archive.gin',
      'gin_configs/rewards/chrf.gin',
    ],
    [f'ARCHIVE={folder}', 'Task.ratings=None', 'VocabularyConfig.size=64'],
    root=registry.ROOT,
  )
  run = run_lib.Run(built, tmp_path / 'run')
  text = dry_run.describe(run, 'prepare')
  assert 'IwsltArchive: Niemand: Über nichts' in text
  assert not run.model_dir.exists()
  run.make('data')
  counts = {
    split: len(run.data.pairs(split))
    for split in (task_lib.TRAIN, task_lib.VALIDATION, task_lib.TEST)
  }
  # One of 175 tokens is longer than the task's 128.
  assert counts == {'train': 102, 'validation': 4, 'test': 25}
