"""`python -m rest_jax.main`: trains and evaluates by Reinforced Self-Training."""

from absl import flags

from rest_jax.cli import main, options

flags.adopt_module_key_flags(options)  # For --help.

if __name__ == '__main__':
  main.entry_point()
