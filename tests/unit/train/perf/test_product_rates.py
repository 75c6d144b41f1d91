"""Tests that a CPU's rates are measured once and that all processes use the same ones."""

import json
import os
from pathlib import Path

import pytest

from ftsys.train.perf import product_rates
from launcher.planner.world import ProductRates


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path))
    monkeypatch.setattr(product_rates, "measure", lambda: ProductRates(2e11, 5e11))
    return tmp_path


def test_rates_are_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert product_rates.product_rates() == ProductRates(2e11, 5e11)
    monkeypatch.setattr(product_rates, "measure", lambda: pytest.fail("it was measured again"))
    assert product_rates.product_rates() == ProductRates(2e11, 5e11)
    assert len(list(cache.iterdir())) == 1


def test_the_first_process_that_has_measured_decides(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache / f"product-rates-{product_rates._key()}.json"

    def another_is_first() -> ProductRates:
        path.write_text(json.dumps({"fp32": 1e11, "bf16": 9e11}))
        return ProductRates(2e11, 5e11)

    monkeypatch.setattr(product_rates, "measure", another_is_first)
    assert product_rates.product_rates() == ProductRates(1e11, 9e11)
    assert list(cache.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"fp32": 1e11}', '{"fp32": 1e11, "bf16": -1}', '{"fp32": 0, "bf16": "x"}']
)
def test_a_damaged_file_is_replaced(cache: Path, content: str) -> None:
    path = cache / f"product-rates-{product_rates._key()}.json"
    path.write_text(content)
    assert product_rates.product_rates() == ProductRates(2e11, 5e11)
    assert json.loads(path.read_text()) == {"fp32": 2e11, "bf16": 5e11}


def test_a_cache_that_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSYS_CACHE", str(cache / "file/cache"))
    (cache / "file").touch()
    assert product_rates.product_rates() == ProductRates(2e11, 5e11)


def test_both_formats_are_measured() -> None:
    rates = product_rates.measure()
    assert rates.fp32 > 0
    assert rates.bf16 > 0


def test_other_threads_are_another_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for threads in (1, 2):
        monkeypatch.setattr(product_rates.torch, "get_num_threads", lambda threads=threads: threads)
        keys.add(product_rates._key())
    assert len(keys) == 2
    assert os.sep not in "".join(keys)
