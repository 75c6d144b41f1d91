"""The folder of what can be made again: stores, downloaded models' copies, compiled kernels."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where ftsys keeps what can be made again: $FTSYS_CACHE, else $XDG_CACHE_HOME/ftsys, else ~/.cache/ftsys."""
    own = os.environ.get("FTSYS_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ftsys"
