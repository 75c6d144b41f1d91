"""What runs where: plans, DeepSpeed files and starts, made without importing torch."""
