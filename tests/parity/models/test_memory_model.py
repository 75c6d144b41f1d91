"""Tests predicted memory peaks against torch's memory tracker on fake tensors, for every family and precision."""

from typing import Any

import pytest
import torch

from ftsys.bench.memory_parts.fake_step import fake_model, fake_step_bytes
from ftsys.bench.memory_parts.live_bytes import LiveBytes
from launcher.planner.cost.activations import MicroBatch
from launcher.planner.cost.memory import Setting, predicted_memory
from launcher.planner.model_shape import model_shape

SMALL: dict[str, Any] = {
    "vocab_size": 3000,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 384,
    "max_position_embeddings": 600,
    "pad_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "electra": {"embedding_size": 96},
    "albert": {"embedding_size": 48, "hidden_act": "gelu", "attention_probs_dropout_prob": 0.1},
    "distilbert": {"dim": 96, "n_layers": 3, "n_heads": 6, "hidden_dim": 384},
    "mpnet": {},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "share_att_key": True,
        "position_biased_input": False,
    },
    "modernbert": {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "llama": {"num_key_value_heads": 3},
}
TOLERANCE = 0.07
"""What is asked of real sizes is 10%; small models weigh what the model leaves out more heavily."""


def config_of(family: str) -> dict[str, Any]:
    return {"model_type": family, **SMALL, **FAMILIES[family]}


def plain(precision: str, checkpointing: bool) -> Setting:
    return Setting("none", 0, precision, "none", checkpointing, 1, "cpu", kernel="padded")  # type: ignore[arg-type]


CASES = [(family, False) for family in FAMILIES] + [("bert", True), ("modernbert", True)]


@pytest.mark.parametrize(("family", "checkpointing"), CASES)
def test_the_predicted_peak_is_the_measured_one(family: str, checkpointing: bool) -> None:
    batch, config = MicroBatch(2048, 64), config_of(family)
    measured = fake_step_bytes(config, "fp32", checkpointing, batch.tokens, batch.length)
    predicted = predicted_memory(model_shape(config, 2), batch, 1, plain("fp32", checkpointing))
    assert predicted.total == pytest.approx(measured["total"], rel=TOLERANCE)
    assert predicted.parts.weights == pytest.approx(measured["weights"], rel=0.01)
    assert predicted.parts.optimizer == pytest.approx(measured["optimizer"], rel=0.01)


@pytest.mark.parametrize("length", [16, 512])
def test_bf16_with_masters(length: int) -> None:
    batch, config = MicroBatch(2048, length), config_of("bert")
    measured = fake_step_bytes(config, "bf16", False, batch.tokens, batch.length)
    predicted = predicted_memory(model_shape(config, 2), batch, 1, plain("bf16", False))
    assert predicted.total == pytest.approx(measured["total"], rel=TOLERANCE)
    assert predicted.parts.weights * 6 == predicted.parts.optimizer


def test_the_update_on_a_gpu_widens_gradients() -> None:
    """With few tokens the peak is in the update; without the C++ kernel it copies all gradients to float32."""
    batch, config = MicroBatch(64, 16), config_of("bert") | {"vocab_size": 30_000}
    measured = fake_step_bytes(config, "bf16", False, batch.tokens, batch.length)
    setting = Setting("none", 0, "bf16", "none", False, 1, "cuda", kernel="padded")
    predicted = predicted_memory(model_shape(config, 2), batch, 1, setting)
    assert predicted.moment == "step"
    assert predicted.total == pytest.approx(measured["total"], rel=TOLERANCE)


def test_limits_that_the_prediction_takes_from_other_code() -> None:
    from ftsys.kernels.triton_attention.tiles import LARGEST
    from ftsys.train.optimizer.multi_tensor import BUCKET
    from launcher.planner.cost.activations import HEAD_SIZES, LARGEST_FLOAT32_HEAD
    from launcher.planner.cost.engine_memory import WIDENED_ELEMENTS

    assert BUCKET == WIDENED_ELEMENTS
    assert {2: max(HEAD_SIZES["triton"]), 4: LARGEST_FLOAT32_HEAD} == LARGEST


@pytest.mark.parametrize("family", ["llama", "qwen3", "bert", "modernbert"])
def test_attention_on_a_gpu_keeps_no_scores(family: str) -> None:
    """The kernel of GPUs takes shared key heads and causal patterns: saved bytes do not depend on the length.

    Without dropout: with it, a bit is kept for each probability.
    """
    config = {**config_of(family), "attention_probs_dropout_prob": 0.0}
    shape, setting = model_shape(config, 2), Setting("none", 0, "bf16", "none", False, 1, "cuda")
    short, long = (predicted_memory(shape, MicroBatch(8192, length), 1, setting) for length in (64, 512))
    assert long.parts.activations == pytest.approx(short.parts.activations, rel=0.02)


def test_recomputation_is_worth_it_where_there_are_many_tokens() -> None:
    batch, config = MicroBatch(4096, 128), {**config_of("bert"), "num_hidden_layers": 8}
    kept, recomputed = (fake_step_bytes(config, "fp32", again, 4096, 128)["total"] for again in (False, True))
    predicted = [
        predicted_memory(model_shape(config, 2), batch, 1, plain("fp32", again)).total for again in (False, True)
    ]
    assert recomputed < 0.5 * kept
    assert predicted[1] / predicted[0] == pytest.approx(recomputed / kept, rel=TOLERANCE)


def test_live_bytes_count_as_torchs_tracker_does() -> None:
    from torch.distributed._tools.mem_tracker import MemTracker

    def step() -> None:
        model(inputs).logits.sum().backward()
        model.zero_grad()

    model, inputs = fake_model({**config_of("bert"), "attention_probs_dropout_prob": 0.0}), torch.zeros(4, 32).long()
    tracker, counter = MemTracker(), LiveBytes()
    tracker.track_external(model, inputs)
    with tracker:
        step()
    with counter:
        for tensor in (*model.parameters(), *model.buffers(), inputs):
            counter.see(tensor)
        step()
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    assert counter.peak_bytes == pytest.approx(snapshot["Total"], rel=1e-3)
    assert sum(block.bytes for block in counter.at_peak()) == counter.peak_bytes
