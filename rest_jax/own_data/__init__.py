"""Settings that fit a user's text and machine, measured and written as gin."""
