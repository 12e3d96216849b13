"""Reinforced Self-Training: Algorithm 1 as resumable stages.

Source: Gulcehre et al., Reinforced Self-Training (ReST) for Language Modeling,
arXiv 2308.08998.
"""

from collections.abc import Iterator

from rest_jax import run as run_lib
from rest_jax.parallel import processes
from rest_jax.runtime import compilation
from rest_jax.runtime import progress as progress_lib


def rest(run: run_lib.Run) -> None:
  """Runs Algorithm 1; finished stages are used as they are.

  Args:
    run: the stages of an experiment.

  Raises:
    ValueError: if several processes are to refresh the reward.
  """
  settings = run.experiment
  if settings.refresh is not None and processes.count() > 1:
    raise ValueError(
      f'the reward is refreshed by one process; got {processes.count()}. Run '
      'the stages one by one, --run_mode=refresh without --distributed.'
    )
  num_stages = 4 + (settings.online is not None)
  num_stages += 2 * settings.num_grow_steps + settings.total_improve_steps
  if settings.refresh is not None:
    num_stages += settings.num_grow_steps - 1
  with progress_lib.Progress('rest', num_stages, 'stage') as progress:
    for done in _stages(run):
      compilation.bound()  # Variants of a comparison share a process.
      progress.note(done=done)
      progress.advance(1)


def _stages(run: run_lib.Run) -> Iterator[str]:
  """Algorithm 1; yields the name of each stage after it."""
  settings = run.experiment
  run.prepare()
  yield 'prepare'
  policy = run.bc()  # pi_theta, trained on D by Eq. 1
  yield 'bc'
  run.reward()  # R(x, y)
  yield 'reward'

  for g in range(1, settings.num_grow_steps + 1):
    d_g = run.grow(g, policy)  # samples of pi_theta and D, scored once
    yield f'grow {g}'
    run.value(g, d_g)  # V(x, y_<t), if the loss asks for it
    yield f'value {g}'
    for i in range(1, settings.improve_steps(g) + 1):
      # Optimises J(theta) of Eq. 2 at tau_i while reward on D_eval improves.
      policy = run.improve(g, i, d_g, policy)
      yield f'improve {g}.{i}'
    if settings.refresh is not None and g < settings.num_grow_steps:
      run.refresh(g, policy)  # R(x, y) learns what its raters say of pi_theta
      yield f'refresh {g}'

  if settings.online is not None:
    run.online()  # a baseline beside Algorithm 1, if it is asked for
    yield 'online'
  run.evaluate()  # with controls: BC trained on, BC as sure as the last policy
  yield 'evaluate'
