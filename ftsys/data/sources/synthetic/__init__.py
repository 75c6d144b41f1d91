"""Generates the synthetic paraphrase sample from a grammar and a lexicon."""
