"""Text, tokens, samples and ratings: what a run reads and stores."""
