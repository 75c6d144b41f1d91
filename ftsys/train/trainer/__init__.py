"""The Trainer that people import, and its parts."""
