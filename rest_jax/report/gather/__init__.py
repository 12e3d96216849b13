"""What reports show, read from the folders of runs."""
