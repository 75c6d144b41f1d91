"""Runs unmodified Hugging Face models on packed batches."""
