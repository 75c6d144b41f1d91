"""Trains the cells of a table on the devices of one machine, several at a time."""
