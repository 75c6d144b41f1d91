"""The line from text to packed batches: sources -> prepare -> store -> batching -> collate -> loader."""
