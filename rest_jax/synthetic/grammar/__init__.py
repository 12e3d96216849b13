"""The built-in language pair: words, sentences and their translations."""
