"""The reward of a run and its judge, without a run."""

from rest_jax.rewards import lexical
from rest_jax.stages import context as context_lib
from rest_jax.stages import run_reward


class _Context(context_lib.Context):
  def resources(self, trained):
    del trained


class _Judge(lexical.Chrf):
  def load(self, resources):
    del resources
    return lexical.Chrf(name='loaded')


def test_a_judge_is_loaded_once(tmp_path):
  context = _Context(data_folder=tmp_path)
  reward = run_reward.RunReward(trained=tmp_path, source=None, scale=None)
  judge = _Judge()
  loaded = reward.load_judge(judge, context)
  assert loaded is not None and loaded.name == 'loaded'
  assert reward.load_judge(judge, context) is loaded
  assert reward.load_judge(_Judge(name='other'), context) is not loaded
  context.forget_data()
  assert reward.load_judge(judge, context) is not loaded
