"""Makes the sections of a report, one module each."""
