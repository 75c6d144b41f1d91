"""Plans a run before it starts: choices, memory, step time, DeepSpeed configuration. Pure functions, no torch."""
