"""N samples for each source from an encoder-decoder policy."""
