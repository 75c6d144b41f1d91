"""One module a sub-command of `ftlaunch`: `add_parser` declares its words, `command` does it and returns a status."""
