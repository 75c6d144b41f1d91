"""Locates the cache folder, which holds files that can be made again: stores, copies of models, compiled kernels."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: $FTSYS_CACHE, else $XDG_CACHE_HOME/ftsys, else ~/.cache/ftsys."""
    own = os.environ.get("FTSYS_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ftsys"
