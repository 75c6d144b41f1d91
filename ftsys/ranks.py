"""Tells which rank this process is, from the launcher's environment variables."""

import os


def is_main_rank() -> bool:
    """Return True for rank 0 by the launcher's RANK, and for a process without a launcher."""
    return os.environ.get("RANK", "0") == "0"
