"""Data sets in memory, and the Hub's: its cache, local mirrors, and what is said where neither is there."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftsys.data.sources import hub
from ftsys.data.sources.hub import GLUE_REPOSITORY
from ftsys.data.sources.source import Source, open_source
from ftsys.errors import DataError
from ftsys.tasks import GLUE, Task

PAIR = Task("pets", ("left", "right"), ("cat", "dog", "bird"), ("accuracy",))


@dataclass(frozen=True)
class Data:
    """The part of the run file's [data] that sources read."""

    source: Any


def opened(source: Any, task: Task = PAIR) -> Source:
    return open_source(Data(source), task)


def read(source: Source, split: str = "train", rows_per_batch: int = 8192) -> tuple[list[str], list[str], list[float]]:
    batches = list(source.batches(split, rows_per_batch))
    first = [text for batch in batches for text in batch.first]
    second = [text for batch in batches for text in batch.second or []]
    return first, second, [label for batch in batches for label in batch.labels.tolist()]


def pets(labels: list[int], names: list[str] | None = None) -> Dataset:
    kind = ClassLabel(names=names) if names else Value("int64")
    columns = {"left": [f"l{index}" for index in range(len(labels))], "right": ["r"] * len(labels), "label": labels}
    return Dataset.from_dict(columns, Features({"left": Value("string"), "right": Value("string"), "label": kind}))


def test_a_dataset_is_the_training_split_and_a_dataset_dict_names_its_own() -> None:
    assert read(opened(pets([0, 2, 1])), rows_per_batch=2) == (["l0", "l1", "l2"], ["r", "r", "r"], [0, 2, 1])
    source = opened(DatasetDict(test=pets([-1]), train=pets([0, 1]), other=pets([0])))
    assert source.splits == ("train", "test")
    assert (source.rows("train"), source.rows("test")) == (2, 1)
    assert read(source, "test")[2] == [-1]


def test_class_labels_in_another_order_are_mapped_by_name() -> None:
    assert read(opened(pets([0, 1, 2], ["dog", "bird", "cat"])))[2] == [1, 2, 0]
    with pytest.raises(DataError, match=r"split 'train', row 1: label 'x' is not a label of task 'pets'"):
        opened(pets([0, 1, 2], ["x", "y", "z"]))


MOODS = Task("moods", ("text",), ("joy", "fear"), ("micro_f1",), multi_label=True, label_columns=("joy", "fear"))


def moods(label: list[str], joy: list[str], fear: list[str]) -> Dataset:
    """Two rows whose columns of labels have names of their own, beside a column `label` that no task reads."""
    kinds = {"label": ClassLabel(names=label), "joy": ClassLabel(names=joy), "fear": ClassLabel(names=fear)}
    columns = {"text": ["a", "b"], "label": [0, 1], "joy": [1, 0], "fear": [1, 1]}
    return Dataset.from_dict(columns, Features({"text": Value("string"), **kinds}))


@pytest.mark.parametrize("in_file", [False, True])
def test_each_column_of_labels_has_its_own_class_names(tmp_path: Path, in_file: bool) -> None:
    def labels(data: Dataset) -> tuple[list[Any], str]:
        data.to_parquet(tmp_path / "t.parquet")
        source = opened({"train": tmp_path / "t.parquet"} if in_file else data, MOODS)
        return next(source.batches("train")).labels.tolist(), source.fingerprint

    usual, turned = ["0", "1"], ["true", "false"]
    first, second = labels(moods(turned, usual, usual)), labels(moods(turned, usual, turned))
    assert (first[0], second[0]) == ([[1, 1], [0, 1]], [[1, 0], [0, 0]])
    assert first[1] != second[1]
    with pytest.raises(DataError, match=r"row 1: column 'joy' has 'yes', and a label is 0 or 1"):
        labels(moods(usual, ["no", "yes"], usual))


def test_a_new_way_to_read_columns_of_labels_needs_a_new_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprints() -> tuple[str, str]:
        return opened(moods(["0", "1"], ["0", "1"], ["0", "1"]), MOODS).fingerprint, opened(pets([0])).fingerprint

    before = fingerprints()
    monkeypatch.setattr("ftsys.data.sources.source._LABEL_COLUMNS_VERSION", 2)
    after = fingerprints()
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_dataset_is_read_through_its_own_row_order() -> None:
    assert read(opened(pets([0, 1, 2]).select([2, 0])))[0] == ["l2", "l0"]


def test_the_fingerprint_of_a_dataset_follows_its_content_only() -> None:
    same = opened(pets([0, 1])).fingerprint
    assert opened(pets([0, 1, 2]).select([0, 1])).fingerprint == same
    assert opened(pets([0, 1]).map(lambda row: row, load_from_cache_file=False)).fingerprint == same
    others = [pets([1, 0]), pets([0, 1, 2]), pets([0, 1], ["dog", "bird", "cat"])]
    assert len({same, *(opened(each).fingerprint for each in others)}) == 4


def test_bad_datasets_name_the_row_and_the_split() -> None:
    with pytest.raises(DataError, match=r"split 'train', row 2: label 7 is not a label of task 'pets'"):
        read(opened(pets([0, 7])))
    with pytest.raises(DataError, match=r"splits 'training', and task 'pets' reads.*Did you mean 'train'"):
        opened(DatasetDict(training=pets([0])))
    with pytest.raises(DataError, match=r"split 'train' has no rows"):
        opened(pets([]))


def mirror(folder: Path, sentences: list[str]) -> Path:
    """A local folder laid out as a Hub repository: Parquet files, and the configurations in the README's head."""
    (folder / "mrpc").mkdir(parents=True, exist_ok=True)
    for split, labels in (("train", [1, 0]), ("validation", [1, 1]), ("test", [-1, -1])):
        table = pa.table({"sentence1": sentences, "sentence2": ["b"] * 2, "label": labels, "idx": [0, 1]})
        pq.write_table(table, folder / "mrpc" / f"{split}-00000-of-00001.parquet")
    splits = "".join(f"  - split: {name}\n    path: mrpc/{name}-*\n" for name in ("train", "validation", "test"))
    names = "        names:\n          '0': not_equivalent\n          '1': equivalent\n"
    texts = "  - name: sentence1\n    dtype: string\n  - name: sentence2\n    dtype: string\n"
    label = f"  - name: label\n    dtype:\n      class_label:\n{names}  - name: idx\n    dtype: int64\n"
    (folder / "README.md").write_text(
        f"---\ndataset_info:\n- config_name: mrpc\n  features:\n{texts}{label}"
        f"configs:\n- config_name: mrpc\n  data_files:\n{splits}---\n"
    )
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of `datasets`, offline."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.mark.usefixtures("hub_cache")
def test_a_local_mirror_of_the_hub_repository(tmp_path: Path) -> None:
    source = opened(f"hub:{mirror(tmp_path / 'glue', ['one', 'two'])}", GLUE["mrpc"])
    assert source.splits == ("train", "validation", "test")
    assert read(source) == (["one", "two"], ["b", "b"], [1, 0])
    assert read(source, "test")[2] == [-1, -1]
    with pytest.raises(DataError, match="no column 'sentence'"):
        opened(f"hub:{tmp_path / 'glue'}", GLUE["cola"])


@pytest.mark.usefixtures("hub_cache")
def test_a_changed_mirror_and_another_of_the_same_name_give_their_own_rows(tmp_path: Path) -> None:
    first = opened(f"hub:{mirror(tmp_path / 'glue', ['one', 'two'])}", GLUE["mrpc"])
    changed = opened(f"hub:{mirror(tmp_path / 'glue', ['three', 'four'])}", GLUE["mrpc"])
    elsewhere = opened(f"hub:{mirror(tmp_path / 'b' / 'glue', ['five', 'six'])}", GLUE["mrpc"])
    assert [read(each)[0][0] for each in (first, changed, elsewhere)] == ["one", "three", "five"]
    assert len({first.fingerprint, changed.fingerprint, elsewhere.fingerprint}) == 3


def test_the_hub_offline_works_from_the_cache_and_says_what_to_do_without(tmp_path: Path, hub_cache: Path) -> None:
    with pytest.raises(DataError, match=r"'nyu-mll/glue' cannot be loaded .*ftsys prepare.*HF_HOME"):
        opened("hub", GLUE["mrpc"])
    opened(f"hub:{mirror(tmp_path / 'glue', ['one', 'two'])}", GLUE["mrpc"])
    (made,) = hub_cache.glob("mirror-*/glue")  # what `datasets` makes of the repository, put where it keeps the Hub's
    made.rename(hub_cache / "nyu-mll___glue")
    assert read(opened("hub", GLUE["mrpc"]))[0] == ["one", "two"]


def test_glue_in_the_cache_is_not_asked_for_again(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(f"hub:{mirror(tmp_path / 'glue', ['one', 'two'])}", GLUE["mrpc"])
    (made,) = hub_cache.glob("mirror-*/glue")
    made.rename(hub_cache / "nyu-mll___glue")
    monkeypatch.setattr("datasets.load_dataset", None)  # what would go to the Hub, from each rank
    assert opened("hub", GLUE["mrpc"]).splits == ("train", "validation", "test")


@pytest.mark.parametrize(("repository", "loads"), [(GLUE_REPOSITORY, 1), ("somebody/pairs", 4)])
def test_one_rank_loads_while_the_others_wait(monkeypatch: pytest.MonkeyPatch, repository: str, loads: int) -> None:
    events, started = list[str](), threading.Event()

    def load(*_: object, **__: object) -> DatasetDict:
        first = not events
        events.append("begins")
        started.set()
        time.sleep(0.3 if first else 0.0)  # as long as the others need to come
        events.append("ends")
        return DatasetDict(train=pets([0, 1]))

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr(hub, "_cached_glue", lambda _: DatasetDict(train=pets([0, 1])) if "ends" in events else None)
    with ThreadPoolExecutor(4) as ranks:
        found = [ranks.submit(hub.load_splits, repository, "mrpc")]
        started.wait()
        found += [ranks.submit(hub.load_splits, repository, "mrpc") for _ in range(3)]
    assert [len(each.result()["train"]) for each in found] == [2] * 4
    assert events[:2] == ["begins", "ends"]
    assert len(events) == 2 * loads
