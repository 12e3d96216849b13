"""Scripts that start rest_jax from a checkout; see launch/README.md."""
