"""Shows runs to people: progress, tables, and filters for log messages that a user cannot act on."""
