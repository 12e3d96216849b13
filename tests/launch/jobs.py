"""Jobs for tests."""

from rest_jax.launch import job as job_lib

SMOKE = 'gin_configs/experiments/smoke.gin'


def job(**changes) -> job_lib.Job:
  """The smoke experiment in a folder that workers share."""
  return job_lib.Job(
    **{'model_dir': '/mnt/a', 'gin_files': (SMOKE,), **changes}
  )
