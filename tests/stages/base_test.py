"""A new stage is one file: everything that goes through a run sees it."""

import pathlib

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax import rest
from rest_jax.cli import dry_run, modes, run_modes, verification
from rest_jax.parallel import processes
from rest_jax.report import index_page
from rest_jax.stages import base
from rest_jax.stages import folder as folder_lib
from tests import smoke
from tests.stages import toy_stage


@pytest.fixture
def run(tmp_path, monkeypatch):
  """The smoke run with a stage more, of which nothing is made."""
  stages = rest.stages

  def with_words(experiment, model_dir):
    made = stages(experiment, model_dir)
    words = toy_stage.CountWords(data=made[0], folder=model_dir / 'words')
    return [*made, words]

  monkeypatch.setattr(rest, 'stages', with_words)
  return run_lib.Run(smoke.settings(), tmp_path)


def test_a_run_makes_it(run, monkeypatch):
  order = []
  monkeypatch.setattr(
    base, 'run_stage', lambda stage, _: order.append(stage.name)
  )
  monkeypatch.setattr(run, 'report', lambda: None)
  run.rest()
  assert order[-1] == 'words' and order[0] == 'data'
  monkeypatch.setattr(processes, 'count', lambda: 2)
  with pytest.raises(ValueError, match='counted by one process; got 2'):
    run.rest()


def test_its_mode_the_plan_the_check_and_the_report_see_it(run):
  plan = dry_run.describe(run, 'rest')
  assert f'    to do     words: {run.model_dir}/words' in plan
  assert '  words     of the sources' in plan
  with pytest.raises(FileNotFoundError, match='--run_mode=prepare'):
    modes.stage(run, 'count', 1, 1)
  run.make('data')
  assert modes.stage(run, 'count', 1, 1)
  assert run.stage('words').manifest()['words'] > len(run.data.pairs('train'))
  assert f'finished  words: {run.model_dir}/words' in dry_run.describe(
    run, 'rest'
  )
  assert index_page.finished(run, {})[-1] == ('words', run.folder('words'))
  path = run.folder('words') / 'counts.txt'
  whole = path.read_text()
  path.write_text('1')
  with pytest.raises(verification.DamagedError, match=r'words/counts\.txt'):
    verification.check(run, 'full', repairs=False)
  verification.check(run, 'full')
  run.make('words')
  assert path.read_text() == whole


def test_help_has_its_mode_without_importing_it():
  found = run_modes.all_modes(
    (run_modes.STAGES, pathlib.Path(toy_stage.__file__).parent)
  )
  [mode] = [mode for mode in found if mode.name == 'count']
  assert not mode.is_shared and not mode.is_profiled
  assert '\ncount: Counts words.' in run_modes.describe(found)
  named = {kind.run_mode for kind in base.kinds()}
  assert named - {''} <= {mode.name for mode in found}


def test_an_unfinished_one_says_which_mode_makes_it():
  with pytest.raises(FileNotFoundError, match='--run_mode=count --model_dir=a'):
    folder_lib.read_manifest('a/words')


def test_what_one_process_and_profiles_do():
  found = {mode.name: mode for mode in run_modes.all_modes()}
  shared = {name for name, mode in found.items() if mode.is_shared}
  assert shared == {
    'rest', 'prepare', 'bc', 'reward', 'grow', 'value', 'improve', 'online',
    'evaluate',
  }  # fmt: skip
  assert {name for name, mode in found.items() if mode.is_profiled} == {
    'rest', 'bc', 'reward', 'grow', 'value', 'improve', 'refresh', 'evaluate',
    'compare',
  }  # fmt: skip


def test_a_mode_without_a_stage_says_what_to_add(run):
  for mode, words in (
    ('value', r'losses/oac\.gin'),
    ('online', r'online/ppo\.gin'),
    ('refresh', r'rewards/refreshed\.gin'),
  ):
    with pytest.raises(ValueError, match=words):
      run.make_mode(mode)
  with pytest.raises(ValueError, match=r'improve has --grow_step=1 --impr'):
    run.make_mode('improve', 3, 1)
