"""Data for reports, read from the folders of runs."""
