"""Numbers the attempts of a run: each start takes the next attempt number, which no other start can take.

attempts/000003.json holds {identity, attempt, first_attempt, host, pid, command, time} and never changes after it is
made. The highest number is the attempt that owns the folder, even if an earlier attempt still runs and writes: that one
finds the higher number and stops with exit status 77.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftsys.errors import CheckpointError, RunFolderError, StorageError
from ftsys.files.atomic import atomic_write_json
from ftsys.files.folders import sync_folder
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import file_bytes, json_object, typed
from ftsys.run_folder.layout import ATTEMPTS


def highest_attempt(output_dir: Path | str) -> int:
    """Return the number of the newest attempt that claimed the folder; 0 if none did. Lists one small folder."""
    folder = Path(output_dir) / ATTEMPTS
    if not folder.is_dir():
        return 0
    return max((int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()), default=0)


def check_still_ours(output_dir: Path | str, attempt: int) -> None:
    """Raise RunFolderError if an attempt newer than `attempt` has claimed the folder, or if the folder is gone."""
    if highest_attempt(output_dir) == 0:
        raise RunFolderError(f"run folder {str(output_dir)!r} is gone. Start the run again.")
    refuse_after_takeover(output_dir, attempt)


@contextmanager
def errors_after_takeover(output_dir: Path | str, attempt: int) -> Iterator[None]:
    """Raise RunFolderError in place of an error of the block's files, if a newer attempt has claimed the folder.

    A newer attempt removes what an older one is still writing: that is no fault of the disk or of the checkpoints.
    `attempt` is 0 on a rank that does not know it, where errors stay as they are.
    """
    try:
        yield
    except (OSError, StorageError, CheckpointError) as error:
        if 0 < attempt < highest_attempt(output_dir):
            raise _taken_over(output_dir, attempt) from error
        raise


def refuse_after_takeover(output_dir: Path | str, attempt: int) -> None:
    """Raise RunFolderError if an attempt newer than `attempt` has claimed the folder."""
    if highest_attempt(output_dir) > attempt:
        raise _taken_over(output_dir, attempt)


def _taken_over(output_dir: Path | str, attempt: int) -> RunFolderError:
    return RunFolderError(
        f"run folder {str(output_dir)!r} belongs to attempt {highest_attempt(output_dir)} now; "
        f"this is attempt {attempt}, which stops."
    )


def read_owner(output_dir: Path | str, forgive: bool = False) -> dict[str, Any] | None:
    """Read the newest attempt's {identity, attempt, first_attempt, host, pid, command, time}; None if there is none.

    Raises RunFolderError for a record that cannot be read; with `forgive`, returns None instead.
    """
    attempt = highest_attempt(output_dir)
    path = _path(output_dir, attempt)
    if attempt == 0:
        return None
    try:
        owner = json_object(file_bytes(path))
        return {
            **owner,
            "attempt": attempt,
            "first_attempt": typed(int, owner["first_attempt"]),
            "identity": owner["identity"],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        if forgive:
            return None
        raise RunFolderError(
            f"{str(path)!r} cannot be read ({error}), so the run that owns this folder is unknown. "
            "Name another output_dir, or start from the beginning with --overwrite."
        ) from error


def take_attempt(output_dir: Path | str, attempt: int, record: dict[str, Any]) -> bool:
    """Take the attempt number `attempt`; returns False if another start has taken it. Raises StorageError.

    A hard link to a finished file is made atomically and exclusively, over NFS too.
    """
    path = _path(output_dir, attempt)
    ready = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    atomic_write_json(ready, record)
    with storage_errors(path):
        try:
            os.link(ready, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return _create_exclusively(path, ready.read_bytes())  # a file system without links
        finally:
            ready.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


def _path(output_dir: Path | str, attempt: int) -> Path:
    return Path(output_dir) / ATTEMPTS / f"{attempt:06}.json"


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        with path.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        return False
    return True
