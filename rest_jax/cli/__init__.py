"""Commands: flags, run modes, and what the command line shows."""
