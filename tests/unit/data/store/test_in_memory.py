"""Rows that the user tokenized, as arrays: what is read, what is trimmed, and what is left to the stock path."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from ftsys.data.store.in_memory import NotPackable, TokenizedSplit, read_tokenized

ACCEPTED = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "labels")
ROWS: list[dict[str, Any]] = [
    {"input_ids": [5, 6, 7, 8], "token_type_ids": [0, 0, 1, 1], "attention_mask": [1] * 4, "label": 1, "text": "a"},
    {"input_ids": [9, 4], "token_type_ids": [0, 0], "attention_mask": [1] * 2, "label": 0, "text": "b"},
    {"input_ids": [3, 3, 8], "token_type_ids": [0, 1, 1], "attention_mask": [1] * 3, "label": 1, "text": "c"},
]


def read(data: Any, drop_others: bool = True, accepted: tuple[str, ...] = ACCEPTED) -> TokenizedSplit:
    return read_tokenized(data, name="rows", accepted=accepted, drop_others=drop_others, pad_id=0)


def kinds(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The same rows in every form that they may come in."""
    whole = datasets.Dataset.from_list(rows)
    datasets.Dataset.from_list([*rows[1:], rows[0]]).save_to_disk(str(folder / "saved"))
    parts = datasets.concatenate_datasets([whole.select([0]), whole.select([1, 2])])
    return {
        "list": rows,
        "tensors": [{k: torch.tensor(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows],
        "arrays": [{k: np.array(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows],
        "dataset": whole,
        "torch format": whole.with_format("torch"),
        "several chunks": parts,
        "shuffled on disk": datasets.load_from_disk(str(folder / "saved")).select([2, 0, 1]),
        "sliced": datasets.Dataset.from_list([rows[1], *rows, rows[1]]).select(range(1, 4)),
    }


def test_every_form_gives_the_same_split(tmp_path: Path) -> None:
    for form, data in kinds(ROWS, tmp_path).items():
        split = read(data)
        assert len(split) == 3, form
        assert split.labels.tolist() == [1, 0, 1], form
        assert split.labels.dtype == np.int64, form
        assert (split.labelled, split.total_tokens) == (True, 9), form
        one, other = split.gather([2, 0]), split.gather([1])
        assert one.tokens.tolist() == [3, 3, 8, 5, 6, 7, 8], form
        assert one.lengths.tolist() == [3, 4], form
        assert one.first_lengths.tolist() == [1, 2], form
        assert one.positions.tolist() == [0, 1, 2, 0, 1, 2, 3], form
        assert one.cu_seqlens.tolist() == [0, 3, 7], form
        assert one.labels.tolist() == [1, 1], form
        assert one.example_ids.tolist() == [2, 0], form
        assert other.tokens.tolist() == [9, 4], form


def test_padding_on_the_right_is_trimmed() -> None:
    rows = [
        {
            **row,
            "input_ids": row["input_ids"] + [0] * (6 - len(row["input_ids"])),
            "attention_mask": row["attention_mask"] + [0] * (6 - len(row["input_ids"])),
            "token_type_ids": row["token_type_ids"] + [0] * (6 - len(row["input_ids"])),
        }
        for row in ROWS
    ]
    for data in (rows, datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows).with_format("numpy")):
        for one, other in zip(read(data).gather([0, 1, 2]), read(ROWS).gather([0, 1, 2]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_columns_may_be_missing() -> None:
    split = read([{"input_ids": row["input_ids"]} for row in ROWS])
    assert not split.labelled
    assert not split.tokenizer.emits_token_types
    assert split.gather([0]).first_lengths.tolist() == [4]


def test_types_that_the_model_does_not_take_are_left_out() -> None:
    assert not read(ROWS, accepted=("input_ids", "attention_mask", "labels")).tokenizer.emits_token_types


def test_a_label_of_minus_one_in_every_row_is_none() -> None:
    assert not read([{**row, "label": -1} for row in ROWS]).labelled
    assert read([{**ROWS[0], "label": -1}, ROWS[1]]).labelled


def test_numbers_with_a_fraction_are_kept() -> None:
    split = read([{**row, "label": index / 4} for index, row in enumerate(ROWS)])
    assert split.labels.tolist() == [0.0, 0.25, 0.5]
    assert split.labels.dtype == np.float64


def changed(**cells: Any) -> list[dict[str, Any]]:
    return [{**ROWS[0], **cells}, *ROWS[1:]]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (changed(attention_mask=[0, 1, 1, 1]), "'attention_mask' is not ones followed by zeros"),
        (changed(attention_mask=[1, 0, 1, 1]), "'attention_mask' is not ones followed by zeros"),
        (changed(attention_mask=[0, 0, 0, 0]), "'attention_mask' is all zeros"),
        (changed(attention_mask=[1, 1]), "not as many 'attention_mask'"),
        (changed(token_type_ids=[0, 1, 0, 1]), "not zeros followed by ones"),
        (changed(token_type_ids=[0, 2, 2, 2]), "not zeros followed by ones"),
        (changed(token_type_ids=[1, 1, 0, 0]), "not zeros followed by ones"),
        (changed(input_ids=[], attention_mask=[], token_type_ids=[]), "a row has no tokens"),
        (changed(label=-100), "holds -100"),
        ([{**row, "label": [0, 1]} for row in ROWS], "'label' holds a list a row"),
        ([{**row, "label": True} for row in ROWS], "'label'"),
        ([{**row, "labels": 1} for row in ROWS], "several label columns: 'label', 'labels'"),
        ([{**row, "position_ids": row["input_ids"]} for row in ROWS], "'position_ids' would go to the model"),
        ([{"text": "a"}, {"text": "b"}], "no column 'input_ids'"),
        ([{**row, "input_ids": 3} for row in ROWS], "'input_ids' holds one number a row"),
        ([{"input_ids": [5, 0]}], "padding tokens and no 'attention_mask'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_packing_would_change_is_left_alone(rows: list[dict[str, Any]], reason: str) -> None:
    for data in (rows, datasets.Dataset.from_list(rows)):
        with pytest.raises(NotPackable, match=reason):
            read(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "is a list, not"),
        (torch.utils.data.TensorDataset(torch.zeros(3)), "is a TensorDataset, not"),
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "is a IterableDataset, not"),
        (datasets.Dataset.from_list(ROWS).with_transform(lambda batch: batch), "by a transform"),
        (datasets.Dataset.from_list(ROWS).select([]), "has no rows"),
        (datasets.Dataset.from_list([ROWS[0], {**ROWS[1], "label": None}]), "'label' has empty cells"),
        ([ROWS[0], {"input_ids": [3]}], "same keys"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_of_another_kind_is_left_alone(data: Any, reason: str) -> None:
    with pytest.raises(NotPackable, match=reason):
        read(data)


def test_without_dropping_any_other_column_is_the_models() -> None:
    with pytest.raises(NotPackable, match="'text' would go to the model"):
        read(ROWS, drop_others=False)
    assert len(read([{k: v for k, v in row.items() if k != "text"} for row in ROWS], drop_others=False)) == 3


def test_a_format_that_hides_columns_hides_them_here() -> None:
    hidden = datasets.Dataset.from_list(ROWS).with_format("torch", columns=["input_ids", "attention_mask"])
    assert not read(hidden).labelled


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_out_of_range_is_an_error(row: int) -> None:
    with pytest.raises(IndexError, match="0 to 2"):
        read(ROWS).gather([row])
