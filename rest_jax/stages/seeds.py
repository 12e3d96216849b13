"""Independent seeds for each purpose, from the seed of a run."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
  """Purposes of random numbers. Results depend on the values: never renumber."""

  INITIALISATION = 0
  GROW = 1
  # Samples for choosing a checkpoint and for the report must differ.
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
  """Returns a 31-bit seed for a purpose, in [0, 2**31).

  Args:
    *numbers: further distinctions, such as Grow and Improve step.
  """
  sequence = np.random.SeedSequence([seed, int(purpose), *numbers])
  return int(sequence.generate_state(1)[0] >> 1)
