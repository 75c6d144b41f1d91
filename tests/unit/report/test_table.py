"""Tests the table of metrics: complete, aligned, and within the width."""

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ftsys.report.table import Row, history_rows, metric_table, print_final

ROWS = [
    Row(1.0, 250, "validation", 0.6123, 0.55, {"accuracy": 0.7123, "f1": 0.8}, 400),
    Row(2.0, 500, "validation", 0.41, 0.45, {"accuracy": 0.8123, "f1": 0.87}, 400),
]
BASELINE = Row(label="bag of words (baseline)", metrics={"accuracy": 0.6733, "f1": 0.8}, rows=400)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _printed(*, terminal: bool = False, **arguments: Any) -> str:
    stream = Terminal() if terminal else io.StringIO()
    print_final(stream=stream, **arguments)
    return stream.getvalue()


def test_the_whole_table_of_the_demo() -> None:
    text = _printed(
        rows=ROWS,
        title="paraphrase (synthetic)",
        extra_rows=[BASELINE],
        best=ROWS[1],
        notes=["The sample is synthetic."],
        places={"results": Path("/runs/demo/results.json"), "model": "/runs/demo/model"},
    )
    assert text == (
        "paraphrase (synthetic)\n"
        "epoch  step  split       train loss  eval loss  accuracy      f1  rows\n"
        "----------------------------------------------------------------------\n"
        "1.00    250  validation      0.6123     0.5500    0.7123  0.8000   400\n"
        "2.00*   500  validation      0.4100     0.4500    0.8123  0.8700   400\n"
        "----------------------------------------------------------------------\n"
        "bag of words (baseline)                           0.6733  0.8000   400\n"
        "The sample is synthetic.\n"
        "results  /runs/demo/results.json\n"
        "model    /runs/demo/model\n"
    )


def test_a_terminal_gets_the_same_words_with_styles() -> None:
    arguments: dict[str, Any] = {"rows": ROWS, "title": "paraphrase", "extra_rows": [BASELINE], "best": ROWS[1]}
    styled = _printed(terminal=True, **arguments)
    assert "\x1b[" in styled or os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb")
    assert re.sub(r"\x1b\[[0-9;]*m", "", styled) == _printed(**arguments)


@pytest.mark.parametrize("width", [50, 60, 80, 120])
@pytest.mark.parametrize("metrics", [1, 3, 9])
def test_no_line_is_wider_than_asked_and_no_metric_is_lost(width: int, metrics: int) -> None:
    figures = {f"a_metric_with_number_{index}": index / 10 for index in range(metrics)}
    rows = [Row(1.0, 1_234_567, "test", 0.5, 0.4, figures, 9815)]
    label = Row(
        label="a label that is much longer than the columns it may cover", metrics={"a_metric_with_number_0": 0.25}
    )
    lines = metric_table(rows, title="a title of many words " * 5, extra_rows=[label], width=width)
    assert max(len(line.text) for line in lines) <= width
    text = "\n".join(line.text for line in lines)
    for index in range(metrics):
        assert f"a metric with number {index}" in text
        assert f"{index / 10:.4f}" in text
    assert "0.2500" in text
    for line in lines:
        if line.kind == "header":
            assert line.text.split()[:2] == ["epoch", "step"]


def test_undefined_and_missing_figures() -> None:
    rows = [
        Row(1.0, 1, "dev", metrics={"pearson": None}),
        Row(2.0, 2, "dev", metrics={"pearson": float("nan"), "mse": 2}),
    ]
    lines = [line.text.split() for line in metric_table(rows) if line.kind == "row"]
    assert lines == [["1.00", "1", "dev", "null"], ["2.00", "2", "dev", "null", "2.0000"]]


def test_a_table_without_rows() -> None:
    assert [line.text for line in metric_table([])] == ["epoch  step", "-----------"]


def test_a_long_path_is_never_cut() -> None:
    path = "/very" * 40
    assert f"results  {path}\n" in _printed(rows=ROWS, title="t", places={"results": path})
    assert f"results  {path}\n" in _printed(rows=ROWS, title="t", places={"results": path}, terminal=True)


def test_rows_of_a_metrics_file() -> None:
    lines: list[dict[str, object]] = [
        {"step": 10, "epoch": 0.5, "time": 1.0, "attempt": 1, "loss": 0.7, "grad_norm": 1.0},
        {"step": 20, "epoch": 1.0, "time": 2.0, "attempt": 1, "loss": 0.6},
        {"step": 20, "epoch": 1.0, "time": 3.0, "attempt": 1, "split": "validation", "loss": 0.5, "f1": 0.8},
    ]
    lines[-1] |= {"examples": 408, "runtime": 1.5, "samples_per_second": 9.0}
    assert history_rows(lines) == [Row(1.0, 20, "validation", 0.6, 0.5, {"f1": 0.8}, 408)]
