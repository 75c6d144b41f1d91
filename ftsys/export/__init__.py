"""Writes a trained model for other runtimes, and compares its answers with those of the stock model on real rows."""
