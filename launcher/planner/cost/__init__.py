"""Predicts memory, communication and time of a step."""
