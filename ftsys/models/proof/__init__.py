"""Asks the model itself, before a run, how it may be fed: packed, without its padding, or padded on which side."""
