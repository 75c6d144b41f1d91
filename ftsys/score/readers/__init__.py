"""Reads rows of text from files of any size, in constant memory; a row that cannot be used is reported, not raised."""
