"""Holds one module for each sub-command of `ftlaunch`: `add_parser` declares its options, `command` runs it."""
