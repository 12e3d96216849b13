"""Reinforced Self-Training: Algorithm 1 as resumable stages.

Source: Gulcehre et al., Reinforced Self-Training (ReST) for Language Modeling,
arXiv 2308.08998.
"""

from rest_jax import experiment


def rest(run: experiment.Run) -> None:
  """Runs Algorithm 1; finished stages are used as they are.

  Args:
    run: the stages of an experiment.
  """
  settings = run.experiment
  run.prepare()
  policy = run.bc()  # pi_theta, trained on D by Eq. 1
  run.reward()  # R(x, y)

  for g in range(1, settings.num_grow_steps + 1):
    d_g = run.grow(g, policy)  # samples of pi_theta and D, scored once
    run.value(g, d_g)  # V(x, y_<t), if the loss asks for it
    for i in range(1, settings.num_improve_steps + 1):
      # Optimises J(theta) of Eq. 2 at tau_i while reward on D_eval improves.
      policy = run.improve(g, i, d_g, policy)

  if settings.online is not None:
    run.online()  # a baseline beside Algorithm 1, if it is asked for
  run.evaluate()
