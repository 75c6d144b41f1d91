"""Files of a checkpoint on disk: written once, hashed on the way, flushed; the manifest that vouches for them."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

MANIFEST = "manifest.json"
FORMAT = 1
READ_BYTES = 1 << 20
SAFETENSORS_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
ALIGNMENT = 8


class HashedFile:
    """A new file that counts and hashes what is written to it, and reaches the disk before it closes."""

    def __init__(self, path: Path) -> None:
        self.name, self.size = path.name, 0
        self._hash = hashlib.sha256()
        self._stream = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> None:
        """Flush to the disk and close."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        """Close without a promise."""
        self._stream.close()

    @property
    def entry(self) -> dict[str, Any]:
        """The file's line in the manifest."""
        return {"bytes": self.size, "sha256": self._hash.hexdigest()}


@contextmanager
def hashed_file(path: Path) -> Iterator[HashedFile]:
    """A `HashedFile` that is flushed when the block ends well."""
    file = HashedFile(path)
    try:
        yield file
        file.close()
    except BaseException:
        # A full disk refuses the flush of this close too; the first error is the one to hear.
        with suppress(OSError):
            file.abandon()
        raise


def written_file(path: Path) -> dict[str, Any]:
    """The manifest entry of a file that another library wrote, once its bytes have reached the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def write_json(path: Path, value: Any) -> dict[str, Any]:
    """Write JSON with sorted keys; returns its manifest entry. Raises CheckpointError for what is not JSON."""
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} can only hold JSON values: {error}") from error
    with hashed_file(path) as file:
        file.write(text.encode())
    return file.entry


def read_json(path: Path) -> Any:
    """A JSON file's value. Raises CheckpointError when it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; take another checkpoint") from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write CPU tensors in the safetensors format; returns the file's manifest entry.

    Written here rather than by the library, so that the bytes are hashed as they pass instead of read again, reach the
    disk before the rename, and a full disk is an OSError.
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


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, mapped from it: no byte is read before it is used, and nothing written to them reaches it.

    Where its owner has cut the file into shards, as Hugging Face does with large ones, those of all shards.
    """
    from safetensors.torch import load_file

    index = index_of(path)
    if path.exists() or not index.exists():
        return load_file(path)
    shards = sorted(set(read_json(index)["weight_map"].values()))
    return {name: tensor for shard in shards for name, tensor in load_file(path.with_name(shard)).items()}


def index_of(path: Path) -> Path:
    """Where the list of a safetensors file's shards lies, if it was cut."""
    return path.with_name(f"{path.name}.index.json")


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder whose files are complete; `facts` ends with "files", an entry by name."""
    with hashed_file(folder / MANIFEST) as file:
        file.write(_sealed({"format": FORMAT, **facts}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder.

    Raises CheckpointError when it is missing, differs in any byte from what was written, or is of a newer format.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        sealed = _sealed({key: value for key, value in manifest.items() if key != "checksum"})
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the checkpoint was never completed") from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if data != sealed:
        raise CheckpointError(f"{path} is damaged: it does not match its own checksum")
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest['format']}, this version reads up to {FORMAT}: use the newer ftsys"
        )
    return manifest


def _sealed(facts: dict[str, Any]) -> bytes:
    """The only bytes that a manifest of these facts may have; so that a change of white space is a change too."""
    checksum = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**facts, "checksum": checksum}, sort_keys=True, indent=1) + "\n").encode()


def damage_of(folder: Path, files: Mapping[str, Mapping[str, Any]], contents: bool = True) -> list[str]:
    """What is wrong with the named files: missing, of another size, or, with `contents`, of other bytes."""
    found = []
    for name, entry in sorted(files.items()):
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                found.append(f"{path} has {size} bytes instead of {entry['bytes']}")
            elif contents and sha256_of(path) != entry["sha256"]:
                found.append(f"{path} is damaged: its sha256 is not the manifest's")
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror}")
    return found


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
