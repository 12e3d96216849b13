"""Input and stored files of any content: an answer, or an error that says why.

What `main` prints as an error without a traceback is allowed, and nothing else.
`launch/test.sh --full` tries more than ten thousand cases; the fast tier a few.
"""

import functools
import gzip
import json
import os
import pathlib
import tempfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from rest_jax.cli import main
from rest_jax.config import gin_files, registry
from rest_jax.data import (
  pair_store,
  ratings,
  sample_rewards,
  sample_shards,
  sample_store,
  sources,
  text_files,
  vocabularies,
)
from rest_jax.evaluation import results
from rest_jax.stages import folder
from rest_jax.storage import files

_EXPECTED = main._EXPECTED
_FEW, _MANY = 25, 2_500

# What tools and people put into text files, wanted or not.
_PIECES = st.one_of(
  st.text(max_size=12).map(lambda text: text.encode('utf-8', 'ignore')),
  st.binary(max_size=4),
  st.sampled_from(
    [
      b'\n', b'\r\n', b'\r', b'\t', b'\0', b'\xef\xbb\xbf', b'\xff\xfe',
      '\u2028'.encode(), '\x85'.encode(), b'\xc3', b'\xed\xa0\x80', b'"',
      b'\x1f\x8b', b'0.5', b'nan', b'1e999', b'-inf', b'train', b'dev', b'test',
      b'x' * 70_000,
    ]
  ),
)  # fmt: skip
_TEXT = st.lists(_PIECES, max_size=12).map(b''.join)


def fuzz(**strategies):
  """Makes two tests of one: of a few cases, and of many."""

  def decorate(test):
    @pytest.mark.parametrize(
      'cases',
      [_FEW, pytest.param(_MANY, marks=pytest.mark.full)],
      ids=['few', 'many'],
    )
    @functools.wraps(test)
    def run(cases):
      given = hypothesis.given(**strategies)(test)
      settings = hypothesis.settings(
        max_examples=cases,
        deadline=None,
        derandomize=cases == _FEW,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
      )
      settings(given)()

    # Or pytest takes what is drawn for fixtures.
    del run.__wrapped__
    return run

  return decorate


@functools.cache
def _folder() -> pathlib.Path:
  held = tempfile.TemporaryDirectory()
  _folder.held = held
  return pathlib.Path(held.name)


def _write(name: str, content: bytes) -> pathlib.Path:
  path = _folder() / name
  path.write_bytes(content)
  return path


@fuzz(content=_TEXT, is_compressed=st.booleans(), cut=st.integers(0, 40))
def test_lines_of_text(content, is_compressed, cut):
  name = 'text'
  if is_compressed:
    name, content = 'text.gz', gzip.compress(content)
    content = content[: len(content) - cut] if cut > 20 else content
  path = _write(name, content)
  try:
    lines = list(text_files.read_lines(path))
  except ValueError as error:
    assert str(path) in str(error)
    return
  whole = gzip.decompress(content) if is_compressed else content
  expected = whole.decode()
  number = expected.count('\n') + (not expected.endswith('\n') and bool(whole))
  assert len(lines) == number
  assert not any('\0' in line or '\n' in line for line in lines)


@fuzz(one=_TEXT, other=_TEXT, is_tsv=st.booleans())
def test_pairs(one, other, is_tsv):
  if is_tsv:
    given = sources.TsvText(
      files=(_write('pairs.tsv', one + b'\t' + other),),
      source_column=0,
      reference_column=1,
    )
  else:
    given = sources.ParallelText(
      source_files=(_write('one', one),),
      reference_files=(_write('other', other),),
    )
  try:
    pairs = list(given.read())
  except _EXPECTED as error:
    assert str(_folder()) in str(error)
    return
  assert all(isinstance(pair.source, str) for pair in pairs)


_COLUMNS = ['split', 'source', 'hypothesis', 'score', 'annotators', 'lang_pair']
_FIELDS = st.one_of(
  st.sampled_from(
    ['train', 'dev', 'test', '', ' ', '0', '-1.5', '1e400', 'nan', '15+', 'x',
     'de-en', '\ufeff', '\u2028', '٣', '1_0', '"', 'a\0b']
  ),
  st.text(max_size=5),
  st.floats().map(str),
)  # fmt: skip


@fuzz(
  header=st.one_of(
    st.permutations(_COLUMNS), st.lists(st.sampled_from(_COLUMNS), max_size=8)
  ),
  rows=st.lists(st.lists(_FIELDS, min_size=5, max_size=7), max_size=6),
  raw=st.one_of(st.just(b''), _TEXT),
)
def test_ratings(header, rows, raw):
  text = '\n'.join('\t'.join(fields) for fields in [header, *rows])
  path = _write('ratings.tsv', text.encode('utf-8', 'ignore') + raw)
  try:
    found = ratings.RatingsFile(path=path).read()
  except ValueError as error:
    assert str(path) in str(error)
    return
  assert np.isfinite(found.score).all()
  assert (found.weight > 0).all()
  assert all(source.strip() for source in found.source)


@functools.cache
def _gin_words() -> list[str]:
  """Lines of the smoke run's configuration, and what may go wrong in one."""
  registry.register()
  gin_files.parse_and_build(
    ['gin_configs/experiments/smoke.gin'], root=registry.ROOT
  )
  return [
    line
    for line in gin_files.config_text().splitlines()
    if line and not line.startswith('#')
  ]


_VALUES = st.one_of(
  st.sampled_from(
    ['None', '@BC()', '@BC', '%LOSS', '%NOTHING', '()', '[', '{', "'a", '-1',
     '1e400', 'True', '@Experiment()', '%gin.REQUIRED', '@x/BC()', '0', "''",
     '{1: 2}', '(1, 2)', '"\0"', '1.5', '10**9', "'x' * 9"]
  ),
  st.integers().map(str),
  st.floats().map(repr),
  st.text(max_size=6),
)  # fmt: skip
_KEYS = st.sampled_from(
  ['LOSS', 'BC_STEPS', 'NetworkConfig.emb_dim', 'NetworkConfig.num_heads',
   'DecodeConfig.temperature', 'BC.label_smoothing', 'Experiment.seed',
   'VocabularyConfig.size', 'BUCKETS', 'Fixed.values', 'Nothing.at_all',
   'Experiment.task', 'Experiment.improve', 'MeshConfig.data', 'x/BC.y',
   'TrainerConfig.evaluate_every', 'include', 'import os', '', 'Experiment']
)  # fmt: skip


@fuzz(
  removed=st.integers(0, 200),
  lines=st.lists(st.tuples(_KEYS, _VALUES), max_size=3),
  overrides=st.lists(st.tuples(_KEYS, _VALUES), max_size=2),
  raw=st.one_of(st.just(b''), _TEXT.filter(lambda text: len(text) < 200)),
)
def test_gin(removed, lines, overrides, raw):
  text = list(_gin_words())
  if removed < len(text):
    del text[removed]
  text += [f'{key} = {value}' for key, value in lines]
  path = _write(
    'any.gin', '\n'.join(text).encode('utf-8', 'ignore') + b'\n' + raw
  )
  flags = ['main', *(f'--gin.{key}={value}' for key, value in overrides)]
  try:
    _, given = gin_files.split_flags(flags)
    built = gin_files.parse_and_build([path], given, root=registry.ROOT)
  except _EXPECTED as error:
    assert str(error)
    return
  assert type(built).__name__ == registry.ROOT.__name__


@functools.cache
def _stored() -> dict[str, bytes]:
  """The bytes of one file of each kind."""
  place = _folder() / 'stored'
  rows = sample_shards.SampleRows(
    source_id=np.repeat(np.arange(6), 3),
    sample_id=np.tile(np.arange(-1, 2), 6),
    tokens=[[5 + row, 7, 1] for row in range(18)],
    log_prob=np.linspace(-3, -1, 18),
    finished=np.ones(18, bool),
  )
  shard = sample_shards.write_shard(place, 0, 1, rows, 40)
  sample_rewards.write_rewards(
    place, 'r', 0, 1, np.arange(18.0), np.arange(18.0) / 18
  )
  sample_store.write_manifest(
    place, {'num_sources': 6, 'num_rows': 18, 'shards': [shard]}
  )
  texts = [f'ein Satz mit der Zahl {n}' for n in range(60)]
  vocabulary = vocabularies.train(
    vocabularies.VocabularyConfig(size=30, character_coverage=1.0),
    texts,
    place / 'vocab.model',
  )
  (place / 'text').write_text('\n'.join(texts), encoding='utf-8')
  pair_store.build(
    place,
    'train',
    sources.ParallelText(
      source_files=(place / 'text',), reference_files=(place / 'text',)
    ),
    vocabulary,
    max_source_length=64,
    max_target_length=64,
  )
  results.write(place / 'results.json', results.Results(task='t'))
  return {
    name: (place / name).read_bytes()
    for name in (
      'samples-00000-of-00001.arrow', 'rewards/r-00000-of-00001.arrow',
      'pairs-train-00000-of-00001.arrow', 'manifest.json', 'vocab.model',
      'results.json',
    )
  }  # fmt: skip


def _read_all(name: str, path: pathlib.Path) -> None:
  """Reads all of a file as its readers do."""
  if name.startswith('samples'):
    shard = sample_shards.Shard(path)
    _ = shard.tokens.lengths, shard.tokens.hashes, list(shard.tokens)
    for column in ('source_id', 'sample_id', 'log_prob', 'finished'):
      assert len(getattr(shard, column)) == len(shard)
  elif name.startswith('rewards'):
    sample_rewards.read_rewards(path, rows=18, samples_sha256='0')
  elif name.startswith('pairs'):
    pairs = pair_store.PairStore(path)
    _ = pairs.source_tokens.lengths, list(pairs.source_tokens)
    _ = pairs.source_texts(), pairs.source_text(0)
    if pairs.reference_tokens is not None:
      _ = pairs.reference_tokens.lengths, pairs.reference_texts()
  elif name == 'vocab.model':
    vocabularies.Vocabulary(path)
  elif name == 'results.json':
    results.read(path)
  else:
    folder.read_manifest(path.parent)
    store = sample_store.SampleStore.open(path.parent)
    _ = list(store.tokens), store.source_id


_EDITS = st.lists(
  st.tuples(
    st.sampled_from(['flip', 'cut', 'insert', 'zero']),
    st.integers(0, 2**31),
    st.binary(min_size=1, max_size=8),
  ),
  min_size=1,
  max_size=4,
)


def _edited(content: bytes, edits) -> bytes:
  changed = bytearray(content)
  for kind, place, some in edits:
    at = place % max(len(changed), 1)
    if kind == 'cut':
      del changed[at:]
    elif kind == 'insert':
      changed[at:at] = some
    elif changed:
      changed[at] = 0 if kind == 'zero' else changed[at] ^ 1 << some[0] % 8
  return bytes(changed)


@fuzz(which=st.integers(0, 5), edits=_EDITS)
def test_stored_files(which, edits):
  names = sorted(_stored())
  name = names[which]
  path = _folder() / 'stored' / name
  path.write_bytes(_edited(_stored()[name], edits))
  try:
    _read_all(name, path)
  except _EXPECTED as error:
    assert str(error)
  finally:
    path.write_bytes(_stored()[name])


_JSON = st.recursive(
  st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)
  ),
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(
      st.sampled_from(
        ['settings', 'shards', 'num_rows', 'num_sources', 'inventory', 'file',
         'rows', 'sha256', 'schema_version', 'schema', 'task', 'variants',
         'seal']
      ),
      inner,
      max_size=5,
    ),
  ),
  max_leaves=8,
)  # fmt: skip


@fuzz(change=_JSON, key=st.sampled_from(['', 'shards', 'num_rows', 'settings']))
def test_manifests_of_any_content(change, key):
  place = _folder() / 'stored'
  kept = _stored()['manifest.json']
  content = json.loads(kept)
  del content['seal']
  content = {**content, key: change} if key else change
  (place / 'manifest.json').write_text(json.dumps(content), encoding='utf-8')
  (place / 'results.json').write_text(json.dumps(content), encoding='utf-8')
  readers = (
    lambda: sample_store.SampleStore.open(place),
    lambda: folder.damages(place, 'fast'),
    lambda: folder.damages(place, 'full'),
    lambda: results.read(place / 'results.json'),
  )
  for read in readers:
    try:
      read()
    except _EXPECTED as error:
      assert str(place) in str(error)
  for name in ('manifest.json', 'results.json'):
    (place / name).write_bytes(_stored()[name])


@fuzz(content=_JSON, position=st.integers(0, 2**31), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_sealed_file_is_missed(content, position, bit):
  path = _folder() / 'sealed.json'
  given = {'content': json.loads(json.dumps(content), parse_constant=str)}
  files.write_json(path, given, sealed=True)
  assert files.read_json(path, must_be_sealed=True) == given
  stored = bytearray(path.read_bytes())
  stored[position % len(stored)] ^= 1 << bit
  path.write_bytes(stored)
  with pytest.raises(ValueError, match=os.path.basename(path)):
    files.read_json(path, must_be_sealed=True)
