"""Measures the cases of `ftsys bench memory`: steps with fake tensors and steps of real ranks."""
