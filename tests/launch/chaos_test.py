"""Tests of the fault campaign: that it finds what is lost, and a small one."""

import collections
import json
import os
import pathlib
import subprocess
import sys

import pytest

from launch import chaos, chaos_differences
from rest_jax.storage import files
from tests import smoke

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_moments_are_drawn_from_the_seed():
  drawn = [chaos.draw_moment(0, number) for number in range(300)]
  assert drawn == [chaos.draw_moment(0, number) for number in range(300)]
  assert drawn != [chaos.draw_moment(1, number) for number in range(300)]
  kinds = collections.Counter(moment.kind for moment in drawn)
  assert set(kinds) == set(chaos._KINDS) and min(kinds.values()) > 10


def test_equal_runs_have_no_differences(run, tmp_path):
  copy = smoke.copied(run, tmp_path)
  path = copy.folder('bc') / 'manifest.json'
  manifest = files.read_json(path)
  manifest['stage_seconds'] += 1
  files.write_json(path, manifest, sealed=True)
  assert not list(chaos_differences.find(run.model_dir, copy.model_dir))


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _change_results(run):
  path = run.model_dir / 'results.json'
  content = files.read_json(path)
  content['variants'][0]['bleu'] += 1e-9
  files.write_json(path, content, sealed=True)


def _change_arrays(run):
  folder = run.folder('bc') / 'checkpoints' / '30'
  for path in folder.glob('params/**/d/*'):
    _flip(path)


@pytest.mark.parametrize(
  'change, what',
  [
    (
      lambda run: _flip(next(run.folder('grow_1').glob('samples-00001*'))),
      'grow_1/samples-00001-of-00004.arrow has other bytes',
    ),
    (
      lambda run: next(run.folder('grow_2').glob('rewards/*00003*')).unlink(),
      '00003-of-00004.arrow is missing',
    ),
    (_change_results, 'results.json has another content'),
    (_change_arrays, 'bc/checkpoints: 30 '),
  ],
  ids=['shard', 'rewards', 'results', 'arrays'],
)
def test_what_is_lost_is_found(run, tmp_path, change, what):
  copy = smoke.copied(run, tmp_path)
  change(copy)
  found = list(chaos_differences.find(run.model_dir, copy.model_dir))
  assert len(found) == 1 and what in found[0]


def test_a_campaign_is_not_continued_with_other_settings(tmp_path):
  chaos.Campaign(tmp_path, ['--gin_file=a.gin'], 0).save()
  with pytest.raises(ValueError, match='has the campaign of seed 0'):
    chaos.Campaign(tmp_path, ['--gin_file=a.gin'], 1)


def _chaos_sh(*arguments: str) -> subprocess.CompletedProcess:
  """What chaos.sh does once the environment is there."""
  *_, last = (_ROOT / 'launch/chaos.sh').read_text('utf-8').splitlines()
  return subprocess.run(
    ['bash', '-c', last, 'chaos.sh', *arguments],
    cwd=_ROOT,
    env={**os.environ, 'VENV_PYTHON': sys.executable},
    capture_output=True,
    text=True,
    check=False,
    timeout=1800,
  )


def test_the_script_starts_the_campaign():
  done = _chaos_sh('--kills=1', '--what=nothing')
  assert done.returncode == 2
  assert "unknown arguments: ['--what=nothing']" in done.stderr


@pytest.mark.full
def test_a_small_campaign_loses_nothing(tmp_path):
  done = _chaos_sh(
    '--kills=4', '--seed=0', f'--folder={tmp_path}',
    '--gin.NUM_GROW_STEPS=1', '--gin.NUM_IMPROVE_STEPS=1',
  )  # fmt: skip
  last = done.stdout.splitlines()[-1]
  assert done.returncode == 0, (last, done.stderr[-2000:])
  assert last.startswith('chaos: 4 kills') and last.endswith('nothing was lost')
  state = json.loads((tmp_path / 'campaign.json').read_text())
  [campaign] = state['runs']
  assert len(campaign['kills']) == 4 and len(campaign['terminated']) == 1
  assert campaign['torn']['repaired']
