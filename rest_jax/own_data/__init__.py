"""Chooses settings for a user's text and machine, and writes them as gin."""
