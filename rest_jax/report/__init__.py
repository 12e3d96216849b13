"""Reports of finished runs: gathered from their folders, then rendered."""
