"""The demo: shortened, to its table; and its launcher, with a program in place of `ftsys`."""

import os
import sys
from pathlib import Path

from ftsys.demo import command as demo
from tests.end_to_end.commands import call, read_json
from tests.ports import unused_port

STEPS = ("--train.max_steps", "4", "--data.first_rows.validation", "40")
CPU = demo.Devices((), cores=4)


def test_the_launcher_starts_every_rank_and_hands_its_failure_on(tmp_path: Path) -> None:
    (tmp_path / "ftsys.py").write_text(
        "import pathlib, sys\n"
        "from os import environ\n"
        "seen = environ['WORLD_SIZE'] + environ['DS_ACCELERATOR']\n"
        "pathlib.Path(sys.argv[1], environ['RANK']).write_text(seen)\n"
        "sys.exit(3 * (environ['RANK'] == '1'))\n"
    )
    environment = demo.rank_environment(CPU, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert demo.run_ranks(demo.launch_command(CPU, unused_port(), [str(tmp_path)]), environment) == 3
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["2cpu", "2cpu"]


def test_the_first_command_of_the_readme_trains_and_prints_its_table(tmp_path: Path) -> None:
    done = call(sys.executable, "-m", "ftsys", "demo", *STEPS, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    (step,) = [line.split() for line in done.stdout.splitlines() if " validation " in line]
    assert step[1:3] == ["4", "validation"]
    assert "bag of words (baseline)" in done.stdout
    results = read_json(tmp_path / "runs/demo-001/results.json")
    assert (results["backend"], results["world_size"], results["steps"]) == ("deepspeed", 2, 4)
