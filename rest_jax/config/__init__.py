"""Reads gin files and flags into one tree of frozen dataclasses."""
