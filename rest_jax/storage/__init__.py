"""Atomic files, folder locks, inventories and bucket mirrors."""
