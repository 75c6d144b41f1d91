"""Builds the project's packages, checks that nothing is missing in them, and lists what they stand on."""
