"""Tests sealed JSON files (three formats keep their bytes, every changed byte is found) and hashed files."""

import hashlib
import random
from pathlib import Path

import pytest

from ftsys.data.bundle import _SEALED as BUNDLE
from ftsys.data.store.index import _SEALED as INDEX
from ftsys.files.integrity import PIECE_BYTES, SealedJson, bytes_hashed, hashed_file, sha256_of
from ftsys.train.checkpoint.manifest import _SEALED as MANIFEST

FIELDS = {"zone": 1, "files": {"b": {"bytes": 2}, "a": {"bytes": 3}}, "step": "é"}
IN_MANIFEST = """\
{
 "checksum": "0cd09649459890af112f225565a5cd742c166bfe74b35bfb520c8ebc8226c56a",
 "files": {
  "a": {
   "bytes": 3
  },
  "b": {
   "bytes": 2
  }
 },
 "step": "\\u00e9",
 "zone": 1
}
"""
IN_BUNDLE = """\
{
 "zone": 1,
 "files": {
  "b": {
   "bytes": 2
  },
  "a": {
   "bytes": 3
  }
 },
 "step": "\\u00e9",
 "checksum": "f2054385d270370f0eabece2f648e9902865ac9e92163f50c1001e6c14e9e948"
}
"""
IN_INDEX = (
    '{"files":{"a":{"bytes":3},"b":{"bytes":2}},"step":"\\u00e9","zone":1,'
    '"sha256":"f2054385d270370f0eabece2f648e9902865ac9e92163f50c1001e6c14e9e948"}\n'
)


@pytest.mark.parametrize(
    ("sealed", "text"),
    [(MANIFEST, IN_MANIFEST), (BUNDLE, IN_BUNDLE), (INDEX, IN_INDEX)],
    ids=["checkpoint manifest", "bundle.json", "store index"],
)
def test_each_format_has_the_bytes_that_files_on_disk_have(sealed: SealedJson, text: str) -> None:
    data = text.encode()
    assert sealed.seal(FIELDS) == data
    assert sealed.parse(data) == (FIELDS, True)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert not _intact(sealed, changed), f"byte {place}"
        assert not _intact(sealed, data[:place] + b" " + data[place:]), f"a space before byte {place}"


def _intact(sealed: SealedJson, data: bytes) -> bool:
    try:
        return sealed.parse(data)[1]
    except ValueError:
        return False


def test_only_an_object_can_be_sealed() -> None:
    with pytest.raises(ValueError, match="a JSON list, not an object"):
        MANIFEST.parse(b"[1]\n")


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_file_is_hashed_in_pieces(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    before = bytes_hashed()
    with hashed_file(tmp_path / "file") as file:
        file.write(data)
    assert file.entry == {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
    assert sha256_of(tmp_path / "file") == file.entry["sha256"]
    assert bytes_hashed() - before == 2 * size
