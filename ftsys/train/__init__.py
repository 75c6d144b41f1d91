"""What runs in each rank: arguments, the Trainer, evaluation, checkpoints, status. Only this package touches DeepSpeed."""
