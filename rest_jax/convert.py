"""`python -m rest_jax.convert`: policies to and from other libraries' formats."""

from absl import flags

from rest_jax.cli import convert

flags.adopt_module_key_flags(convert)  # For --help.

if __name__ == '__main__':
  convert.entry_point()
