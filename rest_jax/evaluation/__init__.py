"""Metrics with standard errors, Best-of-N and the results file."""
