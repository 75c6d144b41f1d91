"""Saves and resumes trainings: one interface, two implementations."""
