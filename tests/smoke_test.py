"""The run that all tests share is made once."""

from concurrent import futures
import time

from rest_jax import experiment_run as run_lib
from tests import smoke


def test_the_first_worker_makes_it_for_all(tmp_path, monkeypatch):
  made = []

  def make(run):
    made.append(run.model_dir)
    run.model_dir.mkdir()
    time.sleep(0.2)
    (run.model_dir / 'results.json').write_text('{}')

  # Gin has one state for all threads.
  experiment = smoke.settings()
  monkeypatch.setattr(smoke, 'settings', lambda: experiment)
  monkeypatch.setattr(run_lib.Run, 'rest', make)
  monkeypatch.setenv('PYTEST_XDIST_WORKER', 'gw0')
  folders = [tmp_path / name for name in ('gw0', 'gw1')]
  for folder in folders:
    folder.mkdir()
  with futures.ThreadPoolExecutor(2) as pool:
    runs = list(pool.map(smoke.finished, folders))
  assert made == [tmp_path / 'smoke']
  for run, folder in zip(runs, folders, strict=True):
    assert run.model_dir == folder / 'smoke'
    assert (run.model_dir / 'results.json').exists()
