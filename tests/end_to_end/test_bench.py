"""`ftsys bench` as a user starts it, with real peers in processes of their own and a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("words", "compared"),
    [
        (["step", "--peers", "ours", "course", "accelerate"], {"course", "accelerate"}),
        (["train", "--peers", "ours", "best"], {"best"}),
        (["eval", "--peers", "ours", "bf16-weights"], {"bf16-weights"}),
        (["startup"], {"stock script"}),
        (["predict", "--peers", "ours", "trainer", "--shapes", "pairs"], {"trainer, fp32", "trainer, bf16"}),
        (["company", "--peers", "ours", "course"], {"alone", "course"}),
        (["quality", "--target", "0.05"], {"course"}),
        (["scaling"], {"1 rank"}),
    ],
    ids=lambda found: found[0] if isinstance(found, list) else "",
)
def test_a_quick_benchmark(words: list[str], compared: set[str], tmp_path: Path, repository: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "ftsys", "bench", *words, "--quick", "--output", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=repository,
        env=os.environ | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [each.name for each in scratch.glob("ftsys-*")] == []
    (record,) = tmp_path.glob(f"{words[0]}-*.json")
    found = json.loads(record.read_text())
    assert compared <= {name.rpartition(" / ")[2] for name in found["ratios"]}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert str(record) in done.stdout
