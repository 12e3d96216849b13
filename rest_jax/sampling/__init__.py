"""Sampling of N outputs per source from an encoder-decoder policy."""
