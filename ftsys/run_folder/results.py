"""Writes and reads results.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from ftsys.errors import DamagedError
from ftsys.files.atomic import atomic_write_json
from ftsys.files.untrusted import file_bytes, json_object, typed
from ftsys.run_folder.layout import RESULTS

RESULT_KEYS = (
    "task",
    "model",
    "metrics",
    "world_size",
    "zero_stage",
    "backend",
    "precision",
    "kernels",
    "global_batch",
    "steps",
    "epochs",
    "seed",
    "throughput",
    "timing",
    "versions",
    "commit",
)
"""The keys that results.json always has; `attempt` and all other keys follow them."""

THROUGHPUT_KEYS = ("real_tokens_per_s", "samples_per_s", "padding_fraction", "useful_tflops", "mfu")
TIMING_KEYS = ("startup_s", "prepare_s", "train_s", "eval_s", "total_s")


def write_results(output_dir: Path | str, results: Mapping[str, Any], attempt: int) -> None:
    """Write results.json atomically. Call it last: the presence of the file means that the run is finished.

    Raises ValueError for a missing key (see RESULT_KEYS, THROUGHPUT_KEYS and TIMING_KEYS), and StorageError.
    """
    missing = [key for key in RESULT_KEYS if key not in results]
    for section, keys in (("throughput", THROUGHPUT_KEYS), ("timing", TIMING_KEYS)):
        missing += [f"{section}.{key}" for key in keys if key not in results.get(section, ())]
    if missing:
        raise ValueError(f"results lack {', '.join(missing)}")
    ordered = {key: results[key] for key in RESULT_KEYS} | dict(results) | {"attempt": attempt}
    atomic_write_json(Path(output_dir) / RESULTS, ordered)


class _Needed(TypedDict):
    """The keys that readers of a results.json rely on."""

    task: str
    model: NotRequired[str]
    metrics: NotRequired[dict[str, dict[str, Any]]]
    evaluation_speed: NotRequired[dict[str, dict[str, float]]]
    best: NotRequired[dict[str, Any]]
    steps: NotRequired[int]
    epochs: NotRequired[float]
    attempt: NotRequired[int]


def are_of_store(results: Mapping[str, Any], fingerprint: str) -> bool:
    """Return True where results are of the store with this fingerprint; those of older versions name its folder."""
    known = (str(results.get("store_fingerprint", ""))[:16], Path(str(results.get("store", ""))).name)
    return fingerprint[:16] in known


def read_results(output_dir: Path | str) -> dict[str, Any] | None:
    """Read results.json; None if there is no such file. Raises DamagedError if it is damaged."""
    path = Path(output_dir) / RESULTS
    try:
        results = json_object(file_bytes(path))
        typed(_Needed, results)
        return results
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, ValueError) as error:
        raise DamagedError(
            f"{str(path)!r} is damaged ({error}). Remove it to go on from the last checkpoint, "
            "or start from the beginning with --overwrite."
        ) from error
