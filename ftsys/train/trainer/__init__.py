"""Holds the Trainer that people import, and its parts."""
