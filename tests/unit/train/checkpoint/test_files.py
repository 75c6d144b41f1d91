"""Tests the files of a checkpoint byte by byte: safetensors, JSON, the manifest and its format."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint import manifest
from ftsys.train.checkpoint.files import SAFETENSORS_NAMES, read_json, read_safetensors, write_json, write_safetensors
from ftsys.train.checkpoint.manifest import FORMAT, read_manifest, write_manifest

TENSORS = {
    "a": torch.tensor([True, False, True]),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.arange(3, dtype=torch.int64),
    "d": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),
    "e": torch.zeros(0, 4),
    "f": torch.tensor(7, dtype=torch.int8),
}


def header_of(path: Path) -> tuple[dict[str, dict], int]:
    """Return the header of a safetensors file without its metadata, and the place of the first tensor's byte."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    return header, 8 + length


def test_wide_elements_come_first_so_that_every_tensor_is_aligned(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", TENSORS)
    header, start = header_of(tmp_path / "x")
    assert list(header) == ["c", "d", "e", "b", "a", "f"], "by the size of an element, then by name"
    assert start % 8 == 0
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert [first for first, _ in offsets] == [0, *(last for _, last in offsets[:-1])]
    assert start + offsets[-1][1] == (tmp_path / "x").stat().st_size
    assert all((start + header[name]["data_offsets"][0]) % TENSORS[name].element_size() == 0 for name in TENSORS)


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", TENSORS)
    for found in (load_file(tmp_path / "x"), read_safetensors(tmp_path / "x")):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
        assert all(found[name].dtype == TENSORS[name].dtype for name in TENSORS)


@pytest.mark.parametrize("name", SAFETENSORS_NAMES)
def test_every_type_that_is_listed_can_be_written(tmp_path: Path, name: str) -> None:
    value = torch.tensor([1, 0, 1]).to(getattr(torch, name))
    write_safetensors(tmp_path / "x", {"value": value})
    found = load_file(tmp_path / "x")["value"]
    assert (found.dtype, found.tolist()) == (value.dtype, value.tolist())


@pytest.mark.parametrize("letters", range(8))
def test_the_header_is_padded_with_blanks_to_eight_bytes(tmp_path: Path, letters: int) -> None:
    write_safetensors(tmp_path / "x", {"n" * (letters + 1): torch.ones(2)})
    assert header_of(tmp_path / "x")[1] % 8 == 0
    assert load_file(tmp_path / "x")["n" * (letters + 1)].tolist() == [1.0, 1.0]
    assert (tmp_path / "x").read_bytes().count(b" ") < 8, "no more than are needed"


def test_an_entry_has_size_and_hash_of_the_file(tmp_path: Path) -> None:
    entries = [write_safetensors(tmp_path / "x", TENSORS), write_json(tmp_path / "y", {"b": 1, "a": [2.5, None]})]
    for name, entry in zip("xy", entries, strict=True):
        data = (tmp_path / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_json_is_sorted_and_may_hold_numbers_that_are_none(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {"b": float("nan"), "a": [float("inf"), 0.1]})
    assert (tmp_path / "x").read_text() == '{"a": [Infinity, 0.1], "b": NaN}'
    assert read_json(tmp_path / "x")["a"] == [float("inf"), 0.1]
    with pytest.raises(CheckpointError, match=r"y can only hold JSON values"):
        write_json(tmp_path / "y", {"path": tmp_path})
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_json_that_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x cannot be read: .*; take another checkpoint"):
        read_json(tmp_path / "x")


def test_tensors_of_several_files_are_read_by_their_index(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "two.safetensors")
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert {name: len(found) for name, found in read_safetensors(tmp_path / "w.safetensors").items()} == {
        "a": 1,
        "b": 2,
    }
    save_file({"c": torch.ones(3)}, tmp_path / "w.safetensors")
    assert list(read_safetensors(tmp_path / "w.safetensors")) == ["c"], "the file itself comes before an index"
    (tmp_path / "w.safetensors").unlink()
    index.write_text("{")
    with pytest.raises(CheckpointError, match=r"index\.json cannot be read: .*take another checkpoint"):
        read_safetensors(tmp_path / "w.safetensors")


def test_tensors_of_no_file_are_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be read"):
        read_safetensors(tmp_path / "w.safetensors")


def test_a_manifest_has_its_format(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"step": 3, "files": {}})
    assert read_manifest(tmp_path) == {"format": 1, "step": 3, "files": {}}
    text = (tmp_path / "manifest.json").read_text()
    hashed = hashlib.sha256(b'{"files": {}, "format": 1, "step": 3}').hexdigest()
    assert json.loads(text)["checksum"] == hashed, "checkpoints of former versions are sealed so"
    assert text.startswith('{\n "checksum": "'), "sorted, and indented by one blank"
    assert FORMAT == 1, "a new format needs a reader of this one"


@pytest.mark.parametrize("found", [2, "1", None, 1.5])
def test_a_manifest_of_a_newer_or_unknown_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: object
) -> None:
    monkeypatch.setattr(manifest, "FORMAT", found)
    write_manifest(tmp_path, {"step": 3, "files": {}})
    monkeypatch.setattr(manifest, "FORMAT", 1)
    with pytest.raises(
        CheckpointError, match=rf"has format {found!r}, this version reads up to 1: use the newer ftsys"
    ):
        read_manifest(tmp_path)


def test_a_manifest_that_is_missing_or_no_json_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing: .* is not a complete checkpoint"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)
