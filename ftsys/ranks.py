"""Tells which rank this process is, from the launcher's environment variables."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def is_main_rank() -> bool:
    """Whether this process speaks for the run: rank 0 by the launcher's RANK, or no launcher at all."""
    return os.environ.get("RANK", "0") == "0"
