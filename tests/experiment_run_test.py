"""What a run is made of, before anything of it is made."""

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import dry_run
from tests import smoke


def test_improve_steps_may_differ_between_grow_steps(tmp_path):
  settings = smoke.settings(
    'NUM_IMPROVE_STEPS=(2, 1)', 'QUANTILES=((0.5, 0.7), (0.8,))'
  )
  run = run_lib.Run(settings, tmp_path)
  names = ['bc', 'improve_1_1', 'improve_1_2', 'improve_2_1']
  assert [step.name for step in run.policies()] == names
  assert run.stage('improve_2_1').start is run.stage('improve_1_2')
  assert run.stage('grow_2').policy is run.stage('improve_1_2')
  plan = dry_run.describe(run, 'rest')
  assert '1.2       quantile 0.7,' in plan and '2.1       quantile 0.8,' in plan


@pytest.mark.parametrize(
  'overrides, message',
  [
    (['NUM_IMPROVE_STEPS=(2, 1, 1)'], 'per Grow step for 2 Grow steps'),
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
  monkeypatch.setattr(run, 'make', lambda _: pytest.fail('measured'))
  with pytest.raises(FileNotFoundError, match='--run_mode=bc'):
    run.evaluate()


def test_the_time_left_is_that_of_finished_stages_of_the_same_kind():
  class Improve:
    is_given = False

    def __init__(self, seconds=None):
      self.is_finished = seconds is not None
      self._seconds = seconds

    def manifest(self):
      return {'stage_seconds': self._seconds}

  class Evaluate(Improve):
    pass

  later = [Improve(), Improve(), Evaluate()]
  made = [Improve(20.0), Improve(40.0)]
  assert run_lib._left([*made, *later], later) == 'at least 01:00'
  made.append(Evaluate(5.0))
  assert run_lib._left([*made, *later], later) == 'about 01:05'
  assert run_lib._left(later, later) == ''
