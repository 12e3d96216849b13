"""`python -m rest_jax.convert`: the same as `rest-jax convert`."""

from rest_jax.cli import convert

if __name__ == '__main__':
  convert.entry_point()
