"""Tests the predicted memory of each engine against results computed by hand, and properties for all sizes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.planner.cost.activations import MicroBatch, arithmetic, saved_bytes
from launcher.planner.cost.engine_memory import BUCKET_ELEMENTS, Parts, sizes_of
from launcher.planner.cost.memory import Setting, engine_step, moments, predicted_memory
from launcher.planner.model_shape import FAMILIES, model_shape

BERT = model_shape({"model_type": "bert"}, 2)
MINILM = model_shape({"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}, 2)
N = BERT.parameters
TINY = MicroBatch(8, 8)
PLAIN = Setting("none", 0, "fp32", "none", False, 1, "cuda")


def zero(stage: int, precision: str = "bf16", offload: str = "none", ranks: int = 2) -> Setting:
    return Setting("deepspeed", stage, precision, offload, False, ranks, "cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "weights", "optimizer"),
    [
        (PLAIN, 4 * N, 8 * N),
        (replace(PLAIN, precision="bf16"), 2 * N, 12 * N),
        (replace(PLAIN, precision="bf16", optimizer="adafactor"), 4 * N, 8 * N),
        (replace(PLAIN, precision="fp16"), 4 * N, 8 * N),
        (zero(0), 2 * N, 12 * N),
        (zero(0, "fp32"), 4 * N, 8 * N),
        (zero(1), 2 * N, 6 * N),
        (zero(2, "fp32"), 4 * N, 6 * N),
        (zero(2, ranks=4), 2 * N, 3 * N),
        (zero(3), N, 6 * N),
        (zero(3, ranks=4), N // 2, 3 * N),
        (zero(1, offload="optimizer"), 2 * N, 0),
        (zero(3, offload="optimizer"), N, 0),
        (zero(3, offload="parameters"), 0, 0),
        (zero(3, offload="nvme:/disk"), 0, 0),
    ],
)
def test_weights_and_optimizer(setting: Setting, weights: int, optimizer: int) -> None:
    held = engine_step(BERT, setting, several=False).held
    assert held.weights == pytest.approx(weights, abs=8)
    assert held.optimizer == pytest.approx(optimizer, abs=48)


@pytest.mark.parametrize(
    ("setting", "total"),
    [
        # With hardly any tokens, torch's step peaks when the gradients are allocated next to everything else.
        (PLAIN, 16 * N),
        # Below 2^27 elements the update of bf16 weights widens all gradients at once, on a GPU.
        (replace(PLAIN, precision="bf16"), 20 * N),
        (replace(PLAIN, backend="ddp", ranks=2), 20 * N),
        # DeepSpeed without ZeRO widens all gradients at once.
        (zero(0), 20 * N),
    ],
)
def test_the_fullest_moment_of_a_step_without_activations(setting: Setting, total: int) -> None:
    assert predicted_memory(BERT, TINY, 1, setting).total == pytest.approx(total, rel=0.02)


def test_zero_1_on_the_cpu_reduces_behind_the_backward_pass() -> None:
    """Expect all gradients and one bucket; in a model larger than a bucket, also a second copy of a rank's own part."""
    setting, n = replace(zero(1), device="cpu"), MINILM.parameters
    small = predicted_memory(MINILM, TINY, 1, setting)
    assert small.total == pytest.approx(2 * n + 6 * n + 2 * n + 2 * BUCKET_ELEMENTS, rel=0.01)
    own = 2 * (sizes_of(BERT, 2).touched - BUCKET_ELEMENTS)
    behind = [memory.total for memory in moments(BERT, TINY, 1, setting) if memory.moment == "backward"]
    assert max(behind) == pytest.approx(2 * N + 6 * N + 2 * N + own + 2 * BUCKET_ELEMENTS, rel=0.01)


def test_minilm_on_two_cpu_ranks_as_it_was_measured() -> None:
    """Compare with live bytes of DeepSpeed 0.19.8's tensors under gloo, 512 tokens a rank, in MiB."""
    measured = {(1, "optimizer"): 464.9, (2, "optimizer"): 464.9, (0, "none"): 433.3}
    for (stage, offload), expected in measured.items():
        setting = replace(zero(stage, offload=offload), device="cpu")
        found = predicted_memory(MINILM, MicroBatch(512, 64), 1, setting)
        assert (found.total + found.parts.host) / 2**20 == pytest.approx(expected, rel=0.01), (stage, offload)


def test_zero_3_gathers_frozen_weights_too() -> None:
    """In the forward pass and on the way back to the trained ones; they have no gradient and no optimizer state."""
    tensors = tuple(replace(tensor, frozen=tensor.name.startswith("bert.encoder.")) for tensor in BERT.tensors)
    frozen = engine_step(replace(BERT, tensors=tensors), zero(3), several=False)
    whole = engine_step(BERT, zero(3), several=False)
    assert (frozen.forward, frozen.backward, frozen.last_layer) == (whole.forward, whole.backward, whole.last_layer)
    assert frozen.held.weights == pytest.approx(whole.held.weights, abs=8)
    assert frozen.held.optimizer < whole.held.optimizer / 3


def test_the_bytes_of_one_layer_by_hand() -> None:
    """BERT-base in float32: input, q, k, v and context (5 D), two norms' inputs (2 D), the inner block's input (D),
    gelu's input and output (2 I), softmax and what is dropped of it (2 H L), 8 bytes a head for its mask's windows, and
    a byte for each element of a saved mask (two hidden ones, and that of the probabilities)."""
    batch = MicroBatch(256, 128)
    numbers = arithmetic(BERT, "fp32", "cuda", low_precision_weights=False, kernel="padded")
    assert saved_bytes(BERT, batch, numbers).layer == 256 * (
        4 * (8 * 768 + 2 * 3072 + 2 * 12 * 128) + 8 * 12 + 2 * 768 + 12 * 128
    )
    grouped = arithmetic(BERT, "fp32", "cpu", low_precision_weights=False, kernel="grouped")
    assert saved_bytes(BERT, batch, grouped).layer == 256 * (4 * (8 * 768 + 2 * 3072 + 12 * 128) + 8 * 12 + 2 * 768)
    native = arithmetic(BERT, "fp32", "cpu", low_precision_weights=False)
    assert saved_bytes(BERT, batch, native).layer == 256 * (4 * (8 * 768 + 2 * 3072) + 4 * 12)


def test_autocast_keeps_weights_and_inputs_twice() -> None:
    numbers = arithmetic(BERT, "fp16", "cuda", low_precision_weights=False)
    found = saved_bytes(BERT, MicroBatch(256, 128), numbers)
    assert found.weight_casts == 2 * BERT.matrix_parameters
    assert found.layer > saved_bytes(BERT, MicroBatch(256, 128), arithmetic(BERT, "fp16", "cuda", True)).layer


SETTINGS = st.builds(
    Setting,
    backend=st.just("deepspeed"),
    zero_stage=st.integers(0, 3),
    precision=st.sampled_from(["bf16", "fp32"]),
    offload=st.just("none"),
    checkpointing=st.booleans(),
    ranks=st.integers(1, 64),
    device=st.sampled_from(["cpu", "cuda"]),
)
SHAPES = {family: model_shape({"model_type": family}, 2) for family in FAMILIES}


@settings(deadline=None)
@given(family=st.sampled_from([*SHAPES]), setting=SETTINGS, sequences=st.integers(1, 64), length=st.integers(8, 512))
def test_what_must_hold_for_every_model(family: str, setting: Setting, sequences: int, length: int) -> None:
    shape = SHAPES[family]
    batch = MicroBatch(sequences * length, length)
    found = predicted_memory(shape, batch, 1, setting)
    assert found.total == max(memory.total for memory in moments(shape, batch, 1, setting))
    assert min(vars(found.parts).values()) >= 0
    more = MicroBatch((sequences + 1) * length, length)
    assert predicted_memory(shape, more, 1, setting).total >= found.total
    if setting.zero_stage:
        fewer = predicted_memory(shape, batch, 1, replace(setting, ranks=2 * setting.ranks))
        assert fewer.parts.optimizer <= found.parts.optimizer


@settings(deadline=None)
@given(ranks=st.integers(1, 40))
def test_a_ranks_share_and_the_parameters_it_touches(ranks: int) -> None:
    sizes = sizes_of(MINILM, ranks)
    assert sizes.part * ranks >= MINILM.parameters
    assert sizes.part <= sizes.touched + ranks
    assert sizes.touched <= MINILM.parameters
    # The embeddings are more than half of this model: whoever owns a piece of them touches all of them.
    assert sizes.touched >= max(tensor.elements for tensor in MINILM.tensors)


def test_parts_add_up() -> None:
    one, two = Parts(1, 2, 3, 4, 5, 6), Parts(weights=10, host=100)
    assert one + two == Parts(11, 2, 3, 4, 5, 106)
    assert (one + two).total == 25
