"""Tests what the packed view does not change, the models it refuses, and activation checkpointing."""

import copy
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from ftsys.bench.memory_parts.fake_step import recompute_layers
from ftsys.errors import ConfigError
from ftsys.kernels.select import KERNELS
from ftsys.model_files.folder import longest_sequence
from ftsys.models.packed import PackedView, why_not_packable
from ftsys.tasks import GLUE
from ftsys.train.setup import load_model
from tests.parity.models.tiny_models import (
    PAD,
    VARIANTS,
    all_in_float64,
    packed_logits,
    packed_model,
    padded_inputs,
    padded_logits,
    sequences,
    small_model,
    stock_model,
)

ROWS = sequences([5, 9, 2])
DECODERS = ["llama", "qwen2-sliding", "qwen3", "mistral", "gemma", "olmo2", "phi3", "smollm3"]


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_padded_batches_go_through_the_same_model_as_before(variant: str) -> None:
    with all_in_float64():
        stock = stock_model(variant, 2)
        ours, view = packed_model(stock, variant)
        expected = padded_logits(stock, ROWS)
        for _ in range(2):
            torch.testing.assert_close(padded_logits(ours, ROWS), expected, rtol=1e-9, atol=1e-9)
            packed_logits(ours, view, sequences([4, 11]))


@pytest.mark.parametrize(
    "variant", ["bert", "roberta", "xlm-roberta", "camembert", "ernie", "electra", "data2vec-text", "deberta-v3"]
)
def test_behind_the_last_attention_only_first_tokens_are_computed(variant: str) -> None:
    """The head reads first tokens only. Padded batches are computed completely."""
    ours, view = packed_model(stock_model(variant, 2), variant)
    rows: list[int] = []
    for layer in ours.base_model.encoder.layer:
        layer.intermediate.dense.register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[1]))
    packed_logits(ours, view, ROWS)
    padded_logits(ours, ROWS)
    assert rows == [16, 3, 9, 9]


def test_a_layer_with_more_behind_its_attention_is_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeBERTa-v2's convolution follows the first layer, which may also be the last, and reads neighbouring rows."""
    model_type, settings = VARIANTS["deberta-v2"]
    monkeypatch.setitem(VARIANTS, "one layer", (model_type, {**settings, "num_hidden_layers": 1}))
    with all_in_float64():
        stock = stock_model("one layer", 2)
        ours, view = packed_model(stock, "one layer")
        torch.testing.assert_close(packed_logits(ours, view, ROWS), padded_logits(stock, ROWS), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", ["bert", "mpnet", "deberta-v2", "llama"])
def test_a_packed_batch_that_fails_leaves_nothing_behind(variant: str) -> None:
    with all_in_float64():
        stock = stock_model(variant, 2)
        ours, view = packed_model(stock, variant)
        with pytest.raises(IndexError):
            packed_logits(ours, view, [torch.tensor([2, 10**6])])
        base = [model.base_model(**padded_inputs(model, ROWS)).last_hidden_state for model in (ours, stock)]
        real = padded_inputs(stock, ROWS)["attention_mask"].bool()
        torch.testing.assert_close(base[0][real], base[1][real], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_view_leaves_no_trace_in_what_is_saved(variant: str, tmp_path: Path) -> None:
    stock, ours = small_model(variant, 2), small_model(variant, 2)
    PackedView(ours)
    assert list(stock.state_dict()) == list(ours.state_dict())
    stock.save_pretrained(tmp_path / "stock")
    ours.save_pretrained(tmp_path / "ours")
    saved = sorted(path.name for path in (tmp_path / "stock").iterdir())
    assert saved == sorted(path.name for path in (tmp_path / "ours").iterdir())
    for name in saved:
        assert (tmp_path / "stock" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes(), name
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(padded_logits(loaded.eval(), ROWS), padded_logits(stock.eval(), ROWS))


@pytest.mark.parametrize("variant", ["bert", "mpnet", "deberta-v2", "modernbert-mean", "llama"])
def test_two_views_and_copies_compute_the_same(variant: str) -> None:
    ours, view = packed_model(stock_model(variant, 2), variant)
    expected = packed_logits(ours, view, ROWS)
    other = copy.deepcopy(ours)
    # torch.save of a whole model pickles it; these bytes are the line's own.
    for model in (ours, other, pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(packed_logits(model, PackedView(model), ROWS), expected, rtol=0, atol=0)
    for parameter in ours.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(packed_logits(other, view, ROWS), expected, rtol=0, atol=0)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_layers_may_be_computed_again_in_the_backward_pass(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run two forward passes before the backward pass of the first, so its layout is not the most recent one."""
    calls: list[int] = []
    padded = KERNELS["padded"]
    monkeypatch.setitem(KERNELS, "padded", lambda *args: calls.append(1) or padded(*args))  # type: ignore[func-returns-value]
    plain, recomputed = gradients_of_two_batches(variant, False), gradients_of_two_batches(variant, True)
    assert len(calls) == 2 * 2 + 2 * 2 * 2
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(
            recomputed[name], gradient, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


def gradients_of_two_batches(variant: str, recomputed: bool) -> dict[str, torch.Tensor]:
    """Use the model's own dropout rates."""
    model = small_model(variant, 2).train()
    view = PackedView(model)
    if recomputed:
        checkpoint_layers(model)
    torch.manual_seed(3)
    first, second = (packed_logits(model, view, sequences(lengths)) for lengths in ([5, 1, 9], [4, 12]))
    first.square().sum().backward()
    second.square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Switch activation checkpointing on by transformers, or by hand for the two families without this setting."""
    if model.supports_gradient_checkpointing:
        recompute_layers(model)
        return
    layers = {"mpnet": "encoder.layer", "albert": "encoder.albert_layer_groups"}[model.config.model_type]
    for layer in model.base_model.get_submodule(layers):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "weights in bf16"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_bf16_is_as_near_to_the_truth_as_the_stock_model_is(variant: str, weights: torch.dtype) -> None:
    with all_in_float64():
        exact = padded_logits(stock_model(variant, 3), ROWS)
    stock = stock_model(variant, 3)
    ours, view = packed_model(stock, variant)
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        error = (padded_logits(stock.to(weights), ROWS) - exact).abs().max()
        packed = packed_logits(ours.to(weights), view, ROWS)
    packed.square().sum().backward()
    assert (packed - exact).abs().max() < 4 * error + 0.01
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("variant", DECODERS)
def test_a_decoder_pools_at_the_last_token_whatever_it_is(variant: str) -> None:
    """transformers uses the last token that is not the padding token, so it skips a real last token with that id."""
    with all_in_float64():
        stock = stock_model(variant, 2)
        ours, view = packed_model(stock, variant)
        ended_S = [torch.cat([row, torch.tensor([PAD])]) for row in ROWS]
        stock.config.pad_token_id = 0
        alone = torch.cat([stock(input_ids=row[None]).logits for row in ended_S])
        torch.testing.assert_close(packed_logits(ours, view, ended_S), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_sequence_longer_than_the_table_of_positions_is_refused(variant: str) -> None:
    model = small_model(variant, 2)
    view = PackedView(model)
    if view.longest is None:
        assert not any("position_embeddings" in name for name, _ in model.named_parameters())
        packed_logits(model, view, sequences([3, 40]))
        return
    assert view.longest == longest_sequence(model.config.to_dict())
    with pytest.raises(ConfigError, match=rf"{view.longest + 1} tokens.*{view.longest} positions.*data.max_length"):
        packed_logits(model, view, sequences([3, view.longest + 1]))


def test_what_cannot_be_packed_says_why() -> None:
    def reason(variant: str, **settings: object) -> str | None:
        model = small_model(variant, 2)
        for name, value in settings.items():
            setattr(model.config, name, value)
        return why_not_packable(model)

    assert reason("bert") is None
    assert "model type 'xlnet' is not among the packed ones" in str(reason("bert", model_type="xlnet"))
    assert reason("bert", is_decoder=True) == "config.is_decoder=True asks for causal attention"
    assert "position_embedding_type='relative_key'" in str(reason("bert", position_embedding_type="relative_key"))
    assert "classifier_pooling='late'" in str(reason("eurobert-mean", classifier_pooling="late"))
    assert "config.pad_token_id is None" in str(reason("llama", pad_token_id=None))
    assert why_not_packable(small_model("bert", 2).base_model) == "BertModel is not a sequence classifier"
    assert why_not_packable(torch.nn.Linear(2, 2)) == "Linear is not a transformers model"
    with pytest.raises(ConfigError, match="cannot be packed: BertModel is not a sequence classifier"):
        PackedView(small_model("bert", 2).base_model)


def test_a_type_of_model_without_a_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match="model type 'clip' has no sequence classifier in transformers 5"):
        load_model(tmp_path, GLUE["mrpc"], seed=0)


def test_weights_without_any_of_the_encoder_are_refused(tmp_path: Path) -> None:
    model = small_model("bert", 2)
    model.config.save_pretrained(tmp_path)
    save_file({"classifier.bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"hold none of the encoder's [0-9]+ parameters, such as 'bert"):
        load_model(tmp_path, GLUE["mrpc"], seed=0)
    save_file(model.base_model.state_dict(), tmp_path / "model.safetensors")  # without a head, and without the prefix
    assert load_model(tmp_path, GLUE["mrpc"], seed=0)[1] == ["classifier.bias", "classifier.weight"]
