"""Reinforced Self-Training (ReST) for encoder-decoder models in JAX."""
