"""A program while it runs: progress, interruption, profiles, the terminal."""
