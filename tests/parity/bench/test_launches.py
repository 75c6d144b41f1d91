"""Tests the launches of one optimizer step: what is counted, and the budgets that a step must keep."""

import sys
from pathlib import Path

import pytest

from ftsys.bench import launches
from ftsys.bench.launch_parts.gpu_paths import TRITON_KERNELS, gpu_paths
from ftsys.bench.launch_parts.steps import our_passes, our_step, our_update, stock_step
from ftsys.cli import main
from ftsys.kernels import select
from ftsys.kernels.native.library import native

TWO_LAYERS = {**launches.MODELS["bert-base"], "num_hidden_layers": 2}


def test_an_unknown_model_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "launches", "--models", "bert-bass"]) == 2
    assert "--models 'bert-bass' is not a model of this benchmark" in capsys.readouterr().err


def test_the_paths_of_a_gpu_are_taken_in_the_block_only() -> None:
    before, library = [sys.modules.get(name) for name in TRITON_KERNELS], native()
    with gpu_paths():
        assert native() is None
        assert select.choose_kernel("triton", "cpu") == "triton"
        assert all(sys.modules[name] is not old for name, old in zip(TRITON_KERNELS, before, strict=True))
    assert [sys.modules.get(name) for name in TRITON_KERNELS] == before
    assert native() is library


def test_layers_add_as_many_launches_each() -> None:
    counts = [
        {name: phase.launches for name, phase in our_step({**TWO_LAYERS, "num_hidden_layers": layers}).items()}
        for layers in (2, 3, 4)
    ]
    for phase in ("forward", "backward"):
        first, second, third = (count[phase] for count in counts)
        assert third - second == second - first > 0


def test_the_stock_step_is_counted_with_fused_attention() -> None:
    counts = stock_step(TWO_LAYERS)
    assert 60 < counts["forward"].launches < 130
    assert counts["clip"].launches + counts["update"].launches < 30


def test_table_and_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(launches.MODELS, "minilm", TWO_LAYERS)
    assert main(["bench", "launches", "--models", "minilm", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "minilm in bf16: launches of one optimizer step" in shown
    assert "minilm in fp16: launches of one optimizer step" in shown
    assert "by count, not by clock" in shown
    assert len(list(tmp_path.glob("launches-*.json"))) == 1


def test_a_layer_keeps_its_budget_and_hashes_no_key() -> None:
    """The keys are hashed once per batch: another layer adds its own operations, and no question to the device."""
    one, two = (our_step({**TWO_LAYERS, "num_hidden_layers": layers}) for layers in (1, 2))
    assert two["forward"].launches - one["forward"].launches <= 9
    assert two["backward"].launches - one["backward"].launches <= 18
    assert [two[phase].waits for phase in ("forward", "backward")] == [0, 0]


@pytest.mark.parametrize(("model", "budget"), [("minilm", 20), ("bert-base", 40)])
def test_clipping_and_update_keep_their_budget_and_ask_nothing(model: str, budget: int) -> None:
    counts = our_update(launches.MODELS[model])
    assert counts["clip"].launches + counts["update"].launches <= budget
    assert [phase.waits for phase in counts.values()] == [0, 0]


@pytest.mark.parametrize(("model", "budget"), [("minilm", 210), ("bert-base", 420)])
def test_the_passes_keep_their_budget(model: str, budget: int) -> None:
    counts = our_passes(launches.MODELS[model])
    assert sum(phase.launches for phase in counts.values()) <= budget
    assert [phase.waits for phase in counts.values()] == [0, 0]
