"""Estimates of memory and time on a TPU slice, made without one."""
