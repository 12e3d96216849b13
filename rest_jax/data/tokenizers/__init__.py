"""Tokenisers of model families; see `vocabularies.Vocabulary`."""
