"""The demo's launcher, with a program in place of `ftsys`."""

import os
from pathlib import Path

from ftsys.demo import command as demo
from ftsys.ranks import free_port

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
    assert demo.run_ranks(demo.launch_command(CPU, free_port(), [str(tmp_path)]), environment) == 3
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["2cpu", "2cpu"]
