"""Tests that every module that reads what others may have written is a target of the fuzzing."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ftsys.files import untrusted
from tests.fuzz.more_readers import all_readers
from tests.fuzz.reading import read

READING = {
    name for name, kind in vars(untrusted).items() if callable(kind) and name.startswith(("file_", "open_", "parse_"))
} | {"json_object", "row_object"}
ELSEWHERE = {
    "ftsys/distributed.py": "its messages are not files: tests/distributed/test_messages.py sends wrong ones",
    "ftsys/fast_import/model_names.py": "its file is named by a hash of transformers: its own tests damage it",
    "ftsys/offline/hf_caches.py": "it compares bytes, and interprets none",
    "ftsys/offline/make_bundle.py": "it copies bytes, and interprets none",
    "ftsys/sweep/space.py": "it reads values of the command line",
    "ftsys/train/checkpoint/store_barrier.py": "its messages are not files: its own tests send wrong ones",
    "ftsys/train/fault_tolerance/heartbeat.py": "its messages are not files: its own tests send wrong ones",
    "ftsys/train/finish.py": "it reads back the config.json that it has just written",
}


def importers(repository: Path) -> set[str]:
    """Return the modules that take a reading function of `ftsys.files.untrusted`."""
    found = set()
    for path in (path for top in ("ftsys", "launcher") for path in (repository / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "ftsys.files.untrusted":
                taken = READING & {each.name for each in node.names}
                found |= {str(path.relative_to(repository))} if taken else set()
    return found


@contextmanager
def callers(found: set[Path]) -> Iterator[None]:
    """Note the files whose code calls a function of `ftsys.files.untrusted`."""

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == untrusted.__file__ and frame.f_back is not None:
            found.add(Path(frame.f_back.f_code.co_filename))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def test_every_module_that_reads_is_fuzzed(repository: Path, tmp_path: Path) -> None:
    called: set[Path] = set()
    for number, reader in enumerate(all_readers().values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with callers(called):
            read(reader, reader.content, folder)
    reached = {str(path.relative_to(repository)) for path in called if path.is_relative_to(repository)}
    assert importers(repository) - reached - ELSEWHERE.keys() == set()
    assert not ELSEWHERE.keys() & reached, "a reason that no longer holds"
