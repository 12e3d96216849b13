"""What a run is made of, before anything of it is made."""

import pytest

from rest_jax import run as run_lib
from rest_jax.cli import dry_run
from rest_jax.stages import evaluate
from tests import smoke

_REFRESHED = ('gin_configs/rewards/refreshed.gin',)


def test_improve_steps_may_differ_between_grow_steps(tmp_path):
  settings = smoke.settings(
    'NUM_IMPROVE_STEPS=(2, 1)', 'QUANTILES=((0.5, 0.7), (0.8,))'
  )
  run = run_lib.Run(settings, tmp_path)
  names = ['bc', 'improve_1_1', 'improve_1_2', 'improve_2_1']
  assert [step.name for step in run.policies()] == names
  assert run.policy_before(2, 1).name == 'improve_1_2'
  assert run.last_policy_of(1).name == 'improve_1_2'
  assert run.last_policy_of(2).name == 'improve_2_1'
  plan = dry_run.describe(run, 'rest')
  assert '1.2       at 0.7,' in plan and '2.1       at 0.8,' in plan


@pytest.mark.parametrize(
  'overrides, message',
  [
    (['NUM_IMPROVE_STEPS=(2, 1, 1)'], 'each of the 2 Grow steps'),
    (['NUM_IMPROVE_STEPS=(2, 0)'], r'at least 1; got \(2, 0\)'),
    (['QUANTILES=((0.5, 0.7), (0.8,))'], 'Improve step 2 of Grow step 2'),
    (['QUANTILES=((0.5, 0.7),)'], '1 Grow steps'),
  ],
)
def test_steps_without_a_value_are_refused(overrides, message):
  with pytest.raises(ValueError, match=message):
    smoke.settings(*overrides)


def test_nothing_finished_is_nothing_to_evaluate(tmp_path, monkeypatch):
  run = run_lib.Run(smoke.settings(), tmp_path)
  with pytest.raises(FileNotFoundError, match='--run_mode=bc'):
    run.evaluate_finished()
  monkeypatch.setattr(evaluate, 'run', lambda *_, **__: pytest.fail('measured'))
  monkeypatch.setattr(run, 'report', lambda: None)
  run.evaluate([])


def test_a_refresh_is_not_of_another_run_s_grow_step(tmp_path):
  def make(grow_dir, model_dir=tmp_path / 'a', **settings):
    return run_lib.Run(
      smoke.settings(f"GROW_DIR='{grow_dir}'", gin_files=_REFRESHED),
      model_dir,
      **settings,
    )

  other = tmp_path / 'b/grow_1'
  with pytest.raises(ValueError, match=r'GROW_DIR = .*b/grow_1.* Copy'):
    make(other)
  # By whatever name it goes.
  with pytest.raises(ValueError, match='GROW_DIR'):
    make(tmp_path / 'a/../b/grow_1')
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a/grow_1').symlink_to(other)
  with pytest.raises(ValueError, match='GROW_DIR'):
    make(tmp_path / 'a/grow_1')
  assert make(tmp_path / 'c/grow_1', tmp_path / 'c').model_dir.name == 'c'
  # Without a refresh nothing is written there.
  run_lib.Run(smoke.settings(f"GROW_DIR='{other}'"), tmp_path / 'a')
