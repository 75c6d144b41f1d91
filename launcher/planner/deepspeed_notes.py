"""Finds in a user's DeepSpeed JSON what may surprise: values for "auto", replaced settings, compiled ops. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftsys.config import RunConfig
from launcher.planner.deepspeed_config import AUTO, merged_config, values_at
from launcher.planner.plan import Plan

_COMPILED: Mapping[str, tuple[str | None, str | None]] = {
    "adam": ("fused_adam", "cpu_adam"),
    "adamw": ("fused_adam", "cpu_adam"),
    "lion": ("fused_lion", "cpu_lion"),
    "lamb": ("fused_lamb", "fused_lamb"),
    "adagrad": (None, "cpu_adagrad"),
}
"""Type of a DeepSpeed optimizer -> the op that it compiles without and with optimizer offload (DeepSpeed 0.19.8)."""


def compiled_ops(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ops that DeepSpeed compiles on first use for this JSON, unless they were built at its installation."""
    devices = [_at(config, f"zero_optimization.offload_{what}.device") for what in ("optimizer", "param")]
    offloaded = devices[0] in ("cpu", "nvme")
    found = [_optimizer_op(config, offloaded), "async_io" if "nvme" in devices else None]
    return tuple(op for op in found if op)


def _optimizer_op(config: Mapping[str, Any], offloaded: bool) -> str | None:
    kind = _at(config, "optimizer.type")
    if isinstance(kind, str):
        if _at(config, "optimizer.params.torch_adam") is True:
            return None
        return _COMPILED.get(kind.lower(), (None, None))[offloaded]
    # Accelerate replaces torch's AdamW by DeepSpeedCPUAdam where the optimizer is offloaded.
    return "cpu_adam" if offloaded and _at(config, "zero_force_ds_cpu_optimizer") is not False else None


def compile_advice(config: Mapping[str, Any]) -> str:
    """Return how to do without the compiled optimizer of this JSON; empty where it compiles none."""
    kind = str(_at(config, "optimizer.type")).lower()
    if kind not in _COMPILED or not compiled_ops(config):
        return ""
    if kind in ("adam", "adamw") and _at(config, "zero_optimization.offload_optimizer.device") not in ("cpu", "nvme"):
        return '"torch_adam": true in optimizer.params takes torch\'s AdamW, which compiles nothing'
    return "without the optimizer block torch's optimizer is used"


def notes_on_json(user_json: Mapping[str, Any], run: RunConfig, plan: Plan) -> list[str]:
    """Return remarks on a user's own DeepSpeed JSON. Raises ConfigError with every conflict."""
    merged = merged_config(user_json, run, plan)
    return [*_notes_on_auto(user_json, merged), *_notes_on_owners(merged), *_notes_on_ops(merged)]


def _notes_on_auto(user_json: Mapping[str, Any], merged: Mapping[str, Any]) -> Iterator[str]:
    filled, late, dropped = [], [], []
    for key in _auto_keys(user_json):
        if key == "train_batch_size":
            continue  # derived by DeepSpeed from the two other sizes
        value = _at(merged, key)
        if value is None:
            dropped.append(key)
        elif value == AUTO:
            late.append(key)
        else:
            filled.append(f"{key} = {value}")
    if filled:
        yield f'"auto" in the DeepSpeed file becomes {", ".join(filled)}'
    if late:
        yield f'"auto" in the DeepSpeed file is filled once the steps are counted: {", ".join(late)}'
    if dropped:
        yield f'"auto" in the DeepSpeed file leaves DeepSpeed\'s own default: {", ".join(dropped)}'


def _auto_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _auto_keys(value, f"{prefix}{key}.")
        elif value == AUTO:
            yield f"{prefix}{key}"


def _notes_on_owners(merged: Mapping[str, Any]) -> Iterator[str]:
    if (kind := _at(merged, "optimizer.type")) is not None:
        yield (
            f"the DeepSpeed file's optimizer ({kind}) takes the place of trainer.optim, and decays all weights, "
            "biases and norms too"
        )
    if (kind := _at(merged, "scheduler.type")) is not None:
        yield f"the DeepSpeed file's scheduler ({kind}) decides the learning rate, not trainer.lr_scheduler_type"


def _notes_on_ops(merged: Mapping[str, Any]) -> Iterator[str]:
    if ops := compiled_ops(merged):
        advice = compile_advice(merged)
        yield f"DeepSpeed compiles {', '.join(ops)} on first use, which takes minutes{f': {advice}' if advice else ''}"


def _at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key; None where there is none."""
    return next(values_at(config, key.split(".")), None)
