"""`python -m rest_jax.main`: the same as `rest-jax run`."""

from rest_jax.cli import main

if __name__ == '__main__':
  main.entry_point()
