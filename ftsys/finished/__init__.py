"""Opens the folder of a finished run, for commands that work on its model."""
