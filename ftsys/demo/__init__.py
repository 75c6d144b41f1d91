"""Implements `ftsys demo`: trains on the synthetic sample and compares the model with a bag of words."""
