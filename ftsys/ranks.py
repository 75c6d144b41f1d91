"""Reads this process's rank from the launcher's environment variables."""

import os


def is_main_rank() -> bool:
    """Return True on rank 0, by the launcher's RANK, and in a process without a launcher."""
    return os.environ.get("RANK", "0") == "0"
