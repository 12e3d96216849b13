"""Starts rest_jax here, on Cloud TPU VMs and on GKE; see launch/README.md."""
