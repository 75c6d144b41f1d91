"""Writes and reads data.json: the store of a run, and the number of examples of each length.

A report needs these numbers where the store is not at hand, as on another machine.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ftsys.errors import RunFolderError
from ftsys.files import atomic_write_text
from ftsys.run_folder.layout import DATA
from ftsys.untrusted import json_object, typed


@dataclass(frozen=True)
class DataFacts:
    """The content of data.json. `lengths[SPLIT][n]` is the number of examples of n tokens."""

    store: str
    fingerprint: str
    lengths: Mapping[str, Sequence[int]]


def write_data_facts(output_dir: Path, facts: DataFacts) -> None:
    """Replace data.json atomically. Raises StorageError."""
    atomic_write_text(output_dir / DATA, json.dumps(asdict(facts), ensure_ascii=False) + "\n")


def read_data_facts(output_dir: Path) -> DataFacts | None:
    """Read data.json; None if there is no such file. Raises RunFolderError if it is damaged."""
    path = output_dir / DATA
    try:
        facts = typed(DataFacts, json_object(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged ({error}). Start the run again, which writes a new one."
        ) from error
    if any(count < 0 for counts in facts.lengths.values() for count in counts):
        raise RunFolderError(f"{str(path)!r} is damaged (a negative number of examples). Start the run again.")
    return facts
