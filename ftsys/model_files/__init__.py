"""Reads and completes a model's folder and its config.json, without torch."""
