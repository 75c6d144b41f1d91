"""Files in the forms that people and programs give them: read as they mean it, with a note on a guess, or refused.

To add a row: the file's name, its bytes (text is written as UTF-8), and the right rows (text, label), or a part of the
message that refuses it. A row of `GUESSED` also has a part of the note. A row of `CHOSEN` has data.quoting. The columns
are text and label, the classes neg and pos.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftsys.config import DataSection
from ftsys.data.sources.source import Source, open_source
from ftsys.errors import DataError
from ftsys.tasks import Task

TWO = [("the cat", 0), ("a dog", 1)]
QUOTE = [('say "no" now', 0), ('"no"', 1)]
OBJECTS = [{"text": "the cat", "label": "neg"}, {"text": "a dog", "label": "pos"}]
Shape = tuple[str, str | bytes, list[tuple[str, int]] | str]

SHAPES: list[Shape] = [
    # encodings and line ends
    ("t.csv", "text,label\nthe cat,neg\na dog,pos\n", TWO),
    ("t.csv", "text,label\r\nthe cat,neg\r\na dog,pos\r\n\r\n", TWO),
    ("t.csv", "\ufefftext,label\nthe cat,neg\na dog,pos", TWO),
    ("t.csv", '\ufeff"text","label"\n"the cat","neg"\n"a dog","pos"\n', TWO),
    ("t.csv", "text,label\nthe cat,neg\n".encode("utf-16"), "is UTF-16 text (it begins with the bytes b'\\xff\\xfe"),
    ("t.tsv", "text\tlabel\nthe cat\tneg\n".encode("utf-16-le"), "every other byte is zero, as in UTF-16 text"),
    ("t.csv", "text,label\ncaf\u00e9,neg\n".encode("cp1252"), "line 2: not UTF-8 text (bytes b'\\xe9,neg\\n')"),
    ("t.csv", "text,label\ncaf\u00e9,neg\n".encode("cp1252"), "iconv -f WINDOWS-1252 -t UTF-8"),
    ("t.csv", "text,label\rthe cat,neg\r", "a carriage return (CR) alone ends its lines"),
    ("t.csv", b"PK\x03\x04rest", "is an Excel or ZIP file"),
    ("t.csv", b"\x1f\x8brest", "is compressed with gzip"),
    ("t.csv", b"PAR1rest", "is a Parquet file"),
    # headers
    ("t.csv", "the cat,neg\na dog,pos\n", "If these are the words of a row, the header line is missing."),
    ("t.csv", "text, label\nthe cat, neg\na dog, pos\n", TWO),
    ("t.csv", "\u00a0text,la\u200bbel \nthe cat,neg\na dog,pos\n", TWO),
    ("t.csv", "text,label\nthe cat,neg\ntext,label\na dog,pos\n", "line 3: repeats the header line"),
    ("t.csv", "text,label,text\nthe cat,neg,x\n", "column 'text' is there more than once"),
    (
        "t.csv",
        "Text,label\nthe cat,neg\n",
        "no column 'text'; the columns there are 'Text', 'label'. Did you mean 'Text'?",
    ),
    ("t.csv", "text,Label\nthe cat,neg\n", "Set task.label_column (run-glue: --label_column_name) to what is there"),
    # index columns
    ("t.csv", ",text,label\n0,the cat,neg\n1,a dog,pos\n", TWO),
    ("t.csv", "Unnamed: 0,text,label\n0,the cat,neg\n1,a dog,pos\n", TWO),
    ("t.csv", "id,text,label\n7,the cat,neg\n7,a dog,pos\n", TWO),
    ("t.csv", "text,label\n1,the cat,neg\n2,a dog,pos\n", "the first one may be an index without a name"),
    # quoting
    ("t.tsv", 'text\tlabel\nsay "no" now\tneg\n"no"" \tpos\n', [('say "no" now', 0), ('"no"" ', 1)]),
    ("t.tsv", 'text\tlabel\n"an open quote\tneg\na dog\tpos\n', [('"an open quote', 0), ("a dog", 1)]),
    (
        "t.tsv",
        'text\tlabel\n"no"\tneg\na dog\tpos\n',
        "line 2: the field '\"no\"' begins and ends with a quotation mark",
    ),
    ("t.tsv", 'text\tlabel\n"no"\tneg\na dog\tpos\n', 'write data.quoting = "none" (run-glue: --quoting none)'),
    (
        "t.tsv",
        'text\tlabel\na dog\tpos\n"I am here ,\tneg\nhe said ."\tpos\nfine\tpos\n',
        "line 3: with its quotation marks the field 'I am here ,\\tneg\\nhe said .' takes several lines",
    ),
    ("t.csv", 'text,label\n"say ""no"" now",neg\n"""no""",pos\n', QUOTE),
    ("t.csv", 'text,label\n"no" is no answer,neg\n', "line 2: broken CSV"),
    # JSON
    ("t.json", json.dumps(OBJECTS), TWO),
    ("t.json", "\ufeff" + json.dumps(OBJECTS, indent=2), TWO),
    ("t.jsonl", json.dumps(OBJECTS, indent=2), TWO),
    ("t.json", "\n".join(map(json.dumps, OBJECTS)), TWO),
    ("t.json", "[]", "t.json has no rows"),
    ("t.json", json.dumps(OBJECTS)[:-1], "row 3: not a JSON array (the array's end is missing"),
    ("t.json", json.dumps(OBJECTS)[:-12], "row 2: not a JSON array ("),
    ("t.json", json.dumps(OBJECTS) + "x", "row 3: not a JSON array (the array's end is missing, or text follows it)"),
    ("t.json", json.dumps([*OBJECTS, 3]), "row 3: '3' is not a JSON object"),
    ("t.json", json.dumps([*OBJECTS, {"text": "x"}]), "row 3: no column 'label'"),
    ("t.json", json.dumps([*OBJECTS, {"text": 3, "label": 1}]), "row 3: column 'text' is 3, not text"),
    ("t.json", json.dumps(OBJECTS).encode().replace(b"cat", b"c\xe9t"), "not UTF-8 text"),
    ("t.json", json.dumps({"text": "x", "label": 1}, indent=1), 'to_json(path, orient="records", lines=True)'),
    ("t.json", "[" * 100_000, "nested too deeply"),
    (
        "t.jsonl",
        '{"text": "x", "label": "neg", "label": "pos"}',
        "line 1: the key 'label' is there more than once. Rename",
    ),
    ("t.json", json.dumps(OBJECTS)[:-1] + ', {"text": "x", "text": "y"}]', "row 3: the key 'text' is there more than"),
]

GUESSED: list[tuple[str, str, list[tuple[str, int]], str]] = [
    ("t.csv", "text;label\nthe cat;neg\na dog;pos\n", TWO, "its fields are separated by semicolons"),
    ("t.csv", '"text";"label"\n"the cat";"neg"\n"a dog";"pos"\n', TWO, "separated by semicolons"),
    ("t.csv", "text\tlabel\nthe cat\tneg\na dog\tpos\n", TWO, "separated by tabs"),
    ("t.tsv", "text,label\nthe cat,neg\na dog,pos\n", TWO, "separated by commas"),
    ("t.csv", "text|label\nthe cat|neg\na dog|pos\n", TWO, "separated by vertical bars"),
    ("t.csv", "text;label\nthe cat, or;neg\na dog;pos\n", [("the cat, or", 0), ("a dog", 1)], "semicolons"),
    ("t.tsv", '"text"\t"label"\n"the cat"\t"neg"\n"a dog"\t"pos"\n', TWO, "its fields are quoted"),
    ("t.tsv", 'text\tlabel\n"say ""no"" now"\tneg\n"""no"""\tpos\n', QUOTE, "its fields are quoted"),
    ("t.tsv", 'text\tlabel\n"a\nb\tc"\tneg\nd\tpos\n', [("a\nb\tc", 0), ("d", 1)], "its fields are quoted"),
    ("t.tsv", 'text\tlabel\n"a\tb"\tneg\n"c\nd"\tpos\n', [("a\tb", 0), ("c\nd", 1)], "its fields are quoted"),
]

CHOSEN: list[tuple[str, str, str, list[tuple[str, int]]]] = [
    ("t.tsv", "none", 'text\tlabel\n"no"\tneg\n""""\tpos\n', [('"no"', 0), ('""""', 1)]),
    ("t.tsv", "csv", 'text\tlabel\n"no"\tneg\n""""\tpos\n', [("no", 0), ('"', 1)]),
    ("t.csv", "none", 'text,label\n"no" is no answer,neg\n', [('"no" is no answer', 0)]),
]


def opened(path: Path, quoting: Any = "auto") -> Source:
    return open_source(
        DataSection(source={"train": str(path)}, quoting=quoting),
        Task("mine", ("text",), ("neg", "pos"), ("accuracy",)),
    )


def read(source: Source) -> list[tuple[str, int]]:
    rows = [row for batch in source.batches("train", 1) for row in zip(batch.first, batch.labels.tolist(), strict=True)]
    assert source.rows("train") in (None, len(rows))
    return rows


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(("name", "content", "right"), SHAPES)
def test_a_shape_is_read_or_refused(
    tmp_path: Path, name: str, content: str | bytes, right: list[tuple[str, int]] | str
) -> None:
    path = write(tmp_path / name, content)
    if isinstance(right, list):
        source = opened(path)
        assert (read(source), source.notes) == (right, [])
        return
    with pytest.raises(DataError) as refused:
        read(opened(path))
    assert str(refused.value).startswith(str(path))
    assert right in str(refused.value)


@pytest.mark.parametrize(("name", "content", "right", "note"), GUESSED)
def test_a_guess_is_told(tmp_path: Path, name: str, content: str, right: list[tuple[str, int]], note: str) -> None:
    path = write(tmp_path / name, content)
    source = opened(path)
    assert read(source) == right
    (told,) = source.notes
    assert told.startswith(f"{path}: ")
    assert note in told


@pytest.mark.parametrize(("name", "quoting", "content", "right"), CHOSEN)
def test_a_choice_ends_the_doubt(
    tmp_path: Path, name: str, quoting: str, content: str, right: list[tuple[str, int]]
) -> None:
    path = write(tmp_path / name, content)
    assert read(opened(path, quoting)) == right
    other = {"none": "csv", "csv": "none"}[quoting]
    if name.endswith(".tsv"):
        assert opened(path, quoting).fingerprint != opened(path, other).fingerprint


@pytest.mark.parametrize("texts", [["a", 'b "c"'], ['"', "tab\there"], ["line\nbreak", "x"], ['""', '"a" b']])
@pytest.mark.parametrize(("ending", "separator"), [("tsv", "\t"), ("csv", ","), ("csv", ";")])
def test_what_pandas_writes_comes_back(tmp_path: Path, texts: list[str], ending: str, separator: str) -> None:
    path = tmp_path / f"t.{ending}"
    pd.DataFrame({"text": texts, "label": ["neg", "pos"]}).to_csv(path, sep=separator, index=False)
    assert read(opened(path)) == [(texts[0], 0), (texts[1], 1)]


def test_an_array_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftsys.data.sources.json_files._CHUNK", 7)
    rows = [{"text": 'a \u00e9 ] , [ \\ " { }' * (index % 5), "label": index % 2} for index in range(50)]
    path = write(tmp_path / "t.json", json.dumps(rows, indent=1, ensure_ascii=False))
    assert read(opened(path)) == [(row["text"], row["label"]) for row in rows]


def test_class_ids_in_parquet_go_by_their_names(tmp_path: Path) -> None:
    """`datasets` writes ids, and the names of the classes beside them: pos is 0 here."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["pos", "neg"])})
    Dataset.from_dict({"text": ["the cat", "a dog"], "label": [1, 0]}, features).to_parquet(tmp_path / "t.parquet")
    assert read(opened(tmp_path / "t.parquet")) == TWO
    pq.write_table(pa.table({"text": ["the cat", "a dog"], "label": [0, 1]}), tmp_path / "ids.parquet")
    assert read(opened(tmp_path / "ids.parquet")) == TWO
