"""Tests of the plan: what is compiled for TPU needs libtpu and is skipped without."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

from absl import app
import jax
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.models import network as network_lib
from rest_jax.planning import chips, described, hours, measured, meshes, plan
from tests import smoke

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def command():
  """Runs the command line in a process of its own, where libtpu may load."""
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip('libtpu is not installed; it is in the extra [tpu]')

  def run(*arguments):
    return subprocess.run(
      [
        sys.executable, '-m', 'rest_jax.main', '--run_mode=plan',
        f'--gin_file={smoke.GIN_FILE}', *arguments,
      ],
      cwd=_ROOT,
      env=os.environ | {'PYTHONPATH': str(_ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )  # fmt: skip

  return run


def test_an_experiment_is_compiled_for_a_slice(command, tmp_path):
  output = tmp_path / 'plan.json'
  done = command(
    '--topology=v5e:2x2',
    '--plan_search=false',
    '--plan_only=scorer,sampling',
    # Four loops to compile, not twelve.
    '--gin.grow/DecodeConfig.row_shares=(0.5,)',
    '--gin.grow/DecodeConfig.cache_stages=(16,)',
    f'--plan_output={output}',
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(output.read_text('utf-8'))
  programs = {each['name']: each for each in found['programs']}
  assert set(programs) == {
    'scorer sources',
    'scorer candidates',
    'sampling block',
    'sampling step',
  }
  assert found['chips'] == 4
  # Sampling is data-parallel: each chip loops alone.
  assert programs['sampling block']['collectives'] == {}
  for each in programs.values():
    assert each['fits']
    assert 0 < each['memory'] < chips.CHIPS['v5e'].hbm_bytes
    assert each['bound'] in ('compute', 'memory')
  # Nothing was left behind, and the text has the same figures.
  assert not (_ROOT / 'dry_run').exists()
  memory = programs['sampling block']['memory'] / 2**30
  assert f'{memory:.2f} of 16 GiB' in done.stdout
  assert 'mesh: data=4, model=1' in done.stdout


def test_a_training_over_two_slices_is_planned(command, tmp_path):
  output = tmp_path / 'plan.json'
  asked = (
    '--topology=2xv5e:2x2',
    '--plan_search=false',
    '--plan_only=bc',
    f'--plan_output={output}',
  )
  done = command(*asked, '--gin_file=gin_configs/meshes/multislice.gin')
  assert done.returncode == 0, done.stderr
  found = json.loads(output.read_text('utf-8'))
  assert found['mesh'] == {'slice': 2, 'data': 4, 'model': 1}
  assert found['chips'] == 8
  (program,) = found['programs']
  assert program['fits']
  # Parameters are gathered, and sums of gradients go over all.
  assert program['collectives']['all-gather'] > 0
  assert '8 chips in 2 slices of 16 GiB' in done.stdout
  assert 'mesh: slices=2, data=8, model=1' in done.stdout
  refused = command(*asked)
  assert refused.returncode == 1
  assert 'Set MeshConfig.slices = 2' in refused.stderr


def test_a_program_that_does_not_fit_is_reported(command):
  done = command(
    '--topology=v5e:2x2',
    '--plan_search=false',
    '--plan_only=sampling step',
    '--gin.BLOCK_SOURCES=400000',
  )
  assert done.returncode == 0, done.stderr
  assert 'does not fit on a chip' in done.stdout


def _run(*overrides):
  return run_lib.Run(smoke.settings(*overrides), 'no such folder')


def test_sources_are_counted_from_the_text_and_cut_as_grow_cuts_them():
  assert plan._num_sources(_run(), None) == 240
  assert plan._num_sources(_run('MAX_GROW_SOURCES=100'), None) == 100
  # Given ones count before the text's.
  assert plan._num_sources(_run(), 77) == 77


def test_missing_text_files_are_not_counted():
  missing = smoke.settings(
    'DATA=/no/such/folder',
    *(
      f"{split}_{side}=('none',)"
      for split in ('TRAIN', 'VALIDATION', 'TEST')
      for side in ('SOURCES', 'REFERENCES')
    ),
    "RATINGS_FILE='none'",
    gin_files=('gin_configs/tasks/iwslt14_de_en.gin',),
  )
  run = run_lib.Run(missing, 'no such folder')
  assert plan._num_sources(run, None) is None
  assert plan._num_sources(run, 160_000) == 160_000


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'topology': 'v5e'}, 'v5e:4x4'),
    ({'effort': 1.5}, 'effort'),
    ({'num_sources': 0}, 'num_sources'),
  ],
)
def test_wrong_settings_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    plan.Settings(**{'topology': 'v5e:2x2'} | changes)


@dataclasses.dataclass
class _Program:
  """As `programs.Program`, with a shape that a batch of 4 rows at least has."""

  size: int

  @property
  def arguments(self):
    return (_shape(max(self.size // 8, 4)),)

  def resized(self, size):
    return _Program(size)


def _shape(rows):
  return jax.ShapeDtypeStruct((rows,), 'float32')


def _measured(fits, size=1):
  return measured.Measured(
    name='bc', size=size, unit='tokens', items=1, num_chips=1, fits=fits,
    flops=2e12, flops_once=2e12, accessed_bytes=1e9, arguments=3 * 2**30,
    collectives={'all-reduce': 2} if fits else {},
  )  # fmt: skip


@pytest.mark.parametrize('rows, expected', [(50, 384), (5, 32), (3, None)])
def test_the_search_compiles_each_shape_once(rows, expected):
  compiled = []

  def measure(program):
    compiled.append(program.arguments[0].shape)
    return _measured(program.arguments[0].shape[0] <= rows)

  first = _Program(64)
  found = plan.largest_of(first, measure(first), measure)
  assert found == expected
  assert len(compiled) == len(set(compiled))


def test_the_plan_in_words():
  made = plan.Plan(
    topology='v4:2x2x1',
    effort=-1.0,
    mesh={'data': 4, 'model': 1},
    suggested=meshes.MeshChoice(
      data=4, model=1, is_fully_sharded=False, state_bytes=2.5e9
    ),
    programs=(_measured(True), dataclasses.replace(_measured(False), name='x')),
    largest={'bc': 4096, 'x': None},
    parts=(hours.Part('BC', 360, 4.0),),
    num_sources=1000,
  )
  text = '\n'.join(described.lines(made))
  assert '3.00 of 32 GiB' in text
  # 2e12 / 275e12 s.
  assert 'bound by compute, 7.27 ms at best' in text
  assert '2 all-reduce' in text
  assert 'largest that fits 4,096 tokens' in text
  assert 'does not fit on a chip' in text
  assert 'largest that fits none' in text
  assert 'both cores of a chip' in text
  # 360 calls of 4 s at 40 %: an hour, of four chips.
  assert '1.00  (4.0 chip-hours)' in text
  assert '40% of the bound assumed' in text
  record = json.loads(json.dumps(made.record()))
  assert record['estimated_hours'] == {'BC': 1.0}
  assert record['programs'][0]['bound'] == 'compute'


def test_without_a_number_of_sources_no_hours_are_estimated():
  made = plan.Plan(
    topology='v5e:2x2', effort=0.0, mesh={'data': 4}, suggested=None,
    programs=(), largest={}, parts=(), num_sources=None,
  )  # fmt: skip
  text = '\n'.join(described.lines(made))
  assert '--plan_sources' in text
  assert 'larger slice' in text


@dataclasses.dataclass
class _Kept:
  """As `programs.Program`, with so many bytes to keep."""

  name: str
  model_bytes: int
  keeps_state: bool
  network: network_lib.NetworkConfig = dataclasses.field(
    default_factory=lambda: network_lib.NetworkConfig(
      num_heads=16, emb_dim=1024
    )
  )


@pytest.mark.parametrize(
  'state, scorer, expected',
  [
    # Bytes over the room of a chip: (data, model, whether fully sharded).
    (0.5, 0.5, (16, 1, False)),
    (1.5, 0.5, (16, 1, True)),
    # The scorer's parameters are split over model, never over data.
    (0.5, 1.5, (8, 2, False)),
    (1.5, 3.0, (4, 4, False)),
  ],
)
def test_the_mesh_holds_the_largest_training_and_scorer(
  state, scorer, expected
):
  room = int(meshes.STATE_SHARE * chips.CHIPS['v5e'].hbm_bytes)
  chosen = plan.suggested(
    chips.Slice('v5e:4x4'),
    [
      _Kept('bc', room // 10, True),
      _Kept('improve', int(state * room), True),
      _Kept('scorer metricx', int(scorer * room), False),
      # Not asked: each chip holds it whole.
      _Kept('sampling block', 100 * room, False),
    ],
  )
  assert (chosen.data, chosen.model, chosen.is_fully_sharded) == expected


def test_a_plan_needs_a_topology_and_no_model_dir():
  with pytest.raises(app.UsageError, match='--topology'):
    smoke.command(run_mode='plan')


def test_without_libtpu_the_command_says_how_to_install_it(monkeypatch, capsys):
  find = importlib.util.find_spec

  def without_libtpu(name, package=None):
    return None if name == 'libtpu' else find(name, package)

  monkeypatch.setattr(importlib.util, 'find_spec', without_libtpu)
  assert smoke.command(run_mode='plan', topology='v5e:2x2') == 1
  assert "pip install -e '.[tpu]'" in capsys.readouterr().err
