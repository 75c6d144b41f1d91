"""Changes classes and attributes of a model's modules on the instance, and takes the changes off again."""
