"""Ratings of outputs by people: the page, what it stores, what follows of it."""
