"""Fits a temperature and thresholds to a trained classifier, and measures what they change on rows held out."""
