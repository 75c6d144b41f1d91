"""docs/tutorial/course.md from top to bottom, every block, on a small paraphrase task in MRPC's place."""

import json
import re
from pathlib import Path

import pytest

from ftsys.config import build_run, resolve_task
from ftsys.data.sources.source import open_source
from tests.end_to_end.commands import call

pytest.importorskip("evaluate")

PAGE = "docs/tutorial/course.md"
ROWS = {"train": 40, "dev": 24, "test": 12}
HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "HF_HOME"), "")
"""The page switches the network off itself."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def write_small_mrpc(folder: Path) -> Path:
    """The first pairs of the synthetic sample in GLUE's layout."""
    run = build_run({"output_dir": "out", "data": {"source": "synthetic"}})
    source = open_source(run.data, resolve_task(run))
    (folder / "MRPC").mkdir(parents=True)
    for name, rows in ROWS.items():
        batch = next(source.batches("train" if name == "train" else "validation", rows_per_batch=rows))
        assert batch.second is not None
        pairs = zip(batch.labels.tolist(), batch.first, batch.second, strict=True)
        text = "".join(f"{label}\t1\t2\t{first}\t{second}\n" for label, first, second in pairs)
        (folder / "MRPC" / f"{name}.tsv").write_text(HEADER + text)
    return folder


@pytest.fixture(scope="module")
def done(repository: Path, tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> tuple[Path, str]:
    """The folder that the page was worked through in, and all that it printed."""
    page = (repository / PAGE).read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("course")
    (folder / "course.py").write_text("\n".join(blocks(page, "python")))
    (folder / "page.sh").write_text("\n".join(["set -e", *blocks(page, "bash")]))
    files = write_small_mrpc(folder / "files")
    # What two ranks write to one pipe is mixed within lines: torchrun is told to keep them apart.
    apart = {"PET_LOG_DIR": str(folder / "logs"), "PET_REDIRECTS": "1"}
    ended = call("bash", "page.sh", cwd=folder, GLUE_FILES=str(files), **OFFLINE, **apart)
    assert ended.returncode == 0, ended.stderr[-4000:]
    ranks = [path.read_text() for path in sorted((folder / "logs").rglob("stdout.log"))]
    assert len(ranks) == 2
    return folder, "\n".join([ended.stdout, *ranks])


def test_every_block_runs(done: tuple[Path, str]) -> None:
    """One rank prints everything, then each of two."""
    folder, said = done
    assert [said.count(shape) for shape in (f"({ROWS['dev']}, 2)", f"({ROWS['dev']},)")] == [3, 3]
    scores = re.findall(r"\{'accuracy': [^}]*\}", said)
    assert len(scores) == 3
    assert scores[1] == scores[2], "both ranks have all predictions"
    assert said.count("same to four digits:") == 3
    assert "False" not in said
    assert said.count("'eval_accuracy'") >= 6, "after each pass"
    assert {"config.json", "model.safetensors"} <= {path.name for path in (folder / "my-model").iterdir()}
    assert set(json.loads((folder / "runs/mrpc/all_results.json").read_text())) >= {"eval_f1", "train_loss"}


def test_the_page_shows_what_each_part_prints(repository: Path, done: tuple[Path, str]) -> None:
    """Lines that depend neither on the data nor on the machine are printed as the page has them."""
    shown = "\n".join(blocks((repository / PAGE).read_text(encoding="utf-8"), "text")).splitlines()
    fixed = ("['not_equivalent'", "['[CLS]'", "[0, 0", "['sentence1'", "same to", "[task]", "global_size")
    expected = [line for line in shown if line.startswith(fixed)]
    assert len(expected) == len(fixed)
    assert [line for line in expected if line not in done[1].splitlines()] == []
