"""Code in a model's folder: refused by every command, never asked for, and run where the switch is on."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.attempts import RUN_FILE
from tests.end_to_end.commands import environment, free_port, ftsys
from tests.remote_model import MARK, make_remote_model

SWITCH = "write model.trust_remote_code = true in the run file, or give --trust-remote-code"
TRUST = ("--model.trust_remote_code", "true")


def made(folder: Path, minilm: Path, tokenizer: bool = False) -> Path:
    make_remote_model(folder / "model", minilm, tokenizer)
    (folder / "run.toml").write_text(RUN_FILE.replace("max_steps = 12", "max_steps = 2"))
    (folder / "rows.csv").write_text("text,other\n" + "a dog runs,a dog sleeps\n" * 3)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A run that trusts its model, finished; both the model and the tokenizer are code of the folder."""
    folder = made(tmp_path_factory.mktemp("remote"), minilm_folder, tokenizer=True)
    done = ftsys("train", "run.toml", *TRUST, cwd=folder, **caches(folder))
    assert done.returncode == 0, done.stderr
    return folder


def caches(folder: Path) -> dict[str, str]:
    """Own caches, so that no code is left from another test, and the file in which code notes that it ran."""
    return {"HF_HOME": str(folder / "hf"), MARK: str(folder / "marks"), "FTSYS_CACHE": str(folder / "cache")}


def ran(folder: Path) -> str:
    marks = folder / "marks"
    return marks.read_text() if marks.exists() else ""


NO_MODEL = ("prepare", "bundle")
"""Commands that load no model: BERT's own tokenizer needs no code."""
COMMANDS = {
    "train": ("train", "run.toml"),
    "prepare": ("prepare", "run.toml"),
    "bundle": ("bundle", "run.toml", "--output", "bundled-run"),
    "predict": ("predict", "model", "rows.csv", "--text", "text", "other", "--output", "out.csv"),
}


CASES = [(words, tokenizer) for name, words in COMMANDS.items() for tokenizer in (name in NO_MODEL, True)]
"""With code for the model alone, or for its tokenizer too."""


@pytest.mark.parametrize(("words", "tokenizer"), dict.fromkeys(CASES))
def test_a_command_refuses_and_does_not_ask(
    words: tuple[str, ...], tokenizer: bool, tmp_path: Path, minilm_folder: Path
) -> None:
    made(tmp_path, minilm_folder, tokenizer)
    done = subprocess.run(
        [sys.executable, "-m", "ftsys", *words],
        cwd=tmp_path, env=environment(**caches(tmp_path)), input="yes\n" * 1000,
        text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(SWITCH) == 1
    assert "Traceback" not in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    assert ran(tmp_path) == ""
    assert not (tmp_path / "run").exists(), "a refused start makes no run folder"


def test_training_runs_the_code_and_keeps_it(trained: Path) -> None:
    assert "modeling_odd" in ran(trained)
    assert "tokenization_odd" in ran(trained)
    kept = {path.name for path in (trained / "run/model").glob("*.py")}
    assert kept == {"configuration_odd.py", "modeling_odd.py", "tokenization_odd.py"}
    assert json.loads((trained / "run/model/config.json").read_text())["model_type"] == "odd"
    assert json.loads((trained / "run/results.json").read_text())["layout"] == "padded"


def test_commands_with_a_run_file_go_by_it(trained: Path) -> None:
    done = ftsys("evaluate", "run.toml", *TRUST, cwd=trained, **caches(trained))
    assert done.returncode == 0, done.stderr
    refused = ftsys("evaluate", "run.toml", cwd=trained, **caches(trained))
    assert (refused.returncode, refused.stderr.count(SWITCH)) == (2, 1), refused.stderr


def test_a_run_folder_does_not_trust_itself(trained: Path) -> None:
    words = ("predict", "run", "rows.csv", "--text", "text", "other", "--output", "scored.csv")
    refused = ftsys(*words, cwd=trained, **caches(trained))
    assert (refused.returncode, refused.stderr.count(SWITCH)) == (2, 1), refused.stderr
    done = ftsys(*words, "--trust-remote-code", cwd=trained, **caches(trained))
    assert done.returncode == 0, done.stderr
    with (trained / "scored.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 3


@pytest.mark.parametrize("command", [("export", "run", "--to", "onnx", "--rows", "4"), ("calibrate", "run")])
def test_commands_on_a_run_folder(command: tuple[str, ...], trained: Path) -> None:
    shutil.rmtree(trained / "run/predictions", ignore_errors=True)  # from them calibration needs no model
    refused = ftsys(*command, cwd=trained, **caches(trained))
    if "needs transformers 5.23" in refused.stderr:
        pytest.skip(refused.stderr.strip())
    assert (refused.returncode, refused.stderr.count(SWITCH)) == (2, 1), refused.stderr
    done = ftsys(*command, "--trust-remote-code", cwd=trained, **caches(trained))
    assert done.returncode == 0, done.stderr


PLANTED = f"import os; open(os.environ['{MARK}'], 'a').write('planted')\n"


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_MODULES_CACHE"])
def test_code_that_another_user_left_in_a_shared_cache_does_not_run(
    variable: str, tmp_path: Path, minilm_folder: Path
) -> None:
    """The user trusts the model's code alone. Where it was copied to before, anybody may have left a file."""
    project, shared = made(tmp_path, minilm_folder), tmp_path / "hf/modules"
    (shared / "transformers_modules").mkdir(parents=True)
    (shared / "transformers_modules/__init__.py").write_text(PLANTED)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/remote-code.lock").symlink_to(tmp_path / "made-by-link")
    own = caches(project) | ({} if variable == "HF_HOME" else {variable: str(shared)})
    done = ftsys(*COMMANDS["predict"], "--trust-remote-code", cwd=project, **own)
    assert done.returncode == 0, done.stderr
    assert "modeling_odd" in ran(project)
    assert "planted" not in ran(project)
    assert not (tmp_path / "made-by-link").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_for_trusted_code_that_another_user_made_is_refused(tmp_path: Path, minilm_folder: Path) -> None:
    project, planted = made(tmp_path, minilm_folder), tmp_path / f"cache/remote-code-{os.getuid()}"
    (planted / "transformers_modules").mkdir(parents=True)
    (planted / "transformers_modules/__init__.py").write_text(PLANTED)
    os.chown(planted, 65534, 65534)
    done = ftsys(*COMMANDS["predict"], "--trust-remote-code", cwd=project, **caches(project))
    assert done.returncode == 2, done.stderr
    assert f"{str(planted)!r} holds code that would be run, but it belongs to user 65534" in done.stderr
    assert "Traceback" not in done.stderr
    assert ran(project) == ""


def test_ranks_and_bundles_agree(tmp_path: Path, minilm_folder: Path) -> None:
    project = made(tmp_path, minilm_folder, tokenizer=True)
    words = ("ftlaunch", "bundle", "run.toml", "--output", "packed-up", *TRUST)
    done = subprocess.run(
        words, cwd=project, env=environment(**caches(project)), text=True, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (project / "model").rename(project / "elsewhere")
    torchrun = ["torchrun", "--nproc-per-node", "2", "--master-port", free_port(), "-m", "ftsys", "train"]
    done = subprocess.run(
        [*torchrun, "packed-up/run.toml"], cwd=project, env=environment(**caches(project)),
        text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ran(project).count("modeling_odd") == 2
