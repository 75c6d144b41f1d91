"""Builds the command line of each Python that ftsys and ftlaunch start, so that it imports nothing from its folder.

`python -m` and `python -c` look for modules in the current folder first. It may be that of a downloaded model, and hold
a file torch.py. With `-P`, and in the processes below one with PYTHONSAFEPATH, Python does not look there.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Environment variable for a program that starts Python by itself, such as torchrun and deepspeed's launcher."""
_OWN_FOLDER = str(Path(__file__).parents[2])
_SEARCHED = "PYTHONPATH"


def python_command(*words: str, python: str = "") -> list[str]:
    """Return the command of Python with some words, such as "-m" and a module; by default of this interpreter."""
    return [python or sys.executable, "-P", *words]


def pass_on_own_folder(environ: MutableMapping[str, str]) -> None:
    """Put the folder of ftsys into PYTHONPATH where `python -m` has found it in the current folder, as in a checkout.

    The processes below would not find that ftsys, or would find another. It is a folder whose code runs already.
    """
    searched = [each for each in environ.get(_SEARCHED, "").split(os.pathsep) if each]
    if not sys.flags.safe_path and sys.path[:1] == [_OWN_FOLDER] and _OWN_FOLDER not in searched:
        environ[_SEARCHED] = os.pathsep.join([_OWN_FOLDER, *searched])
