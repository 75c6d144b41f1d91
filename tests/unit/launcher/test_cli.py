"""Tests `ftlaunch plan` and `ftlaunch config`: their output, their errors, and that they import no torch."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftsys.config import build_run
from launcher.cli import main
from launcher.commands.run import needed_files
from launcher.planner.shipped_configs import shipped_files

RUNS = Path(__file__).parents[3] / "configs/runs"
MRPC = str(RUNS / "mrpc.toml")


def test_the_lines_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", MRPC, "--cpu", "--gpus-per-node", "3", "--train-rows", "3668", "--engine.precision", "fp32"]
    assert main([*words, "--trainer.warmup_steps=0.1", "--train.epochs=3"]) == 0
    text = capsys.readouterr().out
    assert text[: text.index("\n\nmodel")] == (
        "3 cpu ranks\n"
        "\n"
        "backend       ddp             3 ranks without ZeRO\n"
        "zero_stage    0               an encoder's weights, gradients and optimizer state fit one device, so nothing "
        "is split\n"
        "precision     fp32            engine.precision = 'fp32'\n"
        "order         random          packed batches hold no padding\n"
        "micro_tokens  4096            4096 on a CPU, at least data.max_length = 128\n"
        "recomputation off             activations are kept unless a GPU's memory asks for less\n"
        "compile       off             ftsys' own kernels fuse the same operations\n"
        "CUDA graphs   off             the run is on cpu\n"
        "\n"
        "global batch  32 examples a step, 10 or 11 a rank, in as many micro-batches as the tokens need\n"
        "accumulation  1 micro-batch a step where examples are longest\n"
        "steps         115 an epoch, 345 in all (3 epochs)\n"
        "warm-up       35 steps\n"
        "note: 32 examples over 3 ranks: 2 rank(s) have 11, the others 10"
    )


def test_a_plan_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", MRPC, "--cpu", "--nodes", "2", "--gpus-per-node", "4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["ranks"], plan["nodes"], plan["local_ranks"], plan["device"]) == (8, 2, 4, "cpu")


def test_a_rank_for_each_gpu_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("launcher.commands.planning.seen_gpus", lambda: 4)
    for words, first in (([], "4 cuda ranks"), (["--cpu"], "1 cpu rank"), (["--gpus-per-node=2"], "2 cuda ranks")):
        assert main(["plan", MRPC, *words]) == 0
        assert capsys.readouterr().out.splitlines()[0] == first


def test_a_plan_of_unknown_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", MRPC, "--cpu", "--batch.global_tokens", "4096"]) == 0
    lines = capsys.readouterr().out
    assert "global batch  at most 4,096 tokens a step\n" in lines
    assert "steps         unknown until the training rows are counted (2 epochs)\n" in lines


def test_a_runs_deepspeed_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", MRPC, "--cpu", "--gpus-per-node", "2", "--engine.zero_stage", "2"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert config["zero_optimization"]["stage"] == 2
    assert config["train_micro_batch_size_per_gpu"] == 16


def test_a_file_in_a_folder_gets_the_name_of_what_it_turns_on(tmp_path: Path) -> None:
    words = ["config", MRPC, "--cpu", "--engine.precision=fp32", "--engine.zero_stage=1", "--output", str(tmp_path)]
    assert main(words) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["zero1-fp32.json"]


def test_a_full_disk_leaves_the_users_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    (tmp_path / "mine.json").write_text("mine")
    (tmp_path / "link.json").symlink_to("mine.json")
    words = ["config", MRPC, "--cpu", "--engine.zero_stage=1", "--output", str(tmp_path / "link.json")]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(words) == 2
    assert f"'{tmp_path}/link.json' cannot be written (no space)" in capsys.readouterr().err
    assert [(tmp_path / name).read_text() for name in ("mine.json", "link.json")] == ["mine", "mine"]
    assert main(words) == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "mine.json").read_text())["zero_optimization"]["stage"] == 1


def test_the_file_may_be_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    assert main(["config", MRPC, "--cpu", "--output", str(tmp_path / "pipe")]) == 0
    assert "zero_optimization" in json.loads(os.read(reader, 1 << 16))
    os.close(reader)


def test_shipped_files_are_written(tmp_path: Path) -> None:
    assert main(["config", "--write-shipped", str(tmp_path / "deepspeed")]) == 0
    assert {path.name for path in (tmp_path / "deepspeed").iterdir()} == set(shipped_files())


def test_a_users_own_file_is_checked_by_plan_and_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"train_batch_size": 64, "gradient_clipping": 5}')
    for command in ("plan", "config"):
        assert main([command, MRPC, "--cpu", "--engine.deepspeed", str(mine)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        do = ': make them equal, or write "auto" in the file.'
        assert said.err.splitlines() == [
            f"error: gradient_clipping: the DeepSpeed file says 5, the run 1.0 (trainer.max_grad_norm){do}",
            f"error: train_batch_size: the DeepSpeed file says 64, the run 32 (batch.global_size){do}",
        ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "no.toml"], "error: run file 'no.toml' does not exist"),
        (["plan", MRPC, "--cpu", "--engine.precision", "fp16"], "error: engine.precision='fp16' cannot be computed on"),
        (["plan", MRPC, "--cpu", "--gpus-per-node", "64"], "error: batch.global_size=32 has fewer examples in a step"),
        (["plan", MRPC, "--nodes", "0"], "error: ranks=0 is too small"),
        (["plan", MRPC, "--train.sed", "0"], "error: train.sed=0 is not a known key: did you mean train.seed?"),
        (["config", MRPC, "--engine.backend", "ddp"], "error: this run's backend is 'ddp'"),
        (["config"], "error: no run file was given"),
        (["config", MRPC, "--cpu", "--output", "/no/such/folder/x.json"], "error: '/no/such/folder/x.json' cannot be"),
        (["config", "--write-shipped", "/dev/null/x"], "error: '/dev/null/x' cannot be written (Not a directory)"),
    ],
)
def test_mistakes_are_lines_and_status_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["--help"], ["plan", MRPC], ["config", MRPC]], ids=lambda words: words[0])
def test_torch_is_not_imported(words: list[str]) -> None:
    code = (
        "import sys\nfrom launcher.cli import main\n"
        f"try:\n    status = main({words!r})\nexcept SystemExit as left:\n    status = left.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'deepspeed', 'numpy'} & set(sys.modules)\n"
        "sys.exit(status or ' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "plan", "no.toml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: run file 'no.toml' does not exist: give the path of a TOML file.\n"


def test_a_bundle_stands_for_the_files_that_were_collected_in_it(tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    source.touch()
    tree = {"output_dir": "runs/a", "task": {"name": "mrpc"}, "data": {"source": {"train": str(source)}}}
    run = build_run(tree)
    assert needed_files("run.toml", run) == ["run.toml", str(source)]
    assert needed_files("run.toml", run.model_copy(update={"bundle": "b"})) == ["run.toml", "b"]


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "0", "1e9"])
def test_a_time_limit_that_is_none(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", MRPC, "--cpu", "--backend", "local", f"--seconds={seconds}"]) == 2
    assert f"error: --seconds {float(seconds):g} is no time limit" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "-1", "99999"])
def test_a_port_of_the_doctor_that_is_none(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert main(["doctor", MRPC, "--cpu", "--backend", "local", f"--port={port}"]) == 2
    assert capsys.readouterr().err == f"error: --port {port} is not a port: give a number from 1 to 65535.\n"


def test_the_doctor_refuses_ranks_on_slices_of_gpus_as_a_run_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    assert main(["doctor", MRPC, "--backend", "local"]) == 2
    assert "CUDA_VISIBLE_DEVICES='MIG-1,MIG-2' names MIG slices" in capsys.readouterr().err
