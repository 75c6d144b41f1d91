"""`make demo`: trains on the synthetic sample and compares with a bag of words."""
