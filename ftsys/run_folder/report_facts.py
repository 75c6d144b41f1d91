"""Writes and reads the facts of a run that only a report needs: data.json and ranks.json.

data.json has the store, and the number of examples of each length, for a report on a machine without the store.
ranks.json has tokens and memory of each rank over the steps of the last attempt.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ftsys.errors import DamagedError
from ftsys.files.atomic import atomic_write_text
from ftsys.files.untrusted import file_bytes, json_object, parse_json, typed
from ftsys.run_folder.layout import DATA, RANKS

MOST = 2**53
"""The limit for a number of examples, tokens or bytes: a float holds each up to it, and no sum of them overflows."""
Count = Annotated[int, Field(ge=0, le=MOST)]
MOST_STEPS = 64
"""Log lines of a rank in the file; of more, equally spaced ones are kept."""


@dataclass(frozen=True)
class DataFacts:
    """The content of data.json. `lengths[SPLIT][n]` is the number of examples of n tokens."""

    store: str
    fingerprint: str
    lengths: Mapping[str, Sequence[Count]]


def write_data_facts(output_dir: Path, facts: DataFacts) -> None:
    """Replace data.json atomically. Raises StorageError."""
    atomic_write_text(output_dir / DATA, json.dumps(asdict(facts), ensure_ascii=False) + "\n")


def read_data_facts(output_dir: Path) -> DataFacts | None:
    """Read data.json; None if there is no such file. Raises DamagedError if it is damaged."""
    path = output_dir / DATA
    try:
        facts = typed(DataFacts, json_object(file_bytes(path)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedError(
            f"{str(path)!r} is damaged ({error}). Remove it, and start the run again, which writes a new one."
        ) from error
    if any(sum(counts) > MOST for counts in facts.lengths.values()):
        raise DamagedError(f"{str(path)!r} is damaged (too many examples). Remove it, and start the run again.")
    return facts


@dataclass(frozen=True)
class RankFacts:
    """A rank's part of an attempt: real tokens, and tokens computed with padding.

    `steps` has for each log line (step, real tokens since the line before, peak memory in bytes).
    """

    rank: int
    host: str
    tokens: Count
    computed_tokens: Count
    steps: Sequence[tuple[Count, Count, Count]]


def write_rank_facts(output_dir: Path, ranks: Sequence[RankFacts]) -> None:
    """Replace ranks.json atomically. Raises StorageError."""
    thinned = [asdict(replace(rank, steps=_thinned(rank.steps))) for rank in ranks]
    atomic_write_text(output_dir / RANKS, json.dumps(thinned) + "\n")


def _thinned(steps: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return at most MOST_STEPS entries, the last one included."""
    stride = -(-len(steps) // MOST_STEPS) if steps else 1
    return list(steps[::-1][::stride][::-1])


def read_rank_facts(output_dir: Path) -> list[RankFacts] | None:
    """Read ranks.json; None if there is no such file. Raises DamagedError if it is damaged."""
    path = output_dir / RANKS
    try:
        return typed(list[RankFacts], parse_json(file_bytes(path)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedError(f"{str(path)!r} is damaged ({error}). Start the run again.") from error
