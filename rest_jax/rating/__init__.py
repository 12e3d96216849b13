"""Human ratings of outputs: the page, its storage, and statistics."""
