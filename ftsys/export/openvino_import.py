"""Imports OpenVINO without its telemetry.

With it, `import openvino` and every conversion send events to a server, each from a fork of this process. A run must
work without a network, and a fork of a process with threads may hang.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import cast

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """Return the module openvino, imported such that it does not find its package for telemetry and uses its stub.

    Call it before anything that imports openvino itself. Nothing changes in a process that has imported the telemetry.
    """
    modules = cast(dict[str, ModuleType | None], sys.modules)
    if _TELEMETRY in modules:
        return import_module("openvino")
    modules[_TELEMETRY] = None  # an import of it raises ModuleNotFoundError
    try:
        import_module("openvino.tools.ovc")  # the part that sends events
        return import_module("openvino")
    finally:
        del modules[_TELEMETRY]
