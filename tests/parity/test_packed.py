"""A packed batch against the padded single-process reference, in float64: loss and every gradient to 1e-9."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from ftsys.errors import ConfigError
from ftsys.kernels.attention import KERNELS, choose_kernel, padded_attention, reference_attention
from ftsys.kernels.layout import PackedLayout
from ftsys.models.packed import FAMILIES, PackedView

LENGTHS = {"mixed": [5, 1, 24, 7, 7], "equal": [6, 6, 6], "single": [24], "shortest": [1, 1]}
SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 32,
    "pad_token_id": 1,
}


def small_model(family: str, labels: int) -> PreTrainedModel:
    """A two-layer model of the family in float64, dropout at its defaults."""
    torch.manual_seed(0)
    known = AutoConfig.for_model(family).to_dict()
    settings = {key: value for key, value in SMALL.items() if key in known or key == "pad_token_id"}
    if family in ("bert", "electra", "albert"):
        settings["type_vocab_size"] = 2
    config = AutoConfig.for_model(family, num_labels=labels, **settings)
    return AutoModelForSequenceClassification.from_config(config).double()


def sequences(lengths: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 60, (length,), generator=generator) for length in lengths]


def switch_dropout_off(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def padded_logits(model: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    """The stock model on the stock padded batch; second halves are of token type 1 where the model has types."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), 1)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
        types[index, len(row) // 2 : len(row)] = 1
    extra = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    return model(input_ids=ids, attention_mask=mask, **extra).logits


def packed_logits(model: PreTrainedModel, view: PackedView, rows: list[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([len(row) for row in rows])
    types = torch.cat([(torch.arange(len(row)) >= len(row) // 2).long() for row in rows])
    cumulative = torch.cat([torch.zeros(1), lengths.cumsum(0)]).int()
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    return model(**view.inputs(torch.cat(rows), positions, types, cumulative, int(lengths.max()))).logits


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    targets = torch.arange(len(logits)) % logits.shape[1]
    if logits.shape[1] == 1:
        return torch.nn.functional.mse_loss(logits[:, 0], targets + 0.5)
    return torch.nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize("labels", [1, 2, 7])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_loss_and_gradients_equal_the_padded_reference(family: str, labels: int) -> None:
    for name, lengths in LENGTHS.items():
        stock, ours = small_model(family, labels), small_model(family, labels)
        stock.set_attn_implementation("eager")
        ours.load_state_dict(stock.state_dict())
        view = PackedView(ours)
        for model in (stock, ours):
            switch_dropout_off(model)
            model.train()
        expected, actual = loss_of(padded_logits(stock, sequences(lengths))), None
        actual = loss_of(packed_logits(ours, view, sequences(lengths)))
        expected.backward()
        actual.backward()
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        for (key, parameter), other in zip(stock.named_parameters(), ours.parameters(), strict=True):
            if parameter.grad is None:
                assert other.grad is None or not other.grad.any(), key
            else:
                torch.testing.assert_close(
                    other.grad, parameter.grad, rtol=1e-9, atol=1e-9, msg=lambda m, n=name, k=key: f"{n} {k}: {m}"
                )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_padded_batch_still_goes_through_the_same_model(family: str) -> None:
    stock, ours = small_model(family, 2).eval(), small_model(family, 2).eval()
    PackedView(ours)
    rows = sequences([5, 9, 2])
    torch.testing.assert_close(padded_logits(ours, rows), padded_logits(stock, rows), rtol=1e-9, atol=1e-9)


def test_the_view_leaves_no_trace_in_what_is_saved(tmp_path: Path) -> None:
    stock, ours = small_model("bert", 2), small_model("bert", 2)
    PackedView(ours)
    assert list(stock.state_dict()) == list(ours.state_dict())
    stock.save_pretrained(tmp_path / "stock")
    ours.save_pretrained(tmp_path / "ours")
    assert (tmp_path / "stock/config.json").read_text() == (tmp_path / "ours/config.json").read_text()


@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"reference"}))
def test_every_kernel_equals_the_reference(name: str) -> None:
    for lengths in LENGTHS.values():
        layout = PackedLayout(torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths))
        inputs = [torch.randn(sum(lengths), 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        gradient = torch.randn(sum(lengths), 3, 8, dtype=torch.float64)
        results: list[list[torch.Tensor]] = []
        for kernel in (reference_attention, KERNELS[name]):
            query, key, value = inputs
            output = kernel(query, key, value, layout, 0.3, 0.0)
            results.append([output, *torch.autograd.grad(output, inputs, gradient)])
        for actual, expected in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_attention_dropout_drops_at_its_rate() -> None:
    """With uniform weights over L keys and values of one, the output is the kept share divided by 1 - rate."""
    length, rate = 64, 0.25
    layout = PackedLayout(torch.tensor([0, length, length + 8]).int(), length)
    zeros = torch.zeros(length + 8, 4, 8)
    torch.manual_seed(0)
    output = padded_attention(zeros, zeros, torch.ones_like(zeros), layout, 1.0, rate)
    assert abs(float(output.mean()) - 1.0) < 0.02
    assert float(output.std()) > 0.01


def test_a_kernel_is_taken_by_name_or_refused_with_the_names_there_are() -> None:
    assert choose_kernel("auto") in KERNELS
    assert choose_kernel("reference") == "reference"
    with pytest.raises(ConfigError, match=r"engine.kernels='flash' is not a kernel.*'padded', 'reference'"):
        choose_kernel("flash")
