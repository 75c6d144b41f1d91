"""Plans runs, writes DeepSpeed files and starts ranks, without importing torch."""
