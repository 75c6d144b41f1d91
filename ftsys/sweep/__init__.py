"""Searches for the best values of a run file's keys: Optuna proposes them, ordinary runs try them."""
