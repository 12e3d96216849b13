"""`python launch/launch.py`: `rest-jax launch` from a checkout."""

import pathlib
import sys

# Run as a file, this folder is where Python looks for modules, not the checkout.
if not __package__:
  sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from rest_jax.launch import command_line

if __name__ == '__main__':
  command_line.entry_point()
