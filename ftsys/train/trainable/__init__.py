"""Decides which weights of a run are trained, and at which learning rates: freezing, LoRA, layer-wise decay."""
