"""Runs AdamW on float32 masters of low-precision weights."""
