"""Changes the code in one place at a time and counts the changes (mutants) that the nearest tests notice."""
