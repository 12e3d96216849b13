"""Tests that no damaged file of a run is read as good data."""

import json
import pathlib
import random
import re

import pytest
import tensorstore

from rest_jax import experiment_run as run_lib
from rest_jax.cli import verification
from rest_jax.evaluation import results
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files
from rest_jax.training import journal
from tests import smoke

# Made from other files, and read by no stage.
_DERIVED = ('.jax_cache', 'report', '.lock')
_DERIVED_NAMES = ('events.out.tfevents.', 'config.gin', 'operative_config.gin')


@pytest.fixture
def copy(run, tmp_path):
  return smoke.copied(run, tmp_path)


def _files(run) -> list[pathlib.Path]:
  return sorted(path for path in run.model_dir.rglob('*') if path.is_file())


def _checked_files(run) -> list[pathlib.Path]:
  return sorted(
    path
    for path in _files(run)
    if not set(path.relative_to(run.model_dir).parts) & set(_DERIVED)
    and not path.name.startswith(_DERIVED_NAMES)
  )


def _flip(path: pathlib.Path, draw: random.Random) -> None:
  content = bytearray(path.read_bytes())
  content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
  path.write_bytes(bytes(content))


def _cut(path: pathlib.Path, draw: random.Random) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: draw.randrange(len(content))])


def _complaints(run: run_lib.Run, path: pathlib.Path, verify: str) -> str:
  """What the check of a file's folder says."""
  if path.name in ('results.json', 'evaluation.json'):
    results.read(path, must_be_sealed=verify == 'full')
    return ''
  [directory] = [d for d in run.folders() if path.is_relative_to(d)]
  return '\n'.join(map(str, folder_lib.damages(directory, verify)))


def test_what_is_whole_is_not_complained_about(run):
  verification.check(run, 'full', repairs=False)
  assert all((d / folder_lib.MANIFEST).exists() for d in _finished(run))


def _finished(run):
  absent = ('probe', 'value_1', 'value_2')
  return [d for d in run.folders() if d.name not in absent]


@pytest.mark.parametrize('damage', [_flip, _cut])
def test_every_damaged_file_is_named(copy, damage):
  draw = random.Random(0)
  checked = _checked_files(copy)
  # One of each kind at least; of Orbax there are hundreds.
  assert {path.suffix for path in checked} >= {
    '.arrow', '.json', '.jsonl', '.npz', '.txt', '.model', '.ocdbt',
  }  # fmt: skip
  missed = []
  for path in checked:
    whole = path.read_bytes()
    for _ in range(20 if path.suffix in ('.json', '.arrow') else 1):
      if not whole:
        continue
      damage(path, draw)
      try:
        said = _complaints(copy, path, 'full')
      except ValueError as error:
        said = str(error)
      if str(path) not in said:
        missed.append((path, said))
      path.write_bytes(whole)
  assert not missed


def test_flipped_bytes_of_objects_are_named(run, bucket_dir):
  """One object of each kind and stage; manifests, which list the others, last."""
  draw = random.Random(2)
  # Not by gcsfs: the emulator loses a last byte that is a carriage return.
  store = tensorstore.KvStore.open(f'{bucket_dir}/').result()
  for path in _files(run):
    name = path.relative_to(run.model_dir).as_posix()
    store.write(name, path.read_bytes()).result()
  copy = run_lib.Run(run.experiment, bucket_dir)
  flipped, sealed = {}, []
  for path in _checked_files(run):
    relative = path.relative_to(run.model_dir)
    if path.name in (folder_lib.MANIFEST, 'results.json', 'evaluation.json'):
      sealed.append(relative)
    elif path.stat().st_size:
      kind = (relative.parts[0], path.suffix, 'checkpoints' in path.parts)
      flipped.setdefault(kind, relative)
  for relative in flipped.values():
    _flip(bucket_dir / relative, draw)
  directories = [d for d in copy.folders() if folder_lib.is_finished(d)]
  assert {
    damage.path
    for directory in directories
    for damage in folder_lib.damages(directory, 'full')
  } == {bucket_dir / relative for relative in flipped.values()}
  assert len({kind[1] for kind in flipped}) > 5
  for relative in sealed[:3]:
    _flip(bucket_dir / relative, draw)
    with pytest.raises(ValueError, match=re.escape(str(relative))):
      _complaints(copy, bucket_dir / relative, 'full')


def test_a_cut_or_missing_file_is_named_without_being_read(copy):
  shard = next(copy.folder('grow_1').glob('samples-00001*'))
  content = shard.read_bytes()
  shard.write_bytes(content[:-1])
  outputs = next(copy.model_dir.glob('evaluate/*/greedy.txt'))
  outputs.unlink()
  with pytest.raises(verification.DamagedError) as raised:
    verification.check(copy, 'fast', repairs=False)
  assert f'{shard} has {len(content) - 1} bytes' in str(raised.value)
  assert f'{outputs} is missing' in str(raised.value)
  # A flipped bit costs a reading of all to be found.
  shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
  outputs.write_bytes(b'')
  with pytest.raises(verification.DamagedError) as raised:
    verification.check(copy, 'fast', repairs=False)
  assert str(shard) not in str(raised.value)


def _tree(run) -> dict[str, bytes]:
  """All that must be the same when something was made again."""
  return {
    str(path.relative_to(run.model_dir)): path.read_bytes()
    for path in _checked_files(run)
    if path.suffix in ('.arrow', '.npz', '.txt', '.model', '.jsonl')
    and 'checkpoints' not in path.parts
  }


def _digests(run) -> dict[str, str]:
  return {
    str(step.policy_folder): folder_lib.read_manifest(step.policy_folder)[
      'training'
    ]['params_digest']
    for step in run.policies()
  }


def test_what_is_damaged_is_made_again_alone(copy, caplog):
  draw = random.Random(1)
  before, digests = _tree(copy), _digests(copy)
  first, second = copy.folder('grow_1'), copy.folder('grow_2')
  parameters = next(
    (copy.folder('improve_1_1') / 'checkpoints').glob('*/params/d/*')
  )
  damaged = [
    next(first.glob('samples-00001*')),
    next(second.glob('rewards/learned-00002*')),
    next(copy.folder('data').glob('pairs-validation*')),
    next(copy.model_dir.glob('evaluate/bc-test/outputs.npz')),
    parameters,
  ]
  for path in damaged:
    _flip(path, draw)
  others = [
    path
    for path in [*first.rglob('*.arrow'), *second.glob('*.arrow')]
    if path not in damaged and '00001-of' not in path.name
    if path.parent.name != 'rewards'
  ]
  times = {path: path.stat().st_mtime_ns for path in others}
  with caplog.at_level('WARNING'):
    verification.check(copy, 'full')
  for path in damaged:
    assert f'{path} does not have its checksum' in caplog.text
    assert not path.exists()
  with smoke.without_pictures():
    copy.rest()
  assert _tree(copy) == before
  assert _digests(copy) == digests
  assert {path: path.stat().st_mtime_ns for path in others} == times
  verification.check(copy, 'full', repairs=False)


def test_what_cannot_be_made_again_ends_the_run(copy):
  bc = copy.folder('bc')
  manifest = files.read_json(bc / folder_lib.MANIFEST)
  manifest['inventory']['rated.tsv'] = (3, '')
  files.write_json(bc / folder_lib.MANIFEST, manifest, sealed=True)
  with pytest.raises(verification.DamagedError, match=str(bc / 'rated.tsv')):
    verification.check(copy, 'fast')
  assert (bc / folder_lib.MANIFEST).exists()


@pytest.mark.parametrize('verify', ['fast', 'full'])
@pytest.mark.parametrize('added', [b'x', b'5', b'\xff', b'{}\n'])
def test_what_no_stage_reads_only_warns(copy, caplog, verify, added):
  path = copy.folder('bc') / 'metrics.jsonl'
  whole = path.read_bytes()
  lines = journal.read_metrics(path.parent)
  path.write_bytes(whole + added)
  with caplog.at_level('WARNING'):
    verification.check(copy, verify)
    assert journal.read_metrics(path.parent) == lines
  size = f'has {len(whole + added)} bytes in place of {len(whole)}'
  assert f'{path} {size}; no stage reads it' in caplog.text
  assert path.read_bytes() == whole + added
  assert f'{path}: 1 of {len(lines) + 1} lines are damaged' in caplog.text


def test_folders_of_other_runs_are_not_changed(copy, tmp_path):
  shard = next(copy.folder('grow_1').glob('samples-00001*'))
  shard.write_bytes(b'')
  other = run_lib.Run(
    smoke.settings(f'GROW_DIR={copy.folder("grow_1")}'), tmp_path / 'other'
  )
  with pytest.raises(verification.DamagedError, match=str(shard)):
    verification.check(other, 'fast')
  assert shard.exists()
  assert (copy.folder('grow_1') / folder_lib.MANIFEST).exists()


def test_a_mode_that_reads_a_part_is_not_stopped_by_the_rest(copy):
  next(copy.model_dir.glob('evaluate/*/greedy.txt')).unlink()
  verification.check(copy, 'full', only={copy.folder('data')}, repairs=False)


def test_a_folder_without_checksums_cannot_be_verified(copy):
  path = copy.folder('bc') / folder_lib.MANIFEST
  manifest = files.read_json(path)
  del manifest['inventory']
  files.write_json(path, manifest, sealed=True)
  verification.check(copy, 'fast', repairs=False)
  with pytest.raises(ValueError, match='must list the checksums'):
    verification.check(copy, 'full', repairs=False)
  path.write_text(json.dumps(manifest), encoding='utf-8')
  with pytest.raises(ValueError, match='must end with a checksum'):
    verification.check(copy, 'full', repairs=False)


def test_what_killed_programs_left_is_removed(copy):
  left = [
    copy.folder('grow_1') / '.samples-00001-of-00004.arrow.12.tmp',
    copy.model_dir / '.results.json.12.tmp',
  ]
  for path in left:
    path.write_bytes(b'half')
  removed = copy.model_dir / '.bc.removed'
  removed.mkdir()
  (removed / 'x').write_bytes(b'half')
  verification.check(copy, 'fast', repairs=False)
  assert all(path.exists() for path in (*left, removed))
  verification.check(copy, 'fast')
  assert not any(path.exists() for path in (*left, removed))
  assert copy.folder('bc').exists()
