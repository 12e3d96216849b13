"""Reports as text, figures and pages, from gathered data."""
