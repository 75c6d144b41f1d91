"""Trains: the Hugging Face Trainer with its data, loss, evaluation and checkpoints replaced. Imports lazily."""
