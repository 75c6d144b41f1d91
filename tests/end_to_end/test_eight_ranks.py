"""Eight ranks under the `deepspeed` launcher on whatever cores there are, against one process on the same weights."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.commands import RUN_FILE, environment, free_port, ftsys, read_json, write_run_file

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
SECONDS = 1500
"""Eight ranks on two cores take their time."""


def test_eight_ranks_find_the_metrics_that_one_finds(tmp_path: Path, minilm_folder: Path) -> None:
    text = RUN_FILE.replace("= 5\n", "= 2\n").replace("[model]", "max_length = 32\n[model]")
    if glue := os.environ.get("FTSYS_GLUE_DIR"):
        text = text.replace("paraphrase", "mrpc").replace('source = "synthetic"', f'source = "{glue}"')
    run_file = write_run_file(tmp_path, text)
    launcher = ["deepspeed", "--num_gpus", "8", "--master_port", free_port(), "--module", "ftsys", "train"]
    trained = subprocess.run(
        [*launcher, str(run_file)],
        cwd=tmp_path,
        env=environment(DS_ACCELERATOR="cpu"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr[-4000:]
    results = read_json(tmp_path / "run/results.json")
    assert (results["world_size"], results["backend"], results["steps"]) == (8, "deepspeed", 2)
    written = tmp_path / "run/predictions/validation.tsv"
    of_eight = written.read_text().splitlines()
    assert len(of_eight) == 1 + results["metrics"]["validation"]["examples"]

    alone = ftsys("predict", run_file, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    of_one = written.read_text().splitlines()
    assert [line.split("\t")[:3] for line in of_one] == [line.split("\t")[:3] for line in of_eight]
    for name in ("accuracy", "f1"):
        assert f"{results['metrics']['validation'][name]:.4f}" in alone.stdout
