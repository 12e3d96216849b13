"""The stages of a run: each reads finished folders and writes one."""
