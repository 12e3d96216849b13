"""Independent seeds for independent purposes, from the one seed of a run."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
  """What randomness is for. Values are part of the results: never renumber."""

  INITIALISATION = 0
  GROW = 1
  # Draws that choose a checkpoint and draws that are reported must differ.
  SELECTION = 2
  EVALUATION = 3
  IMPROVE = 4
  REWARD = 5
  VALUE = 6
  PROBE = 7
  ONLINE = 8
  SAMPLE = 9
  REFRESH = 10
  EVIDENCE = 11
  TRAINED_ON = 12
  ENTROPY = 13


def seed_for(seed: int, purpose: Purpose, *numbers: int) -> int:
  """Returns a 31-bit seed for a purpose.

  Args:
    seed: the run's.
    purpose: what it is for.
    *numbers: such as grow and improve step.

  Returns:
    In [0, 2**31).
  """
  sequence = np.random.SeedSequence([seed, int(purpose), *numbers])
  return int(sequence.generate_state(1)[0] >> 1)
