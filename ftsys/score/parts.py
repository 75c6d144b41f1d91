"""Keeps the finished windows of an output in files of their own until all are there, so that a killed process goes on.

`OUT.parts/` has a file for each window, written atomically, and `command.json`: everything that decides the output.
The same command reads the input again and computes the windows that are missing, whatever ranks wrote the others. Names
of files begin with the command's key, so a process of an older command that still runs adds nothing to this one's.
"""

import json
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsys.cache import why_writable
from ftsys.errors import ConfigError, RunFolderError
from ftsys.files.atomic import atomic_open, atomic_write_json, atomic_write_text
from ftsys.files.folders import remove_tree
from ftsys.files.integrity import fingerprint_of
from ftsys.files.json_safe import json_safe
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import file_bytes, json_object
from ftsys.score.formats import Format
from ftsys.score.windows import Place

COMMAND, JOINED = "command.json", "joined"
_OWN_NAMES = re.compile(rf"{JOINED}|[0-9a-f]{{12}}\.\d{{8}}(\.skipped|\.rows)?|\..*\.tmp")


def skipped_file(output: Path) -> Path:
    """Return the path of the list of rows that were skipped."""
    return output.with_name(f"{output.name}.skipped.jsonl")


class Parts:
    """The windows of one output. Any number of ranks write them; rank 0 opens and joins."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")
        self.key = ""
        """The key of the command, which `begin` returns."""

    def begin(self, command: Mapping[str, Any], overwrite: bool, anew: bool = False) -> str | None:
        """Make the folder, or go on with that of the same command, unless it is to begin `anew`.

        Returns the command's key, which goes into `key` of all ranks; None where the output is complete already.

        Raises:
            ConfigError: the output exists, or the folder belongs to another command or may be written to by others, and
                `overwrite` is False; or the folder is somebody else's.
            StorageError: the folder cannot be written.
        """
        mine = self._is_of(command) and self._is_private(overwrite)
        if self.output.exists() and not overwrite:
            if mine and self._is_joined():
                self._remove()
                return None
            raise ConfigError(f"output {str(self.output)!r} exists. Write to another file, or give --overwrite.")
        self._check_folder(mine or overwrite)
        if self.folder.exists() and (anew or not mine):
            self._remove()
        with storage_errors(self.folder):
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
        if anew or not mine:
            atomic_write_json(self.folder / COMMAND, command)
        self.key = _key(command)
        return self.key

    def _is_private(self, may_remove: bool) -> bool:
        """Return False if others may have written windows, and the folder may be removed; else raise ConfigError."""
        found = self.folder.lstat()
        reason = "it is a symbolic link" if stat.S_ISLNK(found.st_mode) else why_writable(found)
        if reason and not may_remove:
            raise ConfigError(
                f"{str(self.folder)!r} holds the begun output of this command, but {reason}, so it may not be this "
                "command's. Begin anew with --overwrite, or write to another file."
            )
        return not reason

    def _check_folder(self, may_remove: bool) -> None:
        """Raise ConfigError if the folder belongs to another command and may not be removed, or is somebody else's."""
        if (self.folder / COMMAND).exists():
            if not may_remove:
                raise ConfigError(
                    f"{str(self.folder)!r} holds the begun output of another command, or of a model or input that has "
                    "changed since. Repeat that command, or begin anew with --overwrite."
                )
        elif self.folder.exists() and not self._has_only_own_names():
            raise ConfigError(
                f"{str(self.folder)!r} is where windows are kept until the output is whole, and it holds something "
                "else. Move it away, or write to another file."
            )

    def _has_only_own_names(self) -> bool:
        """Return True for a folder as a command leaves it that was killed while it made or removed it."""
        return self.folder.is_dir() and all(_OWN_NAMES.fullmatch(path.name) for path in self.folder.iterdir())

    def former(self) -> dict[str, Any]:
        """Return the command that has begun the output; empty if there is none, or its file is damaged."""
        try:
            return json_object(file_bytes(self.folder / COMMAND))
        except (OSError, ValueError):
            return {}

    def _is_of(self, command: Mapping[str, Any]) -> bool:
        """Return True if the folder was made by the same command."""
        return self.former() == json.loads(json.dumps(json_safe(command)))

    def _is_joined(self) -> bool:
        """Return True where the output is the very file that was joined, and not one that it was to replace."""
        try:
            return (self.folder / JOINED).read_text(encoding="utf-8") == _file_identity(self.output.stat())
        except OSError:
            return False

    def has(self, index: int) -> bool:
        """Return True if a window is written."""
        return self._path(index).exists()

    def keep_rows(self, index: int, digest: str) -> bool:
        """Note what the rows of a window are; returns False where they were noted before and were others."""
        path = self._path(index, ".rows")
        if path.exists():
            return path.read_bytes() == digest.encode()
        atomic_write_text(path, digest)
        return True

    def write(self, index: int, content: bytes, faults: Sequence[tuple[Place, str]]) -> None:
        """Write a window, after the list of its skipped rows. Raises StorageError."""
        if faults:
            atomic_write_text(self._path(index, ".skipped"), "".join(map(_skipped_line, faults)))
        with atomic_open(self._path(index), "wb") as stream:
            stream.write(content)

    def join(self, count: int, form: Format, names: Sequence[str], patience: float = 0.0) -> int:
        """Put `count` windows together to the output, and remove them; returns the number of skipped rows.

        Windows of other nodes may become visible late on a network file system: it waits `patience` seconds for them.

        Raises:
            RunFolderError: a window is missing, because another process of the same command has finished; or the folder
                is that of another command by now.
            StorageError: the output cannot be written.
        """
        parts = [self._path(index) for index in range(count)]
        if not _appear(parts, patience) or _key(self.former()) != self.key:
            raise RunFolderError(f"{str(self.folder)!r}: windows are missing: another process writes the same output.")
        skipped = self._join_skipped(count)
        with atomic_open(self.output, "wb") as stream:
            form.join(parts, names, stream)
            stream.flush()
            # Just before the output gets its name: a process that dies in between has not replaced a former output.
            atomic_write_text(self.folder / JOINED, _file_identity(os.fstat(stream.fileno())))
        self._remove()
        return skipped

    def _join_skipped(self, count: int) -> int:
        paths = [self._path(index, ".skipped") for index in range(count)]
        lists = [path for path in paths if path.exists()]
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

    def _path(self, index: int, ending: str = "") -> Path:
        return self.folder / f"{self.key}.{index:08}{ending}"


def _file_identity(file: os.stat_result) -> str:
    """Return what a file keeps when it gets another name: its inode and size."""
    return f"{file.st_ino} {file.st_size}"


def _key(command: Mapping[str, Any]) -> str:
    return fingerprint_of(json_safe(command))[:12]


def _appear(parts: Sequence[Path], patience: float) -> bool:
    """Return True once all files are there; False after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (there := all(part.exists() for part in parts)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return there


def _skipped_line(fault: tuple[Place, str]) -> str:
    place, reason = fault
    return json.dumps({"file": place.file, place.unit: place.number, "reason": reason}, ensure_ascii=False) + "\n"
