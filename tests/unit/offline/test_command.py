"""Hugging Face's caches as `ftsys offline-assets` fills them, read back by the libraries themselves."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftsys.cli import main
from ftsys.config import build_run, load_run, resolve_task
from ftsys.data.bundle import verify_bundle
from ftsys.data.sources.source import open_source
from ftsys.errors import DataError
from ftsys.model_files.folder import TOKENIZER_FILES, model_files
from ftsys.offline.command import of_glue_folder
from ftsys.offline.hf_caches import HfCaches, put_model, put_task
from ftsys.offline.make_bundle import make_bundle
from ftsys.tasks import GLUE

datasets = pytest.importorskip("datasets")

MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
PAIR = "{}\t1\t2\tthe cat sat .\tthe dog sat {} .\n"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2{}\n"
SCORED = "0\tg\tf\ty\t1\tn\tn\ta plane\ta jet{}\n"


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """MRPC and STS-B in GLUE's own layout, a few rows of each; STS-B's test rows have no score."""
    folder = tmp_path / "files"
    for name in ("MRPC", "STS-B"):
        (folder / name).mkdir(parents=True)
    for name, rows in {"train": 5, "dev": 3, "test": 2}.items():
        pairs = "".join(PAIR.format(row % 2, row) for row in range(rows))
        (folder / "MRPC" / f"{name}.tsv").write_text(MRPC + pairs)
        score, known = ("", "") if name == "test" else ("\tscore", "\t2.5")
        (folder / "STS-B" / f"{name}.tsv").write_text(STSB.format(score) + SCORED.format(known) * rows)
    return folder


@pytest.fixture
def model(tmp_path: Path, minilm_folder: Path) -> Path:
    """A model folder with a real tokenizer and few weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", *(name for name in TOKENIZER_FILES if (minilm_folder / name).is_file())):
        shutil.copyfile(minilm_folder / name, folder / name)
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder


def load(caches: HfCaches, name: str, task: str) -> Any:
    return datasets.load_dataset(name, task, cache_dir=str(caches.datasets))


def opened(folder: Path, task: str) -> Any:
    run = build_run({"output_dir": "out", "task": {"name": task}, "data": {"source": str(folder)}})
    return open_source(run.data, GLUE[task])


@pytest.mark.parametrize("name", ["glue", "nyu-mll/glue"])
def test_load_dataset_finds_the_rows_under_both_names(glue: Path, tmp_path: Path, name: str) -> None:
    caches = HfCaches.under(tmp_path / "hf")
    put_task(opened(glue, "mrpc"), caches)
    found = load(caches, name, "mrpc")
    assert {split: len(rows) for split, rows in found.items()} == {"train": 5, "validation": 3, "test": 2}
    row = {"sentence1": "the cat sat .", "sentence2": "the dog sat 3 .", "label": 1, "idx": 3}
    assert found["train"][3] == row
    assert found["train"].features["label"].names == ["not_equivalent", "equivalent"]


def test_a_hidden_score_is_the_hubs(glue: Path, tmp_path: Path) -> None:
    caches = HfCaches.under(tmp_path / "hf")
    put_task(opened(glue, "stsb"), caches)
    found = load(caches, "glue", "stsb")
    assert found["test"]["label"][:] == [-1.0, -1.0]
    assert found["train"].features["label"].dtype == "float32"


def test_a_second_time_changes_nothing_and_a_changed_source_is_the_newest(glue: Path, tmp_path: Path) -> None:
    caches = HfCaches.under(tmp_path / "hf")
    first = put_task(opened(glue, "mrpc"), caches)
    assert [placed.new for placed in first] == [True, True]
    before = {path: path.stat().st_mtime_ns for path in caches.datasets.rglob("*.arrow")}
    again = put_task(opened(glue, "mrpc"), caches)
    assert [placed.new for placed in again] == [False, False]
    assert {path: path.stat().st_mtime_ns for path in caches.datasets.rglob("*.arrow")} == before
    train = glue / "MRPC/train.tsv"
    whole = train.read_text()
    train.write_text(whole + PAIR.format(0, "still"))
    assert [placed.new for placed in put_task(opened(glue, "mrpc"), caches)] == [True, True]
    assert len(load(caches, "glue", "mrpc")["train"]) == 6
    train.write_text(whole)
    assert [placed.new for placed in put_task(opened(glue, "mrpc"), caches)] == [False, False]
    assert len(load(caches, "glue", "mrpc")["train"]) == 5, "what was asked for last is what is found"


def test_a_row_that_cannot_be_used_is_told_as_for_a_run(glue: Path, tmp_path: Path) -> None:
    train = glue / "MRPC/train.tsv"
    train.write_text(train.read_text() + "7\t1\t2\ta\tb\n")
    with pytest.raises(DataError, match=r"train\.tsv, line 7: "):
        put_task(opened(glue, "mrpc"), HfCaches.under(tmp_path / "hf"))


def test_rows_that_a_run_leaves_out_are_there_for_scripts(glue: Path, model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    text = f'output_dir = "out"\n[task]\nname = "mrpc"\n[data]\nsource = "{glue}"\n[model]\nname = "{model}"\n'
    run.write_text(text)
    words = ("--data.first_rows", "{train = 2}")
    assert main(["offline-assets", str(run), "--hf-home", str(tmp_path / "hf"), *words]) == 0
    assert len(load(HfCaches.under(tmp_path / "hf"), "glue", "mrpc")["train"]) == 5
    short = load_run(run, words)
    assert make_bundle(short, resolve_task(short), tmp_path / "bundle")[0].store
    assert len(load(HfCaches.under(tmp_path / "bundle/hf"), "glue", "mrpc")["train"]) == 5


def test_a_bundle_of_own_files_passes_them_to_no_script(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("sentence1,sentence2,label\na,b,0\nc,d,1\n")
    source = dict.fromkeys(("train", "validation"), str(tmp_path / "own.csv"))
    tree = {"output_dir": "out", "task": {"name": "mrpc"}, "data": {"source": source}, "model": {"name": str(model)}}
    run = build_run(tree)
    make_bundle(run, resolve_task(run), tmp_path / "bundle")
    assert not (tmp_path / "bundle/hf").exists()


def test_rows_that_change_while_they_are_read_are_not_put(glue: Path, tmp_path: Path) -> None:
    source = opened(glue, "mrpc")
    assert source.fingerprint
    train = glue / "MRPC/train.tsv"
    train.write_text(train.read_text() + PAIR.format(1, "late"))
    with pytest.raises(DataError, match=r"train\.tsv changed while it was read: start again"):
        put_task(source, HfCaches.under(tmp_path / "hf"))
    assert not list((tmp_path / "hf").rglob("*.arrow"))


def test_from_pretrained_finds_the_model(model: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    caches = HfCaches.under(tmp_path / "hf")
    assert put_model("somebody/small", model, caches).new
    assert not put_model("somebody/small", model, caches).new
    config = AutoConfig.from_pretrained("somebody/small", cache_dir=caches.hub)
    tokenizer = AutoTokenizer.from_pretrained("somebody/small", cache_dir=caches.hub)
    assert config.model_type == "bert"
    assert tokenizer("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]


def test_what_the_hub_gave_stays(model: Path, tmp_path: Path) -> None:
    caches = HfCaches.under(tmp_path / "hf")
    home = caches.hub / "models--somebody--small"
    (home / "snapshots/abc").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs/main").write_text("abc")
    (home / "snapshots/abc/config.json").write_text("{}")
    placed = put_model("somebody/small", model, caches)
    assert (placed.new, placed.path.name) == (False, "abc")
    assert [path.name for path in (home / "snapshots").iterdir()] == ["abc"]


def test_every_task_of_a_folder_is_taken(glue: Path) -> None:
    assert [source.task.name for source in of_glue_folder(glue).sources] == ["mrpc", "stsb"]


def test_a_task_with_a_bad_row_keeps_no_other_one_out(
    glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftsys.offline.command._bundled_model", lambda: None)
    train = glue / "MRPC/train.tsv"
    train.write_text(train.read_text() + "1\t1\t2\ta\n")
    assert main(["offline-assets", "--glue-dir", str(glue), "--hf-home", str(tmp_path / "hf")]) == 2
    said = capsys.readouterr()
    assert "train.tsv, line 7: 4 fields instead of 5" in said.err
    assert 'load_dataset("glue", "stsb")' in said.out
    assert {path.parents[2].name for path in (tmp_path / "hf/datasets").rglob("*.arrow")} == {"stsb"}


def test_the_command_says_what_it_put_where(
    glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    run = tmp_path / "run.toml"
    text = f'output_dir = "out"\n[task]\nname = "mrpc"\n[data]\nsource = "{glue}"\n[model]\nname = "{model}"\n'
    run.write_text(text)
    words = ["offline-assets", str(run), "--hf-home", str(tmp_path / "hf")]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith('load_dataset("glue", "mrpc")')
    assert [line.split(str(tmp_path))[0].rsplit(None, 2)[-1] for line in said[:3]] == ["into"] * 3
    assert len(said) == 4, "a folder's model is found without a cache"
    assert said[3].startswith(f"without a network: HF_HOME={tmp_path / 'hf'} HF_HUB_OFFLINE=1")
    assert main(words) == 0
    assert "put into" not in capsys.readouterr().out


def test_commands_to_copy_work_with_any_name(
    glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, here = tmp_path / "run.toml", str(tmp_path)
    run.write_text(f'output_dir = "o"\n[task]\nname = "mrpc"\n[data]\nsource = "{glue}"\n[model]\nname = "{model}"\n')
    assert main(["offline-assets", str(run), "--hf-home", "my caches"]) == 0
    assert f"HF_HOME={here}/my caches" in shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert main(["bundle", str(run), "--output", "my bundle"]) == 0
    *_, train, scripts = map(shlex.split, capsys.readouterr().out.splitlines())
    assert train[-3:] == ["ftsys", "train", "my bundle/run.toml"]
    assert f"HF_HOME={here}/my bundle/hf" in scripts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a run file or a folder of GLUE's files"),
        (["RUN", "--glue-dir", "FILES"], "one of the two"),
        (["--glue-dir", "FILES", "--train.seed", "3"], "'--train.seed' needs a run file"),
        (["--glue-dir", "NOWHERE"], "holds no folder of a GLUE task"),
        (["RUN", "--data.source", "synthetic", "--task.name", "paraphrase"], "is not one of GLUE's tasks"),
        (["RUN", "--task.columns", "['a', 'b']"], "with the columns ['a', 'b'] is not one of GLUE's tasks"),
        (["RUN", "--data.source", "{train = 'a.csv', validation = 'b.csv'}"], "data.source is a table of files"),
        (["--glue-dir", "EMPTY"], "train.tsv is empty"),
    ],
)
def test_wrong_input_ends_with_2(
    glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    run = tmp_path / "run.toml"
    run.write_text(f'output_dir = "out"\n[task]\nname = "mrpc"\n[data]\nsource = "{glue}"\n')
    empty = tmp_path / "empty"
    shutil.copytree(glue, empty)
    (empty / "STS-B/train.tsv").write_text("")
    places = {"RUN": run, "FILES": glue, "NOWHERE": tmp_path / "nowhere", "EMPTY": empty}
    home = ["--hf-home", str(tmp_path / "hf")]
    assert main(["offline-assets", *(str(places.get(word, word)) for word in words), *home]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


def test_a_bundle_carries_the_caches(glue: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    tree = {"output_dir": "out", "task": {"name": "mrpc"}, "data": {"source": str(glue)}, "model": {"name": str(model)}}
    run = build_run(tree)
    monkeypatch.setattr("ftsys.offline.hf_caches.hub_name", lambda _: "somebody/small")
    assert make_bundle(run, resolve_task(run), tmp_path / "bundle")[1]
    assert not make_bundle(run, resolve_task(run), tmp_path / "bundle")[1], "the same bytes a second time"
    for gone in (glue, model):
        shutil.rmtree(gone)
    moved = (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    assert verify_bundle(moved) == []
    caches = HfCaches.under(moved / "hf")
    assert len(load(caches, "glue", "mrpc")["train"]) == 5
    assert AutoTokenizer.from_pretrained("somebody/small", cache_dir=caches.hub)("a")["input_ids"][0] == 101
    links = [path for path in moved.rglob("*") if path.is_symlink()]
    assert sorted(path.name for path in links) == sorted(model_files(moved / "model"))
    assert load_run(moved / "run.toml").bundle == str(moved)
