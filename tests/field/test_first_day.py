"""Tests what a newcomer does on the first day: small or odd data, a look at the results, predictions of other data."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.end_to_end.commands import call, ftsys
from tests.field.conftest import write_own_run, write_rows

BOTH = ["no", "yes"]


@pytest.mark.parametrize(
    ("labels", "status", "words"),
    [
        ({"train": ["no"] * 8}, 2, "its 8 rows all have the label 'no': a model learns nothing from them"),
        ({"train": ["yes"]}, 2, "its 1 row all have the label 'yes'"),
        ({"train": BOTH * 4, "validation": ["no"] * 3}, 0, "in 'validation', 3 rows all have the label 'no'"),
        ({"train": BOTH * 4, "validation": BOTH}, 0, ""),
    ],
    ids=["one class", "one row", "one class to evaluate", "two classes"],
)
def test_labels_from_which_nothing_is_learned(
    labels: dict[str, Sequence[object]], status: int, words: str, tmp_path: Path, tiny_model: Path
) -> None:
    run_file = write_own_run(tmp_path, tiny_model, {"validation": BOTH, **labels})
    done = ftsys("train", run_file, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert ("note: " in done.stderr) == (status == 0 and bool(words))
    assert (tmp_path / "run").exists() == (status == 0)


@pytest.mark.parametrize(
    ("more", "test", "rows"),
    [
        ([], [None] * 3, ["validation", "validation"]),
        ([], BOTH, ["validation", "validation", "test"]),
        (["--train.eval_every", "never"], [None] * 3, ["validation"]),
        (["--train.eval_every", "never"], BOTH, ["validation", "test"]),
        (["--train.eval_every", "3"], [None] * 3, ["validation", "validation"]),
    ],
    ids=["each epoch", "labelled test", "never", "never, labelled test", "not after the last step"],
)
def test_the_last_table_has_every_metric(
    more: list[str], test: Sequence[object], rows: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    run_file = write_own_run(tmp_path, tiny_model, {"train": BOTH * 4, "validation": BOTH * 3, "test": test})
    done = ftsys("train", run_file, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    table = [line for line in lines if line and line[0] in ("0.50", "1.00", "1.50", "2.00")]
    assert [line[2] for line in table] == rows
    results = json.loads((tmp_path / "run/results.json").read_text())["metrics"]
    header = next(line for line in lines if "accuracy" in line)
    last = {line[2]: float(line[header.index("accuracy") - len(header)]) for line in table}
    assert last == {split: pytest.approx(results[split]["accuracy"], abs=1e-4) for split in last}
    again = ftsys("train", run_file, *more, cwd=tmp_path)
    assert [line for line in again.stdout.splitlines() if line[:5].strip() in ("1.00", "1.50", "2.00")] == [
        line for line in done.stdout.splitlines() if line[:5].strip() in ("1.00", "1.50", "2.00")
    ]


def test_run_glue_ends_with_its_metrics(tmp_path: Path, tiny_model: Path) -> None:
    for name in ("train", "validation"):
        write_rows(tmp_path / f"{name}.csv", BOTH * 4)
    words = f"--model_name_or_path {tiny_model} --train_file train.csv --validation_file validation.csv --do_train"
    done = ftsys("run-glue", *words.split(), "--do_eval", "--output_dir", "out", "--max_seq_length", "16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if "validation  " in line and "3.00" in line)
    found = json.loads((tmp_path / "out/eval_results.json").read_text())
    assert f"{found['eval_accuracy']:.4f}" in row


def test_predictions_of_other_data_do_not_replace_those_of_the_run(tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_own_run(tmp_path, tiny_model, {"train": BOTH * 4, "validation": BOTH * 3})
    assert ftsys("train", run_file, cwd=tmp_path).returncode == 0
    own = (tmp_path / "run/predictions/validation.tsv").read_bytes()
    write_rows(tmp_path / "new.csv", BOTH * 5)
    other = ["--data.source", f'{{train = "{tmp_path}/train.csv", validation = "{tmp_path}/new.csv"}}']
    refused = ftsys("predict", run_file, *other, cwd=tmp_path)
    assert (refused.returncode, "--output FOLDER" in refused.stderr) == (2, True), refused.stderr
    assert (tmp_path / "run/predictions/validation.tsv").read_bytes() == own
    elsewhere = ftsys("predict", run_file, *other, "--output", tmp_path / "new", cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert len((tmp_path / "new/predictions/validation.tsv").read_text().splitlines()) == 11
    assert ftsys("predict", run_file, cwd=tmp_path).returncode == 0
    assert (tmp_path / "run/predictions/validation.tsv").read_bytes() == own


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_ax_has_a_way_to_go_on(command: str, tmp_path: Path, tiny_model: Path) -> None:
    """AX has a test split only, without labels."""
    (tmp_path / "run.toml").write_text(f'output_dir = "run"\n[task]\nname = "ax"\n[model]\nname = "{tiny_model}"\n')
    done = ftsys(command, "run.toml", cwd=tmp_path)
    advice = {"train": "ftsys predict RUN.toml --task.name ax", "evaluate": "`ftsys train`"}[command]
    assert (done.returncode, advice in done.stderr, done.stdout) == (2, True, "")


def test_ax_is_predicted_by_a_model_of_mnli(tmp_path: Path, tiny_model: Path) -> None:
    header = "index\tpromptID\tpairID\ta\tb\tc\td\te\tsentence1\tsentence2\tgold_label\n"
    names = ("entailment", "neutral", "contradiction")
    pairs = [f"{i}\t0\t0\t\t\t\t\t\tfirst {i}\tsecond {i}\t" for i in range(6)]
    labelled = header + "".join(f"{pair}{names[i % 3]}\n" for i, pair in enumerate(pairs))
    (tmp_path / "glue/MNLI").mkdir(parents=True)
    for name in ("train", "dev_matched", "dev_mismatched"):
        (tmp_path / f"glue/MNLI/{name}.tsv").write_text(labelled)
    (tmp_path / "glue/AX").mkdir()
    (tmp_path / "glue/AX/AX.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n")
    (tmp_path / "run.toml").write_text(
        f'output_dir = "run"\n[task]\nname = "mnli"\n[data]\nsource = "glue"\nmax_length = 16\n'
        f'[model]\nname = "{tiny_model}"\n'
        "[batch]\nglobal_size = 3\n[train]\nepochs = 1\n"
    )
    trained = ftsys("train", "run.toml", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    done = ftsys("predict", "run.toml", "--task.name", "ax", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test has no labels, so it has no metrics" in done.stdout
    assert "run/submission" in done.stdout
    assert (tmp_path / "run/submission/AX.tsv").read_text().startswith("index\tprediction\n0\t")
    nothing = ftsys("evaluate", "run.toml", "--task.name", "ax", cwd=tmp_path)
    assert (nothing.returncode, "`ftsys predict`" in nothing.stderr, nothing.stdout) == (2, True, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output_dir", "/proc/x"], "output_dir='/proc/x' cannot be written"),
        (["--trian", "{epochs = 3}"], "[trian] is not a known section: did you mean [train]?"),
        (["--tarin.epochs", "3"], "[tarin] is not a known section: did you mean [train]?"),
        (["--zzz.epochs", "3"], "[zzz] is not a known section: known ones are [task], [data], [model]"),
        (["--train.epoch", "3"], "train.epoch=3 is not a known key: did you mean train.epochs?"),
        (["--trainer.hub_token", "hf_secret"], "trainer.hub_token is a secret"),
    ],
)
def test_slips_on_the_command_line(words: list[str], message: str, tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_own_run(tmp_path, tiny_model, {"train": BOTH * 4, "validation": BOTH})
    done = ftsys("train", run_file, *words, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("program", "words", "status", "message"),
    [
        ("ftsys", "trian run.toml", 2, "error: 'trian' is not a command of ftsys: did you mean 'train'."),
        ("ftsys", "run_glue --task_name mrpc", 2, "did you mean 'run-glue'"),
        ("ftsys", "offline", 2, "did you mean 'offline-assets'"),
        ("launcher", "rnu run.toml", 2, "error: 'rnu' is not a command of ftlaunch: did you mean 'run'."),
        ("launcher", "stat run", 2, "did you mean 'status'"),
        ("ftsys", "--version", 0, "ftsys 0."),
        ("launcher", "--version", 0, "ftlaunch 0."),
        ("ftsys", "demo extra", 2, "'extra' is not an override"),
        ("ftsys", "demo --train.epoch 1", 2, "did you mean train.epochs?"),
        ("ftsys", "demo --runs run.toml", 2, "error: cannot make a run folder in 'run.toml'"),
        ("launcher", "sbatch run.toml --cpu --venv /nowhere", 2, "'/nowhere/bin/python' does not exist"),
        (
            "launcher",
            "sbatch run.toml --cpu --dry-run --venv /nowhere",
            0,
            "note: '/nowhere/bin/python' does not exist",
        ),
    ],
)
def test_slips_in_commands(
    program: str, words: str, status: int, message: str, tmp_path: Path, tiny_model: Path
) -> None:
    write_own_run(tmp_path, tiny_model, {"train": BOTH * 4, "validation": BOTH})
    before = sorted(tmp_path.rglob("*"))
    done = call("python", "-m", program, *words.split(), cwd=tmp_path)
    assert (done.returncode, message in done.stdout + done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flag", ["--hub_token", "--token", "--push_to_hub_token"])
def test_run_glue_repeats_no_secret(flag: str, tmp_path: Path) -> None:
    words = ("--model_name_or_path", "bundled", "--task_name", "mrpc", "--do_train", flag, "hf_secret")
    done = ftsys("run-glue", *words, cwd=tmp_path)
    assert (done.returncode, "HF_TOKEN" in done.stderr) == (2, True), done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
