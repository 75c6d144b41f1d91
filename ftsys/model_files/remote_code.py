"""Knows the Python code that a model folder may carry, which runs only where `model.trust_remote_code` is set.

Such code is named by `auto_map` in config.json or tokenizer_config.json, and may do all that its user may do.
"""

import fcntl
import sys
from collections.abc import Iterator, Mapping, MutableSequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftsys.cache import cache_folder, executable_cache
from ftsys.errors import ConfigError
from ftsys.files.storage_errors import storage_errors

CLASSIFIER, TOKENIZER = "AutoModelForSequenceClassification", "AutoTokenizer"
"""Keys of `auto_map`: the classes of transformers in whose place code of the folder is taken."""

TRUST_HELP = "let Python code in the model's folder or repository run; only for code that you have read"


def has_own(kind: str, settings: Mapping[str, Any]) -> bool:
    """Return True if the contents of config.json or tokenizer_config.json name code of the folder's own for `kind`."""
    named = settings.get("auto_map")
    return isinstance(named, dict) and bool(named.get(kind))


def refusal(place: str) -> ConfigError:
    """Return the error for a model or tokenizer at `place` that only its own code can load."""
    return ConfigError(
        f"{place} needs Python code from its own folder (auto_map), and such code is not run. If you have read it and "
        "trust it, write model.trust_remote_code = true in the run file, or give --trust-remote-code to a command "
        "without one, such as `ftsys predict MODEL FILE` (run-glue: --trust_remote_code True)."
    )


def code_files(folder: Path) -> list[str]:
    """Return the names of the Python files in a model folder: `auto_map` names some, which import the others."""
    return sorted(path.name for path in folder.glob("*.py") if path.is_file())


@contextmanager
def loading_code(trusted: bool) -> Iterator[None]:
    """Let one process of this machine at a time load trusted code, which transformers first copies into its cache.

    A process that reads a file while another one copies it would get half of it. The copies lie in a folder of the
    user's own, whatever HF_MODULES_CACHE and HF_HOME name: Python runs all code that it finds beside them. Raises
    StorageError, and ConfigError if somebody else could write to that folder.
    """
    if not trusted:
        yield
        return
    with storage_errors(cache_folder()):
        folder = executable_cache("remote-code")
        lock = (folder / "lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        _copy_modules_to(folder)
        yield


def _copy_modules_to(folder: Path) -> None:
    """Have transformers copy code to `folder`, and Python look for the copies' packages there first."""
    from transformers import dynamic_module_utils
    from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME as PACKAGE

    dynamic_module_utils.HF_MODULES_CACHE = str(folder)
    places: list[tuple[MutableSequence[str], Path]] = [(sys.path, folder)]
    if PACKAGE in sys.modules:  # imported from another cache, which someone who uses transformers in this process set
        places.append((sys.modules[PACKAGE].__path__, folder / PACKAGE))
    for paths, place in places:
        if str(place) not in paths[:1]:
            paths.insert(0, str(place))
