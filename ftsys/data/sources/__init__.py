"""Reads text with labels from the Hub, from files, from a Dataset or from the synthetic sample."""
