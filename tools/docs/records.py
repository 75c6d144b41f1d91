"""Writes the page of the benchmark records, one section for each record, from benchmarks/results."""

import json
import re
from pathlib import Path
from typing import Any

from tools.docs.markdown import GENERATED, table

RESULTS = Path(__file__).parents[2] / "benchmarks/results"

HEAD = f"""{GENERATED}
# Records

The ratios of every record in `benchmarks/results/`. A record also names all versions and settings, and has every single
measurement; the file is given with each. A ratio is the median over rounds of one run, its spread the distance of the
quartiles of the rounds. [How it is measured](method.md) says what the peers are.
"""


def records_page() -> str:
    """Return the page. A record without ratios has its medians instead."""
    return "\n".join([HEAD, *(_section(path) for path in sorted(RESULTS.glob("*.json")))])


def read_record(name: str) -> dict[str, Any]:
    """Read the record of this name, on whatever device it was made."""
    (path,) = (
        path for path in RESULTS.glob(f"{name}-*.json") if re.fullmatch(rf"{name}-[a-z]+-[a-z]+-x\d+", path.stem)
    )
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _section(path: Path) -> str:
    record = json.loads(path.read_text(encoding="utf-8"))
    origin = (
        f"`{record['command']}`, commit `{record['commit'][:7]}`, {record['time'][:10]}, {record['device']}, "
        f"load average {record['load_average']:.1f}. File: `{path.name}`.{_instructions(record)}"
    )
    title = f"## {record['name']} {{ #{record['name']} }}\n"
    tables = _peers(record) if record["name"].startswith("step-") else _figures(record)
    start, end = (f"<!-- --8<-- [{mark}:{record['name']}] -->\n" for mark in ("start", "end"))
    return f"{title}\n{origin}\n\n{start}\n{tables}\n{end}"


def _instructions(record: dict[str, Any]) -> str:
    """Return a sentence with the CPU's vector instructions; nothing for records of before they were named."""
    names = record.get("cpu", {}).get("instructions", [])
    return f" The CPU has {', '.join(names)}." if names else ""


def _figures(record: dict[str, Any]) -> str:
    measured = record["measurements"]
    if record["ratios"]:
        spreads = {name: measured[name]["spread"] for name in record["ratios"] if name in measured}
        rows = [
            (name, _short(value), _short(spreads[name]) if name in spreads else "")
            for name, value in record["ratios"].items()
        ]
        return table(("Ratio", "Median", "Spread"), rows, right=[1, 2])
    rows = [
        (name, f"{_short(each['median'])} {each['unit']}", _short(each["spread"])) for name, each in measured.items()
    ]
    return table(("Measurement", "Median", "Spread"), rows, right=[1, 2])


def _peers(record: dict[str, Any]) -> str:
    """Return a record of optimizer steps as a table of peers."""
    measured = record["measurements"]
    (rate_name,) = (name for name in measured if name.endswith("bf16 matrix product"))
    model = rate_name.partition(":")[0]
    rate, what = _product_rate(record, model, measured[rate_name])
    rows = []
    for ratio, value in record["ratios"].items():
        one, _, peer = ratio.rpartition(": ")[2].partition(" / ")
        memory = (
            measured[f"{model}, {one}: peak memory"]["median"] / measured[f"{model}, {peer}: peak memory"]["median"]
        )
        reached = _share(measured[f"{model}, {peer}: useful"]["median"] * 1e12 / rate)
        spread = measured[ratio]["spread"]
        bound = _bound(measured[f"{model}, {peer}: useful"]["median"] * 1e12 / rate)
        rows.append((f"`{one}`", f"`{peer}`", f"{value:.2f} x", f"{spread:.2f}", f"{memory:.2f} x", reached, bound))
    reached = _share(measured[f"{model}, ours: useful"]["median"] * 1e12 / rate)
    head = (
        "One",
        "Peer",
        "Real tokens/s, one / peer",
        "Spread",
        "Peak memory, one / peer",
        "Peer reaches of the matrix-product rate",
        "The whole rate / peer",
    )
    return (
        table(head, rows, right=[2, 3, 4, 5, 6])
        + f"\nThe share of the machine's matrix-product rate that `ours` reaches: {reached}. The rate is {what}.\n"
    )


def _product_rate(record: dict[str, Any], model: str, bf16: dict[str, Any]) -> tuple[float, str]:
    """Return the FLOP/s by which shares are divided, and how many samples stand behind them.

    Records of before samples were counted have the median of the rounds in bf16.
    """
    best = record["settings"].get(f"{model}: matrix-product rate")
    if best is None:
        return bf16["median"], f"the median of {bf16['repeats']} samples in bf16"
    return best["FLOP/s"], f"the best of {best['samples']} samples"


def _share(value: float) -> str:
    """Write a share of the matrix-product rate; one above 1 says only that the rate was measured too low."""
    return f"{value:.0%}" if value <= 1 else "not known"


def _bound(share: float) -> str:
    """Write how many times as fast as the peer a program is that does nothing but its products, at the whole rate."""
    return f"{1 / share:.2f} x" if share <= 1 else "not known"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
