"""Tests that outputs which the documentation quotes are the program's. A `...` stands for lines that are left out."""

import json
import re
from pathlib import Path

import pytest

from ftsys.demo.command import print_results
from ftsys.run_folder.metrics_log import MetricsWriter
from launcher.cli import main
from tests.end_to_end.commands import call, ftsys, write_run_file

BERT_LARGE = {
    "model_type": "bert",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def quoted(page: Path, start: str) -> list[str]:
    """Return the lines of the block that begins with the line `start`, without it."""
    blocks = re.findall(r"^```(?:console|text)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    block = next(block for block in blocks if block.startswith(f"{start}\n"))
    return [line for line in block.splitlines()[1:] if line != "..."]


def not_in_order(lines: list[str], output: str) -> list[str]:
    """Return the lines that the output does not have, after those before them."""
    rest = iter(output.splitlines())
    return [line for line in lines if not any(line == each for each in rest)]


def test_the_plan_of_bert_large(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert-large").mkdir()
    (tmp_path / "bert-large/config.json").write_text(json.dumps(BERT_LARGE))
    Path("RUN.toml").write_text(
        'output_dir = "run"\n[task]\nname = "mrpc"\n[data]\nmax_length = 512\n'
        '[model]\nname = "bert-large"\n[batch]\nglobal_size = 128\n'
    )
    command = "ftlaunch plan RUN.toml --gpu a10-24g --gpus-per-node 4 --train-rows 3668"
    assert main(command.split()[1:]) == 0
    output = capsys.readouterr().out
    page = repository / "docs/how-to/memory.md"
    assert not_in_order(quoted(page, f"$ {command}"), output) == []
    assert main("plan RUN.toml --gpu-memory 3GiB --gpus-per-node 1".split()) == 2
    refusal = re.sub(r"\n> ", " ", page.read_text().partition("\n> error: ")[2]).partition("\n")[0]
    assert capsys.readouterr().err == f"error: {refusal}\n"


def test_the_bundle(repository: Path, tmp_path: Path) -> None:
    write_run_file(tmp_path)
    done = call("python", "-m", "launcher", "bundle", "run.toml", "--output", "pairs-bundle", cwd=tmp_path)
    start = "$ ftlaunch bundle run.toml --output pairs-bundle"
    assert quoted(repository / "docs/how-to/offline.md", start) == done.stdout.splitlines()


def test_the_demos_table(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows depend on the machine: the quoted figures are logged. Its last row, the baseline, is computed."""
    lines = quoted(repository / "docs/how-to/install.md", "paraphrase, synthetic data")
    writer = MetricsWriter(tmp_path / "metrics.jsonl", 1)
    for line in lines[2:5]:
        epoch, step, split, train, loss, accuracy, f1 = line.split()
        writer.write({"loss": float(train)}, int(step), float(epoch))
        known = {"split": split, "loss": float(loss), "accuracy": float(accuracy), "f1": float(f1)}
        writer.write(known, int(step), float(epoch))
    print_results(repository / "configs/runs/demo.toml", [], tmp_path)
    assert capsys.readouterr().out.splitlines()[1 : 1 + len(lines)] == lines


def test_the_doctors_checks(repository: Path, tmp_path: Path) -> None:
    """The quoted run has two hosts: compared are the checks and their order, with those of a run on this one."""
    run_file = write_run_file(tmp_path)
    start = "$ ftlaunch doctor run.toml --hostfile hosts --cpu"
    lines = quoted(repository / "docs/how-to/doctor.md", start)
    done = call("python", "-m", "launcher", "doctor", run_file, "--cpu", "--gpus-per-node", "2", cwd=tmp_path)

    def names(output: list[str]) -> list[str]:
        return [line[:21] for line in output if re.match(r"(ok|error|warning) ", line)]

    def checks(output: list[str]) -> list[str]:
        return [name.split()[1] for name in names(output)]

    # Shown only where others than the tested versions are installed, and where there are few cores.
    others, found = {"versions", "threads"}, set(checks(done.stdout.splitlines()))
    assert {"node", "python", "packages"} <= found - others <= set(checks(lines)), done.stdout
    assert {name[:9] for name in names(lines)} == {"ok       ", "error    "}
    assert re.fullmatch(r"\d+ errors?, \d+ warnings?, \d+ ok, in [\d.]+ s", lines[-1])
    assert re.fullmatch(r"\d+ errors?, \d+ warnings?, \d+ ok, in [\d.]+ s", done.stdout.splitlines()[-1])


def test_help_of_every_command_is_in_the_reference(repository: Path, tmp_path: Path) -> None:
    reference = (repository / "docs/reference/commands.md").read_text()
    done = ftsys("predict", "--help", cwd=tmp_path, COLUMNS="80")
    options = re.findall(r"^  (--[a-z-]+)", done.stdout, flags=re.MULTILINE)
    assert {"--output", "--text", "--threshold"} <= set(options)
    assert all(option in reference for option in options)
