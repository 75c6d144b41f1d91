"""`ftsys run-glue` on a file, and `ftsys train` with a run file that describes it: the same store, or the same refusal.

To add a row: the file's name, its content (text is written as UTF-8, a table of pandas by the name's ending), and the
values of a run file: the text columns, and the classes in order (none: a regression). The last part is None, or a part
of the message with which both refuse the file.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftsys.config import RunConfig, build_run, resolve_task
from ftsys.data.prepare import ensure_store
from ftsys.data.store.reader import Store
from ftsys.errors import FtsysError
from ftsys.run_glue.translate import translate

T, PAIR = ("text",), ("sentence1", "sentence2")
POLAR, BINARY = ("neg", "pos"), ("0", "1")
NFC, NFD = "caf\u00e9", "cafe\u0301"
FOUR = "the cat,neg\na dog,pos\n"
OBJECTS = [{"text": "the cat", "label": "neg"}, {"text": "a dog", "label": "pos"}]
TABLE = pd.DataFrame({"text": ['say "no", now', "a\ttab"], "label": ["pos", "neg"]})


def labelled(*labels: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": ["the cat", "a dog", "a red hen"][: len(labels)], "label": list(labels)})


FILES: list[tuple[str, Any, tuple[str, ...], tuple[str, ...], str | None]] = [
    # separators and encodings
    ("t.csv", f"text,label\n{FOUR}", T, POLAR, None),
    ("t.csv", f"text,label\n{FOUR}".replace(",", ";"), T, POLAR, None),
    ("t.csv", f"text,label\n{FOUR}".replace(",", "\t"), T, POLAR, None),
    ("t.tsv", f"text,label\n{FOUR}".replace(",", "\t"), T, POLAR, None),
    ("t.csv", f"\ufefftext,label\r\n{FOUR}\r\n\r\n", T, POLAR, None),
    ("t.csv", f"text,label\n{FOUR}".encode("utf-16"), T, POLAR, "is UTF-16 text"),
    ("t.csv", "text,label\ncaf\u00e9,neg\n".encode("cp1252"), T, POLAR, "not UTF-8 text"),
    ("t.csv", FOUR, T, POLAR, "the header line is missing"),
    ("t.csv", f"text,label\n{FOUR}text,label\n", T, POLAR, "repeats the header line"),
    ("t.csv", "text,label\nthe cat,neg\n\na dog,pos\n", T, POLAR, "the line is blank"),
    # quotes
    ("t.csv", TABLE, T, POLAR, None),
    ("t.tsv", TABLE, T, POLAR, None),
    ("t.tsv", 'text\tlabel\n"open\tneg\nan "in" quote\tpos\n', T, POLAR, None),
    ("t.tsv", 'text\tlabel\n"no"\tneg\na dog\tpos\n', T, POLAR, "begins and ends with a quotation mark"),
    ("t.csv", 'text,label\n"no" is no,neg\na dog,pos\n', T, POLAR, "broken CSV"),
    # other columns
    ("t.csv", f",text,label\n0,{FOUR}".replace("\na", "\n1,a"), T, POLAR, None),
    ("t.csv", f"Unnamed: 0,text,label\n0,{FOUR}".replace("\na", "\n1,a"), T, POLAR, None),
    ("t.csv", f"id,text,label\nx7,{FOUR}".replace("\na", "\nx7,a"), T, POLAR, None),
    ("t.csv", "review_id,text,label\nrow one,the cat,neg\nrow two,a dog,pos\n", T, POLAR, None),
    ("t.csv", f"date,text,label\n2026-01-02,{FOUR}".replace("\na", "\n2026-01-03,a"), T, POLAR, None),
    ("t.csv", "text,label,split\nthe cat,neg,train\na dog,pos,dev\n", T, POLAR, None),
    ("t.csv", "stars,text,label\n5,the cat,neg\n1,a dog,pos\n", T, POLAR, None),
    ("t.csv", "label,sentence2,id,sentence1\nneg,a,1,b\npos,c,2,d\n", PAIR, POLAR, None),
    ("t.csv", "title,body,label\na title,the cat,neg\nno title,a dog,pos\n", ("title", "body"), POLAR, None),
    ("t.csv", "text,label\n0,the cat,neg\n1,a dog,pos\n", T, POLAR, "an index without a name"),
    # spellings of labels
    ("t.csv", labelled("pos ", "neg", "pos"), T, POLAR, None),
    ("t.csv", labelled(NFD, NFC, "th\u00e9"), T, (NFC, "th\u00e9"), None),
    ("t.csv", labelled(-1, 0, 1), T, ("-1", "0", "1"), None),
    ("t.csv", labelled("01", "02", "10"), T, ("01", "02", "10"), None),
    ("t.csv", labelled(10, 9, 2), T, ("2", "9", "10"), None),
    ("t.csv", labelled("TRUE", "FALSE"), T, ("FALSE", "TRUE"), None),
    ("t.csv", labelled("None", "some"), T, ("None", "some"), None),
    ("t.csv", labelled("pos", None, "neg"), T, POLAR, "the label is missing"),
    ("t.csv", labelled(0.5, 2.0, 3.0), T, (), None),
    ("t.csv", labelled("1,5", "2,5"), T, ("1,5", "2,5"), None),
    # JSON and Parquet
    ("t.json", json.dumps(OBJECTS, indent=1), T, POLAR, None),
    ("t.jsonl", "\n".join(map(json.dumps, OBJECTS)), T, POLAR, None),
    ("t.json", labelled(True, False), T, ("false", "true"), None),
    ("t.parquet", labelled(True, False), T, ("false", "true"), None),
    ("t.parquet", labelled(-1, 0, 1), T, ("-1", "0", "1"), None),
    ("t.parquet", labelled(1, 0).set_index(pd.Index(["x", "y"])), T, BINARY, None),
    ("t.parquet", labelled("pos", None, "neg"), T, POLAR, "the label is missing"),
    ("t.parquet", labelled(0.5, 2.0), T, (), None),
    ("t.json", json.dumps(OBJECTS)[:-1], T, POLAR, "not a JSON array"),
    ("t.json", json.dumps({"text": "x", "label": 1}, indent=1), T, POLAR, "not JSON"),
    ("t.jsonl", '{"text": 3, "label": "neg"}\n{"text": "x", "label": "pos"}\n', T, POLAR, "is 3, not text"),
    ("t.xlsx", b"PK\x03\x04", T, POLAR, "a file that ends in '.xlsx' cannot be read"),
]


def write(path: Path, content: Any) -> None:
    if isinstance(content, str | bytes):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    elif path.suffix == ".parquet":
        content.to_parquet(path)
    elif path.suffix == ".json":
        content.to_json(path, orient="records")
    else:
        content.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT configuration, a small vocabulary and empty weights: enough to prepare a store."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("model")
    words = 'the a cat dog red hen say no now tab title is open an in quote x , " .'.split()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **small)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def by_run_glue(path: Path, model: Path) -> RunConfig:
    flags = {"model_name_or_path": str(model), "train_file": str(path), "do_train": True, "max_seq_length": 24}
    return build_run(translate(flags, 1).tree)


def by_run_file(path: Path, model: Path, columns: tuple[str, ...], labels: tuple[str, ...]) -> RunConfig:
    task: dict[str, Any] = {"name": "own", "columns": list(columns)}
    task |= {"labels": list(labels)} if labels else {"regression": True}
    data = {"source": {"train": str(path)}, "max_length": 24}
    return build_run({"output_dir": "x", "task": task, "data": data, "model": {"name": str(model)}})


def stored(make_run: Any, root: Path) -> Store | str:
    try:
        run = make_run()
        run = run.model_copy(update={"data": run.data.model_copy(update={"store": str(root)})})
        return ensure_store(run, resolve_task(run), progress=lambda *_: None)
    except FtsysError as error:
        return str(error)


@pytest.mark.parametrize(("name", "content", "columns", "labels", "refusal"), FILES)
def test_both_commands_make_the_same_store(
    tmp_path: Path,
    model: Path,
    name: str,
    content: Any,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    refusal: str | None,
) -> None:
    path = tmp_path / name
    write(path, content)
    train = stored(lambda: by_run_file(path, model, columns, labels), tmp_path / "train")
    run_glue = stored(lambda: by_run_glue(path, model), tmp_path / "run-glue")
    if refusal is not None:
        assert isinstance(train, str)
        assert isinstance(run_glue, str)
        assert refusal in train
        assert refusal in run_glue
        assert run_glue == train or "no column" in train, "without a header, run-glue misses the label alone"
        return
    assert isinstance(train, Store), train
    assert isinstance(run_glue, Store), run_glue
    assert run_glue.fingerprint == train.fingerprint
    one, two = (store.splits["train"].gather(np.arange(len(store.splits["train"]))) for store in (train, run_glue))
    for column in ("tokens", "lengths", "labels"):
        np.testing.assert_array_equal(getattr(one, column), getattr(two, column))


def test_there_are_thirty_files_and_more() -> None:
    assert len(FILES) >= 30
