"""Reads facts of one host and derives the ranks' settings from them: cores, ports, network interface."""
