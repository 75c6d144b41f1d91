"""Scores files into one output: reads, tokenizes and computes windows on every rank, and joins them on rank 0."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftsys import __version__
from ftsys.distributed import agreed, decided_by_rank_0, rank, world_size
from ftsys.errors import ConfigError, DataError
from ftsys.files.integrity import fingerprint_of
from ftsys.ranks import has_other_ranks, is_main_rank
from ftsys.report.notes import show_notes
from ftsys.report.progress import Progress
from ftsys.score.columns import Written, text_columns
from ftsys.score.engine import NO_TOKENS, PRECISIONS, Engine, precision_of
from ftsys.score.formats import OUTPUTS, Format, format_of
from ftsys.score.model import FoundModel
from ftsys.score.parts import Parts
from ftsys.score.readers.inputs import InputFile
from ftsys.score.readers.rows import Fault, Reader, Wanted
from ftsys.score.windows import ROWS, Entry, Place, Window, prepared_ahead, windows
from ftsys.train.trainable.adapter_files import base_folder, is_adapter

FAIL, SKIP = "fail", "skip"
PATIENCE_SECONDS = 90.0
"""Longer than NFS by default remembers that a file was not there."""


@dataclass(frozen=True)
class Request:
    """One scoring: a model, input files, the columns to read and to write, and the output."""

    found: FoundModel
    files: Sequence[InputFile]
    output: Path
    wanted: Wanted
    written: Written
    types: Sequence[dict[str, Any]]
    """Arrow's types of the columns of each input; empty for text files."""
    on_error: str = FAIL
    overwrite: bool = False
    batch_tokens: int | None = None
    opened: Reader | None = None
    """Standard input, which was opened to see its columns."""

    @property
    def has_stream(self) -> bool:
        """True if standard input is read: nothing but its rows tells it from another one."""
        return any(file.is_stream for file in self.files)


def open_inputs(
    files: Sequence[InputFile], asked: Sequence[str] | None, known: Sequence[str] | None, carried: Sequence[str]
) -> tuple[Wanted, list[dict[str, Any]], Reader | None]:
    """Check the columns of all files; return what to read, the types of each file's columns, and standard input.

    Raises DataError for a file that cannot be opened, or that lacks a column.
    """
    wanted, types, stream = None, [], None
    for file in files:
        reader = file.open((*(asked or known or ()), *carried))
        if wanted is None:
            texts, note = text_columns(reader.columns, reader.place, asked, known)
            wanted = Wanted(texts, tuple(carried))
            show_notes(*([note] if note else []))
        wanted.check(reader.place, reader.columns)
        types.append(getattr(reader, "types", {}))
        if file.is_stream:
            stream = reader
        else:
            reader.close()
    assert wanted is not None, "the command line names a file"
    return wanted, types, stream


def score_files(request: Request, engine: Engine) -> int | None:
    """Write the output; returns the number of rows that were skipped, None where it was complete already. Collective.

    Raises:
        DataError: a broken row, unless they are skipped.
        ConfigError: the output exists, or another command has begun it.
        StorageError: a full disk.
    """
    parts, form = Parts(request.output), format_of(request.output, request.written.types(request.types))
    tokens = request.batch_tokens or engine.batch_tokens
    command = _command(request, engine, tokens)
    anew = request.overwrite and request.has_stream
    key = decided_by_rank_0(partial(parts.begin, command, request.overwrite, anew))
    if key is None:
        return None
    parts.key = key
    count = agreed(partial(_compute, request, engine, parts, form, tokens))
    patience = PATIENCE_SECONDS if world_size() > 1 else 0.0
    return decided_by_rank_0(partial(parts.join, count, form, request.written.names, patience))


def chosen_precision(asked: str, output: Path) -> str:
    """Return rank 0's precision: as asked; for "auto" that of an output that was begun, else the faster. Collective."""

    def choose() -> str:
        begun = Parts(output).former().get("precision")
        return begun if asked == "auto" and begun in PRECISIONS else precision_of(asked)

    return decided_by_rank_0(choose)


def _command(request: Request, engine: Engine, tokens: int) -> dict[str, Any]:
    """Return everything that decides the bytes of the output."""
    head = request.written.head
    folder = request.found.folder
    folders = [folder, base_folder(folder)] if is_adapter(folder) else [folder]
    there = [path for place in folders for path in sorted(place.iterdir()) if path.is_file()]
    weights = [path for path in there if path.suffix not in OUTPUTS]  # an output may lie beside them
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    return {
        "version": __version__,
        "model": [str(folder.absolute()), fingerprint_of(stats)],
        "inputs": [file.facts() for file in request.files],
        "texts": request.wanted.texts,
        "columns": request.written.names,
        "head": [head.activation, head.temperature, dict(head.thresholds)],
        "max_length": request.found.max_length,
        "precision": engine.precision,
        "computed": [engine.device.type, engine.layout.name, engine.kernel, torch.__version__],
        "windows": [ROWS[engine.device.type], tokens],
    }


def _compute(request: Request, engine: Engine, parts: Parts, form: Format, tokens: int) -> int:
    """Compute and write this rank's windows that are missing; returns the number of all windows."""
    own, ranks, count = rank(), world_size(), 0
    entries = _entries(request)

    def prepare(window: Window) -> None:
        digest = window.digest() if request.has_stream else ""
        if window.index % ranks == own and not parts.has(window.index):
            _tokenize(window, engine, request.on_error)
        if digest and not parts.keep_rows(window.index, digest):
            raise ConfigError(
                f"{window.entries[0].place}: from this row on, the input is another one than that which has begun "
                f"{str(parts.folder)!r}. Give the same input from its beginning, or begin anew with --overwrite."
            )

    ahead = prepared_ahead(windows(entries, ROWS[engine.device.type]), prepare)
    with Progress("predict", _estimated_rows(request.files)) as progress, _Writer() as writer:
        for window in ahead:
            count, rows = window.index + 1, len(window.rows)
            if parts.has(window.index):
                progress.initial += rows
            elif window.index % ranks == own:
                content = _content(request.written, form, engine, window, tokens)
                writer.submit(partial(parts.write, window.index, content, window.faults))
            progress.update(progress.done + rows)
        progress.total = progress.done
    return count


def _tokenize(window: Window, engine: Engine, on_error: str) -> None:
    """Tokenize a window's rows. Raises DataError for one without tokens, unless such rows are skipped."""
    if not window.rows:
        return
    window.prepared = engine.encode(*window.columns)
    empty = np.flatnonzero(window.prepared.lengths == 0)
    if len(empty):
        if on_error != SKIP:
            raise _broken(window.rows[empty[0]].place, NO_TOKENS)
        window.leave_out(empty, NO_TOKENS)
        window.prepared = None
        _tokenize(window, engine, on_error)


def _content(written: Written, form: Format, engine: Engine, window: Window, tokens: int) -> bytes:
    if window.prepared is None:
        return form.encode({name: [] for name in written.names})
    scores_NC = written.head.scores(engine.logits(window.prepared, tokens))
    return form.encode(written.columns([row.carried for row in window.rows], scores_NC))


class _Writer:
    """Writes one window in a thread while the next one is computed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._last: Future[None] | None = None

    def submit(self, write: Any) -> None:
        """Begin to write, once the window before is written. Raises what its writing raised."""
        self._wait()
        self._last = self._pool.submit(write)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None or issubclass(kind, DataError):
            self._wait()


def _entries(request: Request) -> Iterator[Entry]:
    """Yield the rows of all files. Raises DataError for a broken one, unless they are skipped."""
    wanted = request.wanted
    for file in request.files:
        reader = request.opened if file.is_stream and request.opened else file.open((*wanted.texts, *wanted.carried))
        for line in reader.read(wanted):
            place = Place(reader.place, reader.unit, line.number)
            if not isinstance(line, Fault):
                yield Entry(place, line.texts, line.carried)
            elif request.on_error == SKIP:
                yield Entry(place, (), (), line.reason)
            else:
                raise _broken(place, line.reason)
        reader.close()


def _broken(place: Place, reason: str) -> DataError:
    return DataError(
        f"{place}: {reason}. Correct the row, or leave such rows out with --on-error skip. What is finished so far is "
        "kept."
    )


def _estimated_rows(files: Sequence[InputFile]) -> int | None:
    """Return the number of rows for the progress, on rank 0; None where it is not known."""
    counts = [file.estimated_rows() for file in files] if is_main_rank() else [None]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def check_ranks(files: Sequence[InputFile]) -> None:
    """Raise ConfigError for standard input on several ranks: only one of them gets it."""
    if has_other_ranks() and any(file.is_stream for file in files):
        raise ConfigError("standard input goes to one process: score it with one, or give the ranks a file.")
