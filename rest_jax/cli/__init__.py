"""The command line: commands, flags, run modes and checks."""
