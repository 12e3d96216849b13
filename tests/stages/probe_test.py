"""`--run_mode=test_reward` on the built-in task."""

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.rewards import probes
from rest_jax.stages import folder as folder_lib
from tests import smoke


def probe_run(run, folder, *overrides):
  """A run in another folder that uses the data and the reward of a run."""
  return run_lib.Run(
    smoke.settings(*smoke.given(run, 'data', 'reward'), *overrides), folder
  )


def test_every_probe_is_answered(run, tmp_path, capsys):
  probing = probe_run(run, tmp_path)
  assert probing.make_mode('test_reward')
  manifest = folder_lib.read_manifest(tmp_path / 'probe')
  report = manifest['report']
  names = [answer['name'] for answer in report['probed']]
  assert names == [*probes.PROBES, *probes.CONTROLS]
  assert report['num_pairs'] == len(run.data.pairs('validation'))
  assert manifest['settings']['reward']['digest'] == run.reward_model.digest
  printed = capsys.readouterr().out
  for answer in report['probed']:
    assert f'\n{answer["name"]} ' in printed
    if answer['count'] and not answer['is_control']:
      share = answer['share']
      assert 0 <= share['low'] <= share['value'] <= share['high'] <= 1
  # The built-in language has no capitals.
  assert 'not tested: swapped_entity' in printed
  assert (tmp_path / 'report/probes.png').read_bytes().startswith(b'\x89PNG')


def test_the_numbers_are_those_of_the_reward(run, tmp_path):
  probe_run(run, tmp_path).make_mode('test_reward')
  report = folder_lib.read_manifest(tmp_path / 'probe')['report']
  answer = next(a for a in report['probed'] if a['name'] == 'copied_source')
  pairs = run.data.pairs('validation')
  sources = [pairs.source_text(row) for row in range(len(pairs))]
  references = [pairs.reference_text(row) for row in range(len(pairs))]
  drops = run.reward_model.score(sources, references).astype(
    np.float64
  ) - run.reward_model.score(sources, sources)
  assert answer['count'] == len(pairs)
  assert answer['share']['value'] == np.mean(drops > 0)
  assert answer['mean_drop'] == pytest.approx(drops.mean(), abs=1e-5)
  assert report['mean'] == pytest.approx(
    run.reward_model.score(sources, references).mean(), abs=1e-5
  )


def test_the_same_run_gives_the_same_answers(run, tmp_path):
  reports = []
  for folder in (tmp_path / 'a', tmp_path / 'b'):
    probe_run(run, folder).make_mode('test_reward')
    reports.append(folder_lib.read_manifest(folder / 'probe')['report'])
  assert reports[0] == reports[1]


def test_a_wrong_reward_fails_and_is_named(run, tmp_path, capsys):
  class Longest:
    name = 'longest'
    digest = 'longest'
    needs_references = False

    def score(self, sources, hypotheses, references=None):
      return np.asarray([len(text) for text in hypotheses], np.float32)

  probing = probe_run(run, tmp_path, 'ProbeConfig.minimum=0.9')
  probing.context.load_reward = lambda _: Longest()
  assert not probing.make_mode('test_reward')
  last = capsys.readouterr().out.strip().split('\n')[-1]
  assert last.startswith('FAILED minimum 90 %: repeated 0.0 %')
  assert 'empty' not in last
  # The minimum is asked of the same answers.
  before = (tmp_path / 'probe/manifest.json').read_bytes()
  lower = probe_run(run, tmp_path, 'ProbeConfig.minimum=0.0')
  lower.context.load_reward = lambda _: Longest()
  assert lower.make_mode('test_reward')
  assert (tmp_path / 'probe/manifest.json').read_bytes() == before


@pytest.mark.parametrize(('minimum', 'status'), [('0.0', 0), ('1.0', 1)])
def test_the_exit_status(run, tmp_path, monkeypatch, minimum, status):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'cache'))
  found = smoke.command(
    *smoke.given(run, 'data', 'reward'),
    f'ProbeConfig.minimum={minimum}',
    run_mode='test_reward',
    model_dir=str(tmp_path),
  )
  assert found == status
  report = folder_lib.read_manifest(tmp_path / 'probe')['report']
  shares = [a['share']['value'] for a in report['probed'] if a['share']]
  assert min(shares) < 1.0


def test_an_unfinished_reward_is_named(run, tmp_path):
  empty = run_lib.Run(
    smoke.settings(f'DATA_DIR={run.folder("data")}'), tmp_path
  )
  with pytest.raises(FileNotFoundError, match='reward'):
    empty.make_mode('test_reward')
