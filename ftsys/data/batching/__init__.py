"""Plans which examples form a step, and collates them into packed or padded batches."""
