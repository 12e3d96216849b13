"""Reports as text, figures and pages, from what was gathered."""
