"""Makes the bytes of files that have no source text: tables with delimiters, Parquet, zips."""

import csv
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [("a good day, yes", "up"), ('a "bad" day', "down"), ("ein schöner Tag", "up"), ("", "down")]


def delimited(delimiter: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([("text", "label"), *ROWS])
    return text.getvalue().encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    text, label = zip(*ROWS, strict=True)
    pq.write_table(pa.table({"text": list(text), "label": list(label)}), sink)
    return bytes(sink.getvalue())


def parquet_of_datasets() -> bytes:
    """Return a Parquet file with class ids and the names that `datasets` writes into the schema."""
    sink, features = pa.BufferOutputStream(), {"label": {"_type": "ClassLabel", "names": ["down", "up"]}}
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    names = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": names}), sink)
    return bytes(sink.getvalue())


def word_piece() -> bytes:
    """Return the tokenizer.json of a small BERT, as the tokenizers library writes it."""
    from tokenizers import BertWordPieceTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"]
    made = BertWordPieceTokenizer({word: number for number, word in enumerate(words)})
    return made.to_str(pretty=True).encode()


def parquet_without_utf8() -> bytes:
    """Return a Parquet file whose text column holds bytes that are no UTF-8."""
    sink = pa.BufferOutputStream()
    text = pa.array([b"a good day", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text, "label": ["up", "down"]}), sink)
    return bytes(sink.getvalue())


def submission() -> bytes:
    """Return a zip of two files for the GLUE server."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("STS-B.tsv", "index\tprediction\n0\t2.5\n")
        archive.writestr("RTE.tsv", "index\tprediction\n0\tentailment\n")
    return stream.getvalue()
