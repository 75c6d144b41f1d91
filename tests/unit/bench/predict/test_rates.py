"""Tests that the rate of products is that of the faster way."""

import pytest

from ftsys.bench.predict import rates
from launcher.planner.world import ProductRates


@pytest.mark.parametrize(("torchs", "counts"), [(1.0, False), (1e30, True)])
def test_the_faster_way_counts(torchs: float, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "ROWS", 512)
    monkeypatch.setattr(rates, "WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(rates, "measure", lambda: ProductRates(fp32=torchs, bf16=torchs))
    found = rates.fastest_products()
    assert found.keys() == {"fp32", "bf16"}
    assert all((rate == torchs) == counts for rate in found.values())
