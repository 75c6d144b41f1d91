"""Tests what each reader makes of good rows and of broken ones, and that no file takes unbounded memory."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftsys.data.sources.dialect import Dialect
from ftsys.errors import DataError
from ftsys.score.readers.inputs import InputFile, input_file
from ftsys.score.readers.json_rows import JsonLinesReader
from ftsys.score.readers.lines import LONGEST
from ftsys.score.readers.rows import Fault, Line, Reader, Row, Wanted
from ftsys.score.readers.tables import TableReader

BOTH = Wanted(("a",), ("b",))


def csv_of(text: str | bytes, quoted: bool = True) -> TableReader:
    data = text if isinstance(text, bytes) else text.encode()
    return TableReader("x.csv", io.BytesIO(data), Dialect("," if quoted else "\t", quoted))


def lines_of(text: str | bytes) -> JsonLinesReader:
    return JsonLinesReader("x.jsonl", io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def kinds(rows: list[Line]) -> list[tuple[int, str]]:
    """Return (number, the text or the reason's beginning) of each row."""
    return [(row.number, row.texts[0] if isinstance(row, Row) else f"!{row.reason[:14]}") for row in rows]


HEAD = "a,b\n"
TABLES: dict[str, tuple[str | bytes, list[tuple[int, str]]]] = {
    "plain": (HEAD + "x,1\ny,2\n", [(2, "x"), (3, "y")]),
    "no end of line": (HEAD + "x,1", [(2, "x")]),
    "CRLF and a byte order mark": (b"\xef\xbb\xbfa,b\r\nx,1\r\n", [(2, "x")]),
    "line break in quotes": (HEAD + '"x\nz",1\ny,2\n', [(2, "x\nz"), (4, "y")]),
    "empty text": (HEAD + ",1\n", [(2, "")]),
    "too few fields": (HEAD + "x\ny,2\n", [(2, "!1 fields inste"), (3, "y")]),
    "too many fields in a record of several lines": (
        HEAD + '"Good.\nBad, though\nok",1,extra\ny,2\n',
        [(2, "!3 fields inste"), (5, "y")],
    ),
    "header twice": (HEAD + "x,1\na,b\ny,2\n", [(2, "x"), (3, "!it repeats the"), (4, "y")]),
    "quote never closed": (HEAD + 'x,1\n"y,2\nz,3\n', [(2, "x"), (3, "!a quotation ma"), (4, "z")]),
    "quote closed by the next row": (HEAD + '"x,1\n"y",2\nz,3\n', [(2, "!broken CSV (',"), (3, "y"), (4, "z")]),
    "not UTF-8": (b"a,b\nx\xff,1\ny,2\n", [(2, "!not UTF-8 text"), (3, "y")]),
    "blank lines, and blank ones at the end": (
        HEAD + "x,1\n\n\ny,2\n\n\n",
        [(2, "x"), (3, "!the line is bl"), (5, "y")],
    ),
    "a line without an end": (HEAD + "x" * (LONGEST + 9) + ",1\ny,2\n", [(2, "!it has more th"), (3, "y")]),
    "no row": (HEAD, []),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table(name: str) -> None:
    text, expected = TABLES[name]
    cut = [(number, word[:15]) for number, word in expected]
    assert kinds(list(csv_of(text).read(BOTH))) == cut


def test_a_quote_that_is_never_closed_is_read_in_bounded_memory() -> None:
    class Counted(io.BytesIO):
        furthest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            self.furthest = max(self.furthest, self.tell())
            return line

    stream = Counted(b'a,b\n"x,1\n' + b"y,2\n" * (LONGEST // 2))
    rows = TableReader("x.csv", stream, Dialect(",", True)).read(BOTH)
    first = next(rows)
    assert isinstance(first, Fault)
    assert first.number == 2
    assert "never closed" in first.reason
    assert stream.furthest <= LONGEST + 100, "the rest of the file was read for one quotation mark"
    assert next(rows) == Row(3, ("y",), ("2",))


@pytest.mark.timeout(120)
def test_a_file_in_which_each_line_begins_an_endless_record_is_not_read_endlessly() -> None:
    found: list[Line] = []
    with pytest.raises(DataError, match=r"x.csv, line \d+: too many quotation marks are never closed. If they belong"):
        found.extend(csv_of(HEAD + 'a","\n' * 100_000).read(BOTH))
    assert 0 < len(found) < 1_000
    assert all(isinstance(line, Fault) for line in found)


def test_a_fault_of_several_lines_names_the_last_one() -> None:
    (fault,) = csv_of(HEAD + '"x\ny\nz",1,extra\n').read(BOTH)
    assert fault == Fault(2, "3 fields instead of 2, up to line 4 (it starts with 'x\\ny\\nz,1,extra')")


def test_quotation_marks_belong_to_the_text_of_an_unquoted_table() -> None:
    assert list(csv_of('a\tb\n"x\t1\n', quoted=False).read(BOTH)) == [Row(2, ('"x',), ("1",))]


OBJECTS: dict[str, tuple[str | bytes, list[tuple[int, str]]]] = {
    "plain": ('{"a": "x", "b": 1}\n{"a": "y"}\n', [(1, "x"), (2, "y")]),
    "no JSON": ('{"a": "x"}\n{"a": \n{"a": "y"}\n', [(1, "x"), (2, "!no JSON object"), (3, "y")]),
    "the first line is broken": ('[1]\n{"a": "y"}\n', [(1, "!no JSON object"), (2, "y")]),
    "a key is missing": ('{"a": "x"}\n{"b": 1}\n', [(1, "x"), (2, "!it has no 'a'")]),
    "a key twice": ('{"a": "x"}\n{"a": "y", "a": "z"}\n{"a": "y"}\n', [(1, "x"), (2, "!the key 'a' is "), (3, "y")]),
    "a number": ('{"a": "x"}\n{"a": 3}\n', [(1, "x"), (2, "!column 'a' is ")]),
    "null": ('{"a": "x"}\n{"a": null}\n', [(1, "x"), (2, "!column 'a' is ")]),
    "half a surrogate pair": ('{"a": "x"}\n{"a": "\\ud83d"}\n', [(1, "x"), (2, "!column 'a' hol")]),
    "blank": ('{"a": "x"}\n\n{"a": "y"}\n\n', [(1, "x"), (2, "!the line is bl"), (3, "y")]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_rows_of_json_lines(name: str) -> None:
    text, expected = OBJECTS[name]
    assert kinds(list(lines_of(text).read(Wanted(("a",), ("b",))))) == [(at, word[:15]) for at, word in expected]


def _parquet(folder: Path, rows: list[dict[str, object]]) -> Reader:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    return input_file(str(folder / "x.parquet"), None, None, "auto").open()


def _array(folder: Path, rows: list[dict[str, object]]) -> Reader:
    (folder / "x.json").write_text(json.dumps(rows, indent=1))
    return input_file(str(folder / "x.json"), None, None, "auto").open()


def _tsv(folder: Path, rows: list[dict[str, object]]) -> Reader:
    (folder / "x.tsv").write_text("a\tb\n" + "".join(f"{row['a']}\t{row['b']}\n" for row in rows))
    return input_file(str(folder / "x.tsv"), None, None, "auto").open()


@pytest.mark.parametrize("make", [_parquet, _array, _tsv])
def test_every_kind_of_file_gives_the_same_rows(
    make: Callable[[Path, list[dict[str, object]]], Reader], tmp_path: Path
) -> None:
    reader = make(tmp_path, [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}])
    assert set(reader.columns) == {"a", "b"}
    rows = [(row.texts, row.carried) for row in reader.read(BOTH) if isinstance(row, Row)]
    assert rows == [(("x",), ("1",)), (("y",), ("2",))]
    reader.close()


def test_missing_values_of_parquet_are_faults(tmp_path: Path) -> None:
    rows = list(_parquet(tmp_path, [{"a": "x", "b": 1}, {"a": None, "b": 2}]).read(BOTH))
    assert rows == [Row(1, ("x",), (1,)), Fault(2, "column 'a' is missing, not text")]


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"]), pa.array(["z"])], ["a", "b", "b"])
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    reader = input_file(str(tmp_path / "x.parquet"), None, None, "auto").open()
    with pytest.raises(DataError, match="column 'b' is there more than once"):
        BOTH.check("x.parquet", reader.columns)
    assert list(reader.read(Wanted(("a",)))) == [Row(1, ("x",), ())]


QUOTED = '"a"\tb\n"x ""y"""\t1\n"z"\t2\n'


@pytest.mark.parametrize("broken", ["z\t2\t3\n", "\nz\t2\n"])
def test_quoted_texts_of_a_table_with_a_broken_row_ask_for_the_quoting(broken: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(QUOTED + broken)
    with pytest.raises(DataError, match=r"x.tsv: .* Say which with --quoting csv or --quoting none"):
        input_file(str(tmp_path / "x.tsv"), None, None, "auto").open()
    for quoting, text in (("csv", 'x "y"'), ("none", '"x ""y"""')):
        reader = input_file(str(tmp_path / "x.tsv"), None, None, quoting).open()
        first = next(iter(reader.read(Wanted((reader.columns[0],)))))
        assert isinstance(first, Row)
        assert first.texts == (text,)


@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
def test_the_format_decides_and_not_the_end_of_the_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('a,b\tc\n"x\t1\n')
    reader = input_file(str(tmp_path / name), "tsv", None, "auto").open()
    assert (reader.columns, *reader.read(Wanted(("a,b",)))) == (("a,b", "c"), Row(2, ('"x',), ()))
    (tmp_path / name).write_text(QUOTED)
    reader = input_file(str(tmp_path / name), "tsv", None, "auto").open()
    assert next(iter(reader.read(BOTH))) == Row(2, ('x "y"',), ("1",))


def test_a_separator_is_found_by_the_header(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a;b\nx;1\n")
    assert input_file(str(tmp_path / "x.csv"), None, None, "auto").open().columns == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.xls", "a", "ends in '.xls' cannot be read"),
        ("x.csv", "", "is empty"),
        ("none.csv", None, "no such file"),
        ("-", None, "--format"),
    ],
)
def test_inputs_that_are_refused(name: str, content: str | None, said: str, tmp_path: Path) -> None:
    path = name if name == "-" else str(tmp_path / name)
    if content is not None:
        Path(path).write_text(content)
    with pytest.raises(DataError, match=said):
        input_file(path, None, None, "auto")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(("A",)), "no column 'A'; the columns there are 'a', 'b', 'b'. Did you mean 'a'.*--text"),
        (Wanted(("a",), ("c",)), "no column 'c'.*--columns"),
        (Wanted(("b",)), "column 'b' is there more than once"),
    ],
)
def test_columns_that_are_refused(wanted: Wanted, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wanted.check("x.csv", ("a", "b", "b"))


def test_rows_are_estimated_for_the_progress(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\nx,1\ny,2\n")
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    assert [InputFile(str(tmp_path / f"x.{kind}"), kind).estimated_rows() for kind in ("csv", "jsonl")] == [2, 1]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (r'"\ud800"', "column 'b' holds half a surrogate pair"),
        (r'{"c": ["\ud800"]}', "column 'b' holds half a surrogate pair"),
        ("[" * 600 + "]" * 600, "column 'b' is nested too deeply"),
    ],
)
def test_a_carried_value_that_no_file_can_hold_is_a_fault_of_its_row(value: str, reason: str) -> None:
    text = f'{{"a": "x", "b": {value}}}\n{{"a": "y", "b": [1, {{"c": "\u00fc"}}]}}\n'
    bad, good = lines_of(text).read(BOTH)
    assert isinstance(bad, Fault)
    assert bad.reason.startswith(reason)
    assert isinstance(good, Row)


@pytest.mark.parametrize("kind", ["timestamp[s]", "date32"])
def test_a_carried_date_that_python_cannot_hold_is_refused_with_its_column(tmp_path: Path, kind: str) -> None:
    """Other systems write such dates for "never"."""
    import pyarrow
    import pyarrow.parquet

    never = pyarrow.array([2**40 if kind == "timestamp[s]" else 2**30]).cast(pyarrow.int64())
    made = never.cast(pyarrow.int32() if kind == "date32" else pyarrow.int64()).view(pyarrow.type_for_alias(kind))
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x"], "b": made}), tmp_path / "rows.parquet")
    reader = input_file(str(tmp_path / "rows.parquet"), None, None, "auto").open()
    with pytest.raises(DataError, match=r"rows after 0: column 'b' has a value that Python cannot hold"):
        list(reader.read(Wanted(("a",), ("b",))))


def test_a_closed_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input is closed: name a file"):
        input_file("-", "csv", None, "auto").open()


def test_a_dataset_whose_text_is_no_utf8_is_refused_with_its_row(tmp_path: Path) -> None:
    import pyarrow
    from datasets import Dataset

    made = pyarrow.array([b"caf\xe9"], pyarrow.binary()).view(pyarrow.string())
    Dataset(pyarrow.table({"a": made, "b": ["x"]})).save_to_disk(tmp_path / "rows")
    reader = input_file(str(tmp_path / "rows"), None, None, "auto").open()
    with pytest.raises(DataError, match=r"rows: broken after row 0 .* Write the folder again"):
        list(reader.read(BOTH))
