"""What a rank does before anything else is imported."""
