"""Writes and reads the files of a checkpoint: hashed while they are written, and flushed to the disk."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.errors import CheckpointError
from ftsys.files.folders import sync_folder
from ftsys.files.integrity import hashed_file
from ftsys.files.untrusted import (
    MOST_GROWN_BYTES,
    FileEntry,
    check_regular,
    file_bytes,
    parse_json,
    shards_of_index,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

SAFETENSORS_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
ALIGNMENT = 8


def write_json(path: Path, value: Any) -> FileEntry:
    """Write JSON with sorted keys; returns its manifest entry. Raises CheckpointError for what is not JSON."""
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=True)  # without an indent, json encodes in C, twice as fast
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} can only hold JSON values: {error}") from error
    with hashed_file(path) as file:
        file.write(text.encode())
    return file.entry


def read_json(path: Path, kind: Any = Any) -> Any:
    """Return a JSON file's value. Raises CheckpointError when it cannot be read, or is not of the type `kind`.

    Other encodings than UTF-8, which `json` would find out, are refused: transformers reads some of the files as well.
    """
    try:
        value = parse_json(file_bytes(path, MOST_GROWN_BYTES).decode("utf-8"))
        typed(kind, value)  # the value itself is returned: nothing in it is converted or left out
        return value
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; take another checkpoint") from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write CPU tensors in the safetensors format; returns the file's manifest entry.

    The library is not used, so that bytes are hashed while they are written instead of read again, they reach the disk
    before the rename, and a full disk is an OSError.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in ordered:
        size = tensor.numel() * tensor.element_size()
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in SAFETENSORS_NAMES:
            raise CheckpointError(f"{name!r} has type {kind!r}, which a safetensors file cannot hold: convert it first")
        header[name] = {
            "dtype": SAFETENSORS_NAMES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with hashed_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            file.write(_bytes_of(tensor))
    return file.entry


def replace_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write CPU tensors next to `path`, then move the file there. OSError leaves the former file and no other."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        write_safetensors(partial, tensors)
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, memory-mapped: a byte is read when it is used, and writes do not reach the file.

    Where the file was split, as Hugging Face does with large ones, the tensors of all its files. Raises
    CheckpointError.
    """
    index = index_of(path)
    if path.exists() or not index.exists():
        return _tensors_of(path)
    try:
        shards = shards_of_index(file_bytes(index))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} cannot be read: {error}; take another checkpoint") from error
    return {name: tensor for shard in shards for name, tensor in _tensors_of(path.with_name(shard)).items()}


def _tensors_of(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with _explained(path):
        return load_file(path)


def check_safetensors(path: Path) -> None:
    """Read the header of a safetensors file. Raises CheckpointError when it holds something else."""
    from safetensors import safe_open

    with _explained(path), safe_open(path, framework="numpy"):
        pass


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        check_regular(path)
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; take another checkpoint") from error


def index_of(path: Path) -> Path:
    """Return the path of the index that a safetensors file has where it was split into several."""
    return path.with_name(f"{path.name}.index.json")
