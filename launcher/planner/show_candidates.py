"""Formats a plan's candidates as a table of text and as JSON values."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from launcher.planner.candidates import RESERVED, Candidate
from launcher.planner.gpus import gib
from launcher.planner.search import Fitting, reason_of

ROWS = 20
"""Largest number of rows shown without `--all`."""

_COLUMNS = (
    ("", "<"),
    ("ZeRO", ">"),
    ("offload", "<"),
    ("format", "<"),
    ("recomp.", "<"),
    ("tokens", ">"),
    ("weights", ">"),
    ("grads", ">"),
    ("optim.", ">"),
    ("activ.", ">"),
    ("buffers", ">"),
    ("total", ">"),
    ("at", "<"),
    ("host", ">"),
    ("sent", ">"),
    ("ms", ">"),
    ("fits", "<"),
)


def show_candidates(found: Fitting, everything: bool) -> str:
    """Format the model's sizes, the table, and the reason for the chosen row; ends with a newline."""
    shape, chosen = found.work.shape, found.chosen
    rows = list(found.candidates) if everything else shown(found)
    left_out = len(found.candidates) - len(rows)
    one = "GPU" if found.hardware.device == "cuda" else "rank"
    lines = [
        f"model         {shape.family}, {shape.parameters / 1e6:,.1f} million parameters, "
        f"{shape.matrix_parameters / 1e6:,.1f} outside the embeddings",
        "",
        f"GiB of one {one} at the fullest moment of a step, every example {found.work.length} tokens long; tokens of a "
        "micro-batch;",
        f"GiB that a {one} sends in a step; milliseconds of a step. Predicted, not verified on this machine.",
        *_table([_row(candidate, candidate is chosen) for candidate in rows]),
        "",
        f"> {reason_of(found)}",
    ]
    notes = []
    if found.hardware.memory is not None:
        notes.append(f"fits: with a tenth to spare, and {gib(RESERVED)} GiB for CUDA itself")
    if any(not candidate.allowed for candidate in rows):
        notes.append("+: asks for another engine setting")
    if left_out:
        notes.append(f"{left_out} more with --all")
    lines += [f"  ({'; '.join(notes)})"] if notes else []
    return "\n".join(lines + _faster_format(found)) + "\n"


def _faster_format(found: Fitting) -> list[str]:
    """Return a line about a number format that fits and takes half the time or less; empty where there is none."""
    chosen = found.chosen
    others = [
        candidate
        for candidate in found.candidates
        if candidate.seconds is not None
        and candidate.fits == "yes"
        and candidate.setting.precision != chosen.setting.precision
        and candidate.plain
    ]
    best = min(others, key=lambda candidate: candidate.seconds or 0.0, default=None)
    if best is None or not chosen.seconds or 2 * (best.seconds or 0.0) > chosen.seconds:
        return []
    times = chosen.seconds / (best.seconds or 1.0)
    return [
        f'  {best.setting.precision} may be {times:.0f} times as fast: engine.precision = "{best.setting.precision}"'
    ]


def shown(found: Fitting) -> list[Candidate]:
    """Select the rows to show: each setting in the chosen precision, and the plain settings in the other precisions.

    A setting is shown with the largest micro-batch that fits, or with the smallest where none fits.
    """
    chosen = found.chosen
    groups: dict[Any, list[Candidate]] = {}
    for candidate in found.candidates:
        if candidate.setting.precision == chosen.setting.precision:
            groups.setdefault(candidate.setting, []).append(candidate)
    rows = [chosen if chosen in group else _best(group) for group in groups.values()]
    others = [candidate for candidate in found.candidates if candidate.setting.precision != chosen.setting.precision]
    rows += [c for c in others if c.plain and c.micro_tokens == chosen.micro_tokens]
    return rows[:ROWS]


def _best(group: Sequence[Candidate]) -> Candidate:
    fitting = [candidate for candidate in group if candidate.fits in ("yes", "unknown")]
    if fitting:
        return max(fitting, key=lambda candidate: candidate.batch.tokens)
    return min(group, key=lambda candidate: candidate.batch.tokens)


def _row(candidate: Candidate, is_chosen: bool) -> list[str]:
    setting, parts = candidate.setting, candidate.memory.parts
    mark = ">" if is_chosen else " " if candidate.allowed else "+"
    sizes = (parts.weights, parts.gradients, parts.optimizer, parts.activations, parts.buffers, parts.total)
    return [
        mark,
        str(setting.zero_stage),
        setting.offload.partition(":")[0],
        setting.precision,
        "yes" if setting.checkpointing else "no",
        f"{candidate.batch.tokens:,}",
        *(gib(size) for size in sizes),
        candidate.memory.moment,
        gib(parts.host),
        gib(candidate.sent),
        "-" if candidate.seconds is None else f"{candidate.seconds * 1e3:,.0f}",
        candidate.fits,
    ]


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[name for name, _ in _COLUMNS], *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    aligned = (
        [f"{cell:{side}{width}}" for cell, width, (_, side) in zip(row, widths, _COLUMNS, strict=True)] for row in cells
    )
    return [" ".join(row).rstrip() for row in aligned]


def as_values(found: Fitting) -> dict[str, Any]:
    """Return the whole table as plain JSON values; bytes and seconds are not rounded."""
    shape = found.work.shape
    return {
        "model": {
            "family": shape.family,
            "parameters": shape.parameters,
            "parameters_outside_embeddings": shape.matrix_parameters,
        },
        "device_memory": found.hardware.memory,
        "length": found.work.length,
        "reason": reason_of(found),
        "candidates": [_values(candidate, candidate is found.chosen) for candidate in found.candidates],
    }


def _values(candidate: Candidate, is_chosen: bool) -> dict[str, Any]:
    setting = candidate.setting
    return {
        "chosen": is_chosen,
        "allowed": candidate.allowed,
        "fits": candidate.fits,
        "backend": setting.backend,
        "zero_stage": setting.zero_stage,
        "offload": setting.offload,
        "precision": setting.precision,
        "activation_checkpointing": setting.checkpointing,
        "micro_tokens": candidate.micro_tokens,
        "micro_batches": candidate.micro_batches,
        "moment": candidate.memory.moment,
        "bytes": asdict(candidate.memory.parts) | {"total": candidate.memory.total},
        "sent_bytes": candidate.sent,
        "seconds": candidate.seconds,
    }
