"""Tests how a scoring's ranks name themselves in errors; whole ranks are in tests/end_to_end/test_score_ranks.py."""

import subprocess
import sys

import pytest

from ftsys import distributed
from ftsys.errors import ConfigError, DataError, FtsysError
from ftsys.score.ranks import _named, agreed, together


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (DataError("x.csv: no such file."), DataError, "x.csv: no such file."),
        (PermissionError(13, "denied", "x.csv"), ConfigError, "'x.csv': permission denied. Ask its owner"),
    ],
)
def test_an_error_names_its_rank_but_rank_0(
    monkeypatch: pytest.MonkeyPatch, rank: int, error: Exception, kind: type[FtsysError], text: str
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    with pytest.raises(kind) as raised:
        _named(lambda: fail(error))
    assert text in str(raised.value)
    assert str(raised.value).startswith("on rank 1 (") == (rank == 1)


def test_an_error_without_a_files_name_is_left_as_it_is() -> None:
    with pytest.raises(PermissionError):
        _named(lambda: fail(PermissionError("a socket")))


def test_one_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together():
        assert agreed(lambda: 3) == 3
        assert distributed.world_size() == 1


def test_wrong_input_of_one_process_is_said_before_torch_is_loaded() -> None:
    code = (
        "import sys; from ftsys.cli import main; status = main(['predict', 'model', 'none.csv', '--output', 'o.csv']); "
        "sys.exit(status + 10 * ('torch' in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "error: none.csv: no such file. Correct the name.\n")
