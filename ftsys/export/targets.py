"""Lists the targets of `ftsys export`: a row for each, with the packages it needs and the drift it may have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from packaging.version import Version

from ftsys.errors import ConfigError
from ftsys.export.openvino_import import import_openvino

Inputs = Mapping[str, np.ndarray]
Run = Callable[[Inputs], np.ndarray]
"""Computes logits (S, C) float32 from padded inputs, each (S, L) int64."""

EXPORTS_SINCE = "5.23"
"""The first transformers whose exported models can be saved and loaded again by its own classes."""
ONNX_FILE, OPENVINO_FILE = "model.onnx", "openvino_model.xml"


@dataclass(frozen=True)
class Target:
    """A format to export to.

    `packages` are the modules that must be importable, and `extra` the extra of ftsys that installs them. `settings`
    builds the exporter's configuration. `open` loads an exported folder. `tolerance` is the largest difference of
    logits that is accepted, relative to the largest logit of the stock model: float32 rounding for the targets that
    compute in float32; for int8, room for the rows that are hit worst, while `parity.METRIC_LOSS` guards the mean.
    """

    packages: tuple[str, ...]
    extra: str
    exporter: str
    settings: Callable[[], Any]
    open: Callable[[Path], Run]
    tolerance: float


def _onnx_settings() -> Any:
    exporters = import_module("transformers.exporters")
    return exporters.OnnxConfig(dynamic=True)


def _int8_settings() -> Any:
    """Return the settings of int8 weights by channel. `reduce_range` keeps sums in range on CPUs without VNNI."""
    exporters = import_module("transformers.exporters")
    quantizer = exporters.OnnxRuntimeQuantizer(exporters.OnnxRuntimeDynamicConfig(per_channel=True, reduce_range=True))
    return exporters.OnnxConfig(dynamic=True, quantizer=quantizer)


def _openvino_settings() -> Any:
    import_openvino()
    exporters = import_module("transformers.exporters")
    return exporters.OpenVINOConfig(dynamic=True)


def _open_onnx(folder: Path) -> Run:
    """Open model.onnx with ONNX Runtime on the CPU."""
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(str(folder / ONNX_FILE), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: np.asarray(session.run(["logits"], {name: inputs[name] for name in names})[0])


def _open_openvino(folder: Path) -> Run:
    """Open openvino_model.xml on the CPU in float32. OpenVINO's own default is bfloat16 where the CPU has it.

    Open one at a time. An open model puts this thread's signal handlers on a stack of its own (sigaltstack), and its
    end restores the former one. Of two, the one that is closed last restores the stack of the other, which is freed:
    the next signal then ends the process (OpenVINO 2026.4).
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = import_openvino().Core().compile_model(str(folder / OPENVINO_FILE), "CPU", settings)
    names = [each.get_any_name() for each in model.inputs]
    return lambda inputs: np.array(model({name: inputs[name] for name in names})["logits"])


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "onnx": Target(
            ("onnx", "onnxscript", "onnxruntime"), "onnx", "OnnxExporter", _onnx_settings, _open_onnx, tolerance=1e-4
        ),
        "openvino": Target(
            ("openvino",), "openvino", "OpenVINOExporter", _openvino_settings, _open_openvino, tolerance=1e-4
        ),
        "int8": Target(
            ("onnx", "onnxscript", "onnxruntime"), "onnx", "OnnxExporter", _int8_settings, _open_onnx, tolerance=0.5
        ),
    }
)
"""Every target of `ftsys export --to`."""


def check_installed(name: str) -> None:
    """Raise ConfigError unless the packages of a target are installed."""
    target = TARGETS[name]
    missing = [package for package in target.packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"--to {name} needs {', '.join(missing)}, which is not installed: pip install 'ftsys[{target.extra}]'."
        )
    found = metadata.version("transformers")
    if Version(found) < Version(EXPORTS_SINCE):
        raise ConfigError(
            f"--to {name} needs transformers {EXPORTS_SINCE} or newer, and this is {found}: "
            f"pip install 'transformers>={EXPORTS_SINCE}'."
        )
