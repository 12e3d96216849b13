"""Paths, atomic files, locks and inventories, in local folders and buckets."""
