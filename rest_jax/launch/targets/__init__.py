"""Where a run may be launched; each builds the commands that do it."""
