"""Keeps the finished windows of an output in files of their own until all are there, so that a killed process goes on.

`OUT.parts/` has a file for each window, written atomically, and `command.json`: everything that decides the output.
The same command reads the input again and computes the windows that are missing, whatever ranks wrote the others.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsys.errors import ConfigError, RunFolderError
from ftsys.files import atomic_open, atomic_write_json, atomic_write_text, json_safe, remove_tree, storage_errors
from ftsys.score.formats import Format
from ftsys.score.windows import Place
from ftsys.untrusted import json_object

COMMAND, JOINED = "command.json", "joined"


def skipped_file(output: Path) -> Path:
    """Return the path of the list of rows that were skipped."""
    return output.with_name(f"{output.name}.skipped.jsonl")


class Parts:
    """The windows of one output. Any number of ranks write them; rank 0 opens and joins."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")

    def begin(self, command: Mapping[str, Any], overwrite: bool) -> bool:
        """Make the folder, or go on with that of the same command; returns False where the output is complete already.

        Raises:
            ConfigError: the output exists, or the folder belongs to another command, and `overwrite` is False.
            StorageError: the folder cannot be written.
        """
        mine = self._is_of(command)
        if self.output.exists() and not overwrite:
            if mine and (self.folder / JOINED).exists():
                self._remove()
                return False
            raise ConfigError(f"output {str(self.output)!r} exists. Write to another file, or give --overwrite.")
        if (self.folder / COMMAND).exists() and not mine and not overwrite:
            raise ConfigError(
                f"{str(self.folder)!r} holds the begun output of another command, or of a model or input that has "
                "changed since. Repeat that command, or begin anew with --overwrite."
            )
        if self.folder.exists() and not mine:
            self._remove()
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not mine:
            atomic_write_json(self.folder / COMMAND, command)
        return True

    def former(self) -> dict[str, Any]:
        """Return the command that has begun the output; empty if there is none, or its file is damaged."""
        try:
            return json_object((self.folder / COMMAND).read_bytes())
        except (OSError, ValueError):
            return {}

    def _is_of(self, command: Mapping[str, Any]) -> bool:
        """Return True if the folder was made by the same command."""
        return self.former() == json.loads(json.dumps(json_safe(command)))

    def has(self, index: int) -> bool:
        """Return True if a window is written."""
        return self._part(index).exists()

    def write(self, index: int, content: bytes, faults: Sequence[tuple[Place, str]]) -> None:
        """Write a window, after the list of its skipped rows. Raises StorageError."""
        if faults:
            atomic_write_text(self._skipped(index), "".join(map(_skipped_line, faults)))
        with atomic_open(self._part(index), "wb") as stream:
            stream.write(content)

    def join(self, count: int, form: Format, names: Sequence[str]) -> int:
        """Put `count` windows together to the output, and remove them; returns the number of skipped rows.

        Raises:
            RunFolderError: a window is missing, because another process of the same command has finished.
            StorageError: the output cannot be written.
        """
        parts = [self._part(index) for index in range(count)]
        if not all(part.exists() for part in parts):
            raise RunFolderError(f"{str(self.folder)!r}: windows are missing: another process writes the same output.")
        skipped = self._join_skipped(count)
        with atomic_open(self.output, "wb") as stream:
            form.join(parts, names, stream)
            atomic_write_text(self.folder / JOINED, "")  # just before the output gets its name
        self._remove()
        return skipped

    def _join_skipped(self, count: int) -> int:
        lists = [path for path in map(self._skipped, range(count)) if path.exists()]
        target, lines = skipped_file(self.output), 0
        if not lists:
            with storage_errors(target):
                target.unlink(missing_ok=True)  # of an output that is replaced
            return 0
        with atomic_open(target) as stream:
            for path in lists:
                text = path.read_text(encoding="utf-8")
                stream.write(text)
                lines += text.count("\n")
        return lines

    def _remove(self) -> None:
        with storage_errors(self.folder):
            remove_tree(self.folder)

    def _part(self, index: int) -> Path:
        return self.folder / f"{index:08}"

    def _skipped(self, index: int) -> Path:
        return self.folder / f"{index:08}.skipped"


def _skipped_line(fault: tuple[Place, str]) -> str:
    place, reason = fault
    return json.dumps({"file": place.file, place.unit: place.number, "reason": reason}, ensure_ascii=False) + "\n"
