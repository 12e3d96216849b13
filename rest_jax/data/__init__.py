"""Text, tokens, samples and ratings on disk."""
