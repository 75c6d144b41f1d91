"""Has the only code that ftsys puts into Hugging Face's caches: the script of GLUE's metric, and its place there."""

import hashlib
from collections.abc import Iterator

from ftsys.files.untrusted import FileEntries

METRIC_SCRIPT = b'''"""GLUE's metrics, computed by ftsys. Put here by `ftsys offline-assets`."""

from ftsys.offline.hf_metric import GlueMetric  # the class that evaluate looks for in this file
'''
_SHA256 = hashlib.sha256(METRIC_SCRIPT).hexdigest()
METRIC_PLACE = f"evaluate_modules/metrics/evaluate-metric--glue/{_SHA256}/glue.py"
"""Path of the script in the cache of modules, HF_MODULES_CACHE."""


def other_code(files: FileEntries, modules: str) -> Iterator[str]:
    """Yield the names of `files` in the folder `modules` whose bytes are not those that ftsys puts there.

    `evaluate.load` runs the script and the `__init__.py` of each folder above it, which are empty.
    """
    for name, entry in files.items():
        is_script = name == f"{modules}/{METRIC_PLACE}" and entry["sha256"] == _SHA256
        is_package = name.endswith("/__init__.py") and not entry["bytes"]
        if name.startswith(f"{modules}/") and not is_script and not is_package:
            yield name
