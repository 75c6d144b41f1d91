"""The packed view of unmodified Hugging Face encoders."""
