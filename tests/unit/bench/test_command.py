"""Tests `ftsys bench` apart from its measurements: errors, tables, records, plots, and the stages on a GPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ftsys.bench import eval as bench_eval
from ftsys.bench import gpu, startup, step, train
from ftsys.bench.command import BENCHMARKS
from ftsys.bench.harness import matmul, measuring
from ftsys.bench.harness.inputs import Inputs
from ftsys.bench.harness.measuring import Case, Rounds
from ftsys.bench.harness.output import Findings, conclude
from ftsys.bench.harness.rounds import PeerFailed
from ftsys.cli import main
from ftsys.cpus.instructions import vector_instructions

BLOCK = {"seconds": 2.0, "tokens": 1000, "examples": 20, "steps": 4, "memory": 5e8, "eval_loss": 0.5}


def case(tmp_path: Path) -> Case:
    inputs = Inputs(
        tmp_path, tmp_path, "synthetic sample", {"train": 64, "validation": 32}, {"train": 1, "validation": 1}
    )
    return Case("tiny", tmp_path, inputs, tmp_path)


def rounds(**rates: float) -> Rounds:
    """Create three blocks per peer; a peer with rate 2 takes half the time."""
    blocks = {
        name: [{**BLOCK, "seconds": 2.0 / rate, "flops": 1e8, "fp32_flops": 5e7} for _ in range(3)]
        for name, rate in rates.items()
    }
    return Rounds({name: {"parameters": 1000} for name in rates}, blocks)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stepp"], "bench 'stepp' does not exist"),
        (["step", "--peers", "ours", "curse"], "--peers 'curse' is not a peer"),
        (["step", "--repeats", "0"], "--repeats 0 measures nothing"),
        (["step", "--tokens", "512", "--peers", "ours", "best"], "--tokens: peer 'best' counts a step in examples"),
        (["train", "--peers", "accelerate"], "--peers 'accelerate' is not a peer"),
        (["eval", "--models", "./nowhere"], "--models './nowhere' is none of"),
        (["gpu", "--dry", "--only", "stepp"], "--only 'stepp' is not a stage"),
    ],
)
def test_wrong_input_is_one_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err


def test_without_a_gpu_the_gpu_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "gpu"]) == 2
    assert "sees no CUDA device" in capsys.readouterr().err


@pytest.mark.long
def test_a_benchmark_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM while the peers start: status 143, no scratch folder, no peer left."""
    command = [sys.executable, "-m", "ftsys", "bench", "scaling", "--quick", "--output", str(tmp_path / "results")]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "FTSYS_GLUE_DIR": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    logs: list[Path] = []
    while not logs and process.poll() is None:
        logs = list(tmp_path.glob("ftsys-bench-*/work-0/*.log"))
        time.sleep(0.05)
    process.terminate()
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 143, said
    assert logs
    assert not list(tmp_path.glob("ftsys-bench-*"))


def test_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in BENCHMARKS)


@pytest.mark.parametrize(("precision", "rate", "samples"), [("bf16", 1e8, 6), ("fp32", 5e7, 3)])
def test_a_step_in_figures(
    precision: str, rate: float, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "faster_precision", lambda: precision)
    found = Findings()
    step.note_steps(found, case(tmp_path), rounds(ours=4.0, course=1.0, matmul=1.0))
    assert found.ratios == {"tiny: optimizer steps: ours / course": 4.0}
    row = found.tables["tiny: optimizer steps"]["ours"]
    assert (row["1000 tokens/s"], row["samples/s"], row["peak GB"]) == (2.0, 40.0, 0.5)
    assert row["useful TFLOP/s"] == pytest.approx(6 * 1000 * 2000 / 1e12)
    assert row["of matmul"] == pytest.approx(6 * 1000 * 2000 / rate)
    assert found.measurements["tiny, ours: of matmul"].repeats == 3
    assert found.settings["tiny: matrix-product rate"] == {"FLOP/s": rate, "samples": samples}
    course = found.tables["tiny: optimizer steps"]["course"]
    assert course["ours is x"] == 4.0
    assert course["bound x"] == pytest.approx(rate / (6 * 1000 * 500))
    assert row["bound x"] == pytest.approx(1 / row["of matmul"])
    assert found.measurements["tiny, course: step"].median == 0.5
    assert found.settings["tiny: steps"]["text"] == "synthetic sample"
    assert len(found.settings["tiny: steps"]["blocks"]["ours"]) == 3


def test_no_share_above_the_matrix_product_rate_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "faster_precision", lambda: "bf16")
    found = Findings()
    step.note_steps(found, case(tmp_path), rounds(ours=40.0, course=1.0, matmul=1.0))
    assert "of matmul" not in found.tables["tiny: optimizer steps"]["ours"]
    assert "tiny, ours: of matmul" not in found.measurements
    assert found.tables["tiny: optimizer steps"]["course"]["of matmul"] == pytest.approx(6 * 1000 * 500 / 1e8)
    assert found.notes == ["tiny, ours: no share of the matrix-product rate, which was measured in busy moments only"]


def test_trainings_and_predictions_in_figures(tmp_path: Path) -> None:
    found = Findings()
    train.note_trainings(found, case(tmp_path), rounds(ours=2.0, best=1.0))
    bench_eval.note_predictions(found, case(tmp_path), "train", rounds(ours=3.0, best=1.0, matmul=1.0))
    assert found.ratios == {
        "tiny: training of 20 examples: ours / best": 2.0,
        "tiny: prediction of 64 rows: ours / best": 3.0,
    }
    predicted = found.tables["tiny: prediction of 64 rows"]
    assert predicted["ours"]["rows/s"] == 30
    assert "matmul" not in predicted
    rate = found.settings["tiny: prediction of 64 rows: matrix-product rate"]["FLOP/s"]
    assert predicted["best"]["bound x"] == pytest.approx(rate / (2 * 1000 * 500))


def test_a_ratio_is_taken_within_a_round() -> None:
    """The machine is half as fast in the second round: rates change, ratios do not."""
    drifting = {
        "ours": [{**BLOCK, "seconds": 1.0}, {**BLOCK, "seconds": 2.0}],
        "best": [{**BLOCK, "seconds": 3.0}, {**BLOCK, "seconds": 6.0}],
    }
    assert Rounds({}, drifting).over("ours", "best") == [3.0, 3.0]


def test_record_plot_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    found = Findings(notes=["cross-encoder: left out"])
    step.note_steps(found, case(tmp_path), rounds(ours=4.0, course=1.0, matmul=1.0))
    conclude("step", found, tmp_path)
    (record,), (plot,) = tmp_path.glob("step-*.json"), tmp_path.glob("step-*.svg")
    written = json.loads(record.read_text())
    assert written["ratios"] == {"tiny: optimizer steps: ours / course": 4.0}
    assert written["cpu"]["instructions"] == list(vector_instructions())
    assert "<svg" in plot.read_text()
    again = plot.read_bytes()
    conclude("step", found, tmp_path)
    assert plot.read_bytes() == again, "the same figures make the same file"
    shown = capsys.readouterr().out
    assert "tiny: optimizer steps" in shown
    assert "cross-encoder: left out" in shown
    assert str(record) in shown


def test_without_matplotlib_there_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = Findings()
    step.note_steps(found, case(tmp_path), rounds(ours=1.0, matmul=1.0))
    conclude("step", found, tmp_path)
    assert list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob("*.svg"))
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_every_stage_is_a_command_that_its_benchmark_reads() -> None:
    """The words of each stage pass the benchmark's own parser, up to what it would measure."""
    due = gpu.stages()
    assert len({stage.name for stage in due}) == len(due) > 5
    assert sum(stage.needs for stage in due) <= gpu.SECONDS
    for stage in due:
        for words in (stage.command, stage.dry):
            if words[: len(gpu.FTSYS)] == gpu.FTSYS:
                assert reads(words[len(gpu.FTSYS) :]), words


def reads(words: tuple[str, ...]) -> bool:
    """Return True where the benchmark parses the words and would measure."""
    module = {"step": step, "train": train, "eval": bench_eval, "startup": startup}[words[0]]
    with pytest.MonkeyPatch.context() as patch:
        for place in (measuring, module):
            patch.setattr(place, "each_case", lambda *_: iter([]), raising=False)
            patch.setattr(place, "model_folders", lambda *_: {}, raising=False)
        patch.setattr(module, "conclude", lambda *_: None)
        return module.main(words[1:]) == 0


SLEEPS, QUICK = (sys.executable, "-c", "import time; time.sleep(60)"), (sys.executable, "-c", "pass")
FAILS = (sys.executable, "-c", "raise SystemExit(3)")


def test_stages_end_in_time_and_the_rest_is_said() -> None:
    due = [
        gpu.Stage("quick", QUICK, QUICK, 0),
        gpu.Stage("fails", FAILS, QUICK, 0),
        gpu.Stage("sleeps", SLEEPS, QUICK, 0),
        gpu.Stage("late", QUICK, QUICK, 10),
    ]
    found, wrong = gpu.run_stages(due, 8.0, dry=False, tell=lambda line: None)
    assert wrong == ["fails", "sleeps"]
    statuses = {name: found.settings[name]["exit status"] for name in found.tables["stages"]}
    assert statuses == {"quick": 0, "fails": 3, "sleeps": -15}
    assert [note.partition(",")[0] for note in found.notes] == [
        "fails: exit status 3", "sleeps: out of time", "late: left out",
    ]  # fmt: skip


def test_a_dry_run_takes_the_dry_commands() -> None:
    found, wrong = gpu.run_stages([gpu.Stage("s", FAILS, QUICK, 999)], 30.0, dry=True, tell=lambda line: None)
    assert (wrong, found.settings["s"]["exit status"]) == ([], 0)


KILLED = """
import sys
from unittest.mock import patch
from ftsys.bench import command, gpu
quick = (sys.executable, "-c", "pass")
hangs = (sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)")
stages = [gpu.Stage(name, words, words, 0) for name, words in (("quick", quick), ("hangs", hangs), ("late", quick))]
with patch.object(gpu, "stages", lambda: stages):
    raise SystemExit(command.main(["gpu", "--dry", "--output", sys.argv[1]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_benchmark_of_a_gpu_leaves_what_it_has(tmp_path: Path, number: int) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "on\n" for line in process.stdout)
        process.send_signal(number)
        assert process.stdout.read() is not None  # its end comes once the stage has gone, too
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert (list(found["measurements"]), found["settings"]["still due"]) == (["quick"], ["hangs", "late"])


def test_a_start_that_trains_nothing_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[task]\nname = 'nothing'\n")
    with pytest.raises(PeerFailed, match=r"ftsys train has trained no step:\n(.|\n)*nothing"):
        startup.OurStart(tmp_path / "run.toml", tmp_path).block()
