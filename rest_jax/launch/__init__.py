"""The launcher: starts a run here, on Cloud TPU VMs or on GKE."""
