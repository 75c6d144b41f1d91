"""GLUE's own TSV files: every task's layout with its quirks, and the real files where FTSYS_GLUE_DIR names them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ftsys.data.sources.glue_files import LAYOUTS
from ftsys.data.sources.source import Source, open_source
from ftsys.errors import DataError
from ftsys.tasks import GLUE, PARAPHRASE

TEXT = 'He said " no , '  # a bare quote and a trailing space are data
OTHER = "Caf\u00e9 \u2028 d'\u00e9t\u00e9"  # a line separator ends no line
MNLI_PARSE = "sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI_HEAD = f"index promptID pairID genre {MNLI_PARSE} sentence1 sentence2"
MNLI_ROW = ["0", "1", "1n", "fiction", "p", "p", "p", "p", TEXT, OTHER]
STSB_HEAD = "index genre filename year old_index source1 source2 sentence1 sentence2"
STSB_ROW = ["0", "news", "f", "2012", "1", "none", "none", TEXT, OTHER]
MRPC_TEXTS = ["#1 ID", "#2 ID", "#1 String", "#2 String"]


@dataclass(frozen=True)
class Data:
    """The part of the run file's [data] that sources read."""

    source: str


@dataclass(frozen=True)
class Example:
    """A file in GLUE's layout: header (None: it has none), one row, and the label that it means (NaN: none)."""

    file: str
    header: list[str] | None
    row: list[str]
    split: str
    label: float


UNLABELLED = -1.0
EXAMPLES = [
    Example("CoLA/train.tsv", None, ["gj04", "1", "", TEXT], "train", 1),
    Example("CoLA/dev.tsv", None, ["gj04", "0", "*", TEXT], "validation", 0),
    Example("CoLA/test.tsv", ["index", "sentence"], ["0", TEXT], "test", UNLABELLED),
    Example("SST-2/train.tsv", ["sentence", "label"], [TEXT, "0"], "train", 0),
    Example("SST-2/dev.tsv", ["sentence", "label"], [TEXT, "1"], "validation", 1),
    Example("SST-2/test.tsv", ["index", "sentence"], ["0", TEXT], "test", UNLABELLED),
    Example("MRPC/train.tsv", ["Quality", *MRPC_TEXTS], ["1", "7", "8", TEXT, OTHER], "train", 1),
    Example("MRPC/dev.tsv", ["Quality", *MRPC_TEXTS], ["0", "7", "8", TEXT, OTHER], "validation", 0),
    Example("MRPC/test.tsv", ["Quality", *MRPC_TEXTS], ["1", "7", "8", TEXT, OTHER], "test", 1),
    Example("MRPC/test.tsv", ["index", *MRPC_TEXTS], ["0", "7", "8", TEXT, OTHER], "test", UNLABELLED),
    Example("STS-B/train.tsv", [*STSB_HEAD.split(), "score"], [*STSB_ROW, "3.750"], "train", 3.75),
    Example("STS-B/dev.tsv", [*STSB_HEAD.split(), "score"], [*STSB_ROW, "0"], "validation", 0),
    Example("STS-B/test.tsv", STSB_HEAD.split(), STSB_ROW, "test", UNLABELLED),
    Example(
        "QQP/train.tsv",
        "id qid1 qid2 question1 question2 is_duplicate".split(),
        ["5", "1", "2", TEXT, OTHER, "1"],
        "train",
        1,
    ),
    Example(
        "QQP/dev.tsv",
        "id qid1 qid2 question1 question2 is_duplicate".split(),
        ["5", "1", "2", TEXT, OTHER, "0"],
        "validation",
        0,
    ),
    Example("QQP/test.tsv", ["id", "question1", "question2"], ["0", TEXT, OTHER], "test", UNLABELLED),
    Example(
        "MNLI/train.tsv", [*MNLI_HEAD.split(), "label1", "gold_label"], [*MNLI_ROW, "neutral", "entailment"], "train", 0
    ),
    Example(
        "MNLI/dev_matched.tsv",
        [*MNLI_HEAD.split(), *(f"label{index}" for index in range(1, 6)), "gold_label"],
        [*MNLI_ROW, *["entailment"] * 5, "neutral"],
        "validation_matched",
        1,
    ),
    Example(
        "MNLI/dev_mismatched.tsv",
        [*MNLI_HEAD.split(), *(f"label{index}" for index in range(1, 6)), "gold_label"],
        [*MNLI_ROW, *["entailment"] * 5, "contradiction"],
        "validation_mismatched",
        2,
    ),
    Example("MNLI/test_matched.tsv", MNLI_HEAD.split(), MNLI_ROW, "test_matched", UNLABELLED),
    Example("MNLI/test_mismatched.tsv", MNLI_HEAD.split(), MNLI_ROW, "test_mismatched", UNLABELLED),
    Example(
        "QNLI/train.tsv", "index question sentence label".split(), ["0", TEXT, OTHER, "not_entailment"], "train", 1
    ),
    Example("QNLI/dev.tsv", "index question sentence label".split(), ["0", TEXT, OTHER, "entailment"], "validation", 0),
    Example("QNLI/test.tsv", "index question sentence".split(), ["0", TEXT, OTHER], "test", UNLABELLED),
    Example("RTE/train.tsv", "index sentence1 sentence2 label".split(), ["0", TEXT, OTHER, "entailment"], "train", 0),
    Example(
        "RTE/dev.tsv", "index sentence1 sentence2 label".split(), ["0", TEXT, OTHER, "not_entailment"], "validation", 1
    ),
    Example("RTE/test.tsv", "index sentence1 sentence2".split(), ["0", TEXT, OTHER], "test", UNLABELLED),
    Example("WNLI/train.tsv", "index sentence1 sentence2 label".split(), ["0", TEXT, OTHER, "1"], "train", 1),
    Example("WNLI/dev.tsv", "index sentence1 sentence2 label".split(), ["0", TEXT, OTHER, "0"], "validation", 0),
    Example("WNLI/test.tsv", "index sentence1 sentence2".split(), ["0", TEXT, OTHER], "test", UNLABELLED),
    Example("diagnostic/diagnostic.tsv", "index sentence1 sentence2".split(), ["0", TEXT, OTHER], "test", UNLABELLED),
    Example("AX/AX.tsv", "index sentence1 sentence2".split(), ["0", TEXT, OTHER], "test", UNLABELLED),
    Example(
        "AX/diagnostic-full.tsv", ["Logic", "Premise", "Hypothesis", "Label"], ["", TEXT, OTHER, "neutral"], "test", 1
    ),
]
TASK_OF = {folder: name for name, layouts in LAYOUTS.items() for folder in layouts[0].folders}


def task_of(example: Example) -> str:
    return TASK_OF[example.file.split("/")[0]]


def write(folder: Path, example: Example, bom: bool = False, end: str = "\n", tail: str = "\n") -> Path:
    path = folder / example.file
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(row) for row in (example.header, example.row) if row is not None]
    path.write_bytes((end.join(lines) + tail).encode("utf-8-sig" if bom else "utf-8"))
    return path


def write_task(folder: Path, task: str) -> None:
    for example in EXAMPLES:
        if task_of(example) == task:
            write(folder, example)


def opened(folder: Path, task: str) -> Source:
    return open_source(Data(str(folder)), GLUE[task])


def test_every_task_and_split_has_an_example() -> None:
    assert {(task_of(each), each.split) for each in EXAMPLES} == {
        (name, split) for name, task in GLUE.items() for split in task.splits
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: f"{each.file}-{each.label}")
@pytest.mark.parametrize(
    ("bom", "end", "tail"), [(False, "\n", "\n"), (True, "\r\n", "\r\n"), (False, "\n", ""), (True, "\n", "\n\n")]
)
def test_each_layout_gives_its_row(tmp_path: Path, example: Example, bom: bool, end: str, tail: str) -> None:
    task = GLUE[task_of(example)]
    for other in EXAMPLES:  # training and evaluation files have to be there too
        if task_of(other) == task.name and other.split not in task.test_splits:
            write(tmp_path, other)
    write(tmp_path, example, bom, end, tail)
    source = opened(tmp_path, task.name)
    (batch,) = source.batches(example.split)
    texts = [text for text in (batch.first[0], batch.second and batch.second[0]) if text is not None]
    assert texts == [TEXT, OTHER][: len(task.columns)]
    expected = np.nan if task.regression and example.split in task.test_splits else example.label
    np.testing.assert_array_equal(batch.labels, [expected])
    assert source.rows(example.split) == len(batch.first) == 1


@pytest.mark.parametrize("task", GLUE)
def test_the_folder_may_be_the_tasks_own(tmp_path: Path, task: str) -> None:
    write_task(tmp_path, task)
    own = next(tmp_path / folder for folder in LAYOUTS[task][0].folders if (tmp_path / folder).exists())
    above, itself = opened(tmp_path, task), opened(own, task)
    assert above.splits == itself.splits == GLUE[task].splits
    assert above.fingerprint == itself.fingerprint


def test_test_files_may_be_absent_and_others_may_not(tmp_path: Path) -> None:
    write_task(tmp_path, "mnli")
    (tmp_path / "MNLI/test_matched.tsv").unlink()
    assert opened(tmp_path, "mnli").splits == (
        "train",
        "validation_matched",
        "validation_mismatched",
        "test_mismatched",
    )
    (tmp_path / "MNLI/dev_matched.tsv").unlink()
    with pytest.raises(DataError, match=r"dev_matched\.tsv: no such file, so there is no validation_matched split"):
        opened(tmp_path, "mnli")


def test_rows_that_qqps_archive_breaks_are_left_out_and_told(tmp_path: Path) -> None:
    write_task(tmp_path, "qqp")
    assert opened(tmp_path, "qqp").notes == []
    train = tmp_path / "QQP/train.tsv"
    with train.open("a") as stream:
        stream.write("6\t1\t2\tWhat is\n a tab?\tWhy?\t1\n7\t1\t2\tHow?\tWhy?\t0\n")
    source = opened(tmp_path, "qqp")
    assert [batch.first for batch in source.batches("train", rows_per_batch=1)] == [[TEXT], ["How?"]]
    assert source.rows("train") == 2
    assert source.notes == [f"{train}: 2 rows with fewer fields than the header are left out"]


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("QQP/train.tsv", r"6 1 2 What Why 1 2", r"7 fields instead of 6 \(it starts with '6\\t1\\t2\\tWhat"),
        ("QQP/test.tsv", "1 What", "2 fields instead of 3"),
        ("MRPC/train.tsv", "1 7 8 What", "4 fields instead of 5"),
    ],
)
def test_another_broken_row_is_named_with_its_line(tmp_path: Path, file: str, row: str, message: str) -> None:
    task, split = TASK_OF[file.split("/")[0]], file.split("/")[1].removesuffix(".tsv")
    write_task(tmp_path, task)
    with (tmp_path / file).open("a") as stream:
        stream.write("\t".join(row.split()) + "\n")
    with pytest.raises(DataError, match=rf"{split}\.tsv, line 3: {message}"):
        list(opened(tmp_path, task).batches(split))


@pytest.mark.parametrize("content", [b"", b"index\tsentence1\tsentence2\tlabel\n"])
def test_an_empty_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_task(tmp_path, "rte")
    (tmp_path / "RTE/dev.tsv").write_bytes(content)
    with pytest.raises(DataError, match=r"RTE/dev\.tsv (is empty|has no rows)"):
        opened(tmp_path, "rte")


def test_a_label_that_is_none_of_the_tasks_is_named_with_its_line(tmp_path: Path) -> None:
    write_task(tmp_path, "rte")
    path = tmp_path / "RTE/dev.tsv"
    path.write_text(path.read_text().replace("not_entailment", "neutral"))
    with pytest.raises(
        DataError, match=r"RTE/dev\.tsv, line 2: label 'neutral' is not a label of task 'rte': .*'not_entailment'"
    ):
        opened(tmp_path, "rte")


def test_another_layout_names_the_column_that_is_missing(tmp_path: Path) -> None:
    write_task(tmp_path, "rte")
    (tmp_path / "RTE/dev.tsv").write_text("index\tsentence_1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    with pytest.raises(DataError, match=r"no column 'sentence1'; .*Did you mean 'sentence_1'"):
        opened(tmp_path, "rte")


def test_a_folder_without_the_task_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no folder 'SST-2', and none of dev\.tsv, test\.tsv, train\.tsv in it"):
        opened(tmp_path, "sst2")
    with pytest.raises(DataError, match="a folder, which only GLUE's tasks have"):
        open_source(Data(str(tmp_path)), PARAPHRASE)


# (split, rows, counts of the labels in the order of their ids), as the Hub's version of the same files has them
REAL = {
    "mrpc": [("train", 3668, [1194, 2474]), ("validation", 408, [129, 279]), ("test", 1725, [578, 1147])],
    "cola": [("train", 8551, [2528, 6023]), ("validation", 1043, [322, 721]), ("test", 1063, [])],
    "rte": [("train", 2490, [1249, 1241]), ("validation", 277, [146, 131]), ("test", 3000, [])],
    "sst2": [("train", 67349, [29780, 37569]), ("validation", 872, [428, 444]), ("test", 1821, [])],
}


@pytest.mark.parametrize("task", REAL)
def test_real_files_have_the_rows_and_labels_they_are_known_for(glue_folder: Path, task: str) -> None:
    source = opened(glue_folder, task)
    for split, rows, counts in REAL[task]:
        labels = np.concatenate([batch.labels for batch in source.batches(split, rows_per_batch=1000)])
        assert len(labels) == rows == source.rows(split)
        assert np.bincount(labels[labels >= 0], minlength=len(counts)).tolist() == counts


def test_real_stsb_has_scores_from_0_to_5_and_none_in_its_test_split(glue_folder: Path) -> None:
    source = opened(glue_folder, "stsb")
    labels = {split: np.concatenate([batch.labels for batch in source.batches(split)]) for split in source.splits}
    assert {split: len(each) for split, each in labels.items()} == {"train": 5749, "validation": 1500, "test": 1379}
    assert (labels["train"].min(), labels["train"].max()) == (0.0, 5.0)
    assert np.isnan(labels["test"]).all()


def test_real_quirks_survive(glue_folder: Path) -> None:
    mrpc = next(opened(glue_folder, "mrpc").batches("train"))
    assert mrpc.first[0].startswith('Amrozi accused his brother , whom he called " the witness " ,')
    sst2 = next(opened(glue_folder, "sst2").batches("train"))
    assert sst2.first[0] == "hide new secretions from the parental units "
    *_, cola = opened(glue_folder, "cola").batches("validation")
    assert cola.first[-1].endswith("talked to Bill about himself.")
