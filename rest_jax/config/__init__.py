"""Gin at the door: files and flags become one tree of frozen dataclasses."""
