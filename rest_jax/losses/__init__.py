"""The losses L(x, y; theta) of an Improve step."""
