"""Peers of the training benchmarks in this process: tiny models, orders from a list instead of a pipe."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftsys.bench.harness import precision
from ftsys.bench.harness.inputs import Inputs, make_inputs, read_pairs
from ftsys.bench.harness.models import model_folders
from ftsys.bench.harness.peers import PEERS, Spec, check_peers, installed, peer_spec
from ftsys.bench.harness.precision import add_precision_option, faster_precision, use_precision
from ftsys.bench.harness.turns import Finished, Turns
from ftsys.data.store.reader import Store
from ftsys.errors import ConfigError
from launcher.planner.world import ProductRates

BLOCKS = 2


class Script:
    """A channel that gives a number of turns and keeps the answers."""

    def __init__(self, turns: int = BLOCKS) -> None:
        self.left, self.answers = turns, list[Mapping[str, Any]]()

    def turn(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def answer(self, figures: Mapping[str, Any]) -> None:
        self.answers.append(figures)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def model(work: Path) -> Path:
    return model_folders(["tiny"], work)["tiny"]


@pytest.fixture(scope="module")
def inputs(work: Path, model: Path) -> Inputs:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FTSYS_GLUE_DIR", raising=False)
        return make_inputs(read_pairs(24), model, work / "inputs")


def peer(name: str, mode: str, model: Path, inputs: Inputs, work: Path) -> Spec:
    return replace(peer_spec(mode, name, model, inputs, work), steps=2, batch=4)


def run(spec: Spec, turns: int = BLOCKS) -> list[Mapping[str, Any]]:
    """What the peer says first, and its blocks. The libraries' singletons are left as they were found."""
    from accelerate.state import AcceleratorState, GradientState

    from ftsys.bench.harness.worker import main

    script = Script(turns)
    try:
        main(spec, script)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return script.answers


def test_all_peers_get_the_same_tokens(inputs: Inputs) -> None:
    from datasets import load_from_disk

    stock, split = load_from_disk(inputs.stock)["train"], Store.open(inputs.store).splits["train"]
    assert len(stock) == len(split) == inputs.rows["train"] == 24
    for row, texts in zip(range(24), stock, strict=True):
        assert {**split[row], "label": split[row]["labels"]}.items() >= {
            key: value for key, value in texts.items() if not key.startswith("sentence")
        }.items()


@pytest.mark.parametrize("name", ["ours", "course", "best", "accelerate", "cross-encoder"])
def test_a_block_is_whole_steps_and_counts_real_tokens(name: str, model: Path, inputs: Inputs, work: Path) -> None:
    if not installed([name])[0]:
        pytest.skip("\n".join(installed([name])[1]))
    ready, *blocks = run(peer(name, "step", model, inputs, work), turns=3)  # an epoch of 24 pairs: 6 steps of 4
    assert ready["parameters"] > 10_000
    assert [(block["steps"], block["examples"]) for block in blocks] == [(2, 8)] * 3
    assert sum(block["tokens"] for block in blocks) == inputs.tokens["train"]
    assert all(block["seconds"] > 0 and block["memory"] > 1e7 for block in blocks)


def test_ours_counts_a_step_in_tokens(model: Path, inputs: Inputs, work: Path) -> None:
    _, block = run(replace(peer("ours", "step", model, inputs, work), tokens=400), turns=1)
    assert 500 < block["tokens"] <= 800  # of two steps


@pytest.mark.parametrize("name", ["ours", "course"])
def test_a_training_runs_to_its_end_every_time(name: str, model: Path, inputs: Inputs, work: Path) -> None:
    spec = replace(peer(name, "train", model, inputs, work), epochs=2)
    _, *blocks = run(spec)
    assert [(block["steps"], block["examples"]) for block in blocks] == [(12, 48)] * BLOCKS
    assert {block["tokens"] for block in blocks} == {2 * inputs.tokens["train"]}
    assert all(0.3 < block["eval_loss"] < 1.2 for block in blocks)


@pytest.mark.parametrize("name", ["ours", "best", "bf16-weights"])
def test_a_prediction_is_of_the_whole_split(name: str, model: Path, inputs: Inputs, work: Path) -> None:
    ready, *blocks = run(peer(name, "eval", model, inputs, work))
    assert ready["parameters"] > 10_000
    tokens = inputs.tokens["validation"]
    assert [(block["examples"], block["tokens"]) for block in blocks] == [(24, tokens)] * BLOCKS


def test_matrix_products_are_measured(model: Path, inputs: Inputs, work: Path) -> None:
    _, block = run(peer("ours", "matmul", model, inputs, work), turns=1)
    assert block["flops"] > 0
    assert block["fp32_flops"] > 0


def test_wrong_input_of_a_peer_reaches_whoever_started_it(model: Path, inputs: Inputs, work: Path) -> None:
    spec = replace(peer("ours", "eval", model, inputs, work), batch=-1)
    (answer,) = run(spec)
    assert "batch.global_size" in answer["wrong_input"]


@pytest.mark.parametrize(("bf16", "faster"), [(4e11, "bf16"), (3e10, "fp32")])
def test_peers_train_in_the_faster_precision_of_the_machine(
    bf16: float, faster: str, model: Path, inputs: Inputs, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ftsys.train.perf.product_rates.product_rates", lambda: ProductRates(fp32=2e11, bf16=bf16))
    monkeypatch.setattr(precision, "_measured", precision._measured.__wrapped__)
    chosen = {name: peer_spec("step", name, model, inputs, work).precision for name in PEERS}
    assert chosen == {**dict.fromkeys(PEERS, faster), "course": "fp32", "bf16-weights": "bf16"}
    assert PEERS["best"].description_here.endswith(f"length-grouped; {faster}")


@pytest.mark.parametrize("ordered", ["fp32", "bf16"])
def test_peers_train_in_the_precision_that_was_ordered(
    ordered: str, model: Path, inputs: Inputs, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_ordered", [])
    parser = argparse.ArgumentParser()
    add_precision_option(parser)
    use_precision(parser.parse_args(["--precision", ordered]).precision)
    chosen = {name: peer_spec("step", name, model, inputs, work).precision for name in PEERS}
    assert chosen == {**dict.fromkeys(PEERS, ordered), "course": "fp32", "bf16-weights": "bf16"}
    use_precision(None)
    monkeypatch.setattr(precision, "_measured", lambda: "measured")
    assert faster_precision() == "measured"


def test_a_spec_travels() -> None:
    spec = Spec("step", "ours", "m", "s", "t", "w", batch=8, cpus=(0, 3))
    assert Spec.from_json(spec.to_json()) == spec
    assert (spec.examples, replace(spec, batch=None).examples) == (8, PEERS["ours"].batch)


def test_turns_end_in_the_middle_of_a_loop() -> None:
    script, done = Script(turns=2), [0, 0]
    turns = Turns(script, 3, lambda: (done[0], done[1]), lambda: None)

    def loop() -> None:
        for _ in range(100):
            turns.begin_step()
            done[0] += 7
            done[1] += 1

    with pytest.raises(Finished):
        loop()
    assert [(block["steps"], block["tokens"], block["examples"]) for block in script.answers] == [(3, 21, 3)] * 2


def test_unknown_peers_and_models_are_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--peers 'curse' is not a peer of this benchmark"):
        check_peers(["ours", "curse"], ["ours", "course"])
    with pytest.raises(ConfigError, match=r"--models './nowhere' is none of"):
        model_folders(["./nowhere"], work)


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    here, lines = installed(["ours", "cross-encoder"])
    assert here == ["ours"]
    assert len(lines) == 1
    assert "sentence_transformers is not installed" in lines[0]
