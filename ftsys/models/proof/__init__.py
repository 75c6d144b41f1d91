"""Shows before a run that packed batches give a model's own results, or explains why they would not."""
