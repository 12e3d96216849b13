"""Reward models and their normalisation."""
