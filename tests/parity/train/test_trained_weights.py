"""Tests LoRA, freezing and layer-wise decay: against peft, against a slow reference, and in every family."""

import itertools
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from ftsys.config import LoraSection, build_run
from ftsys.errors import ConfigError
from ftsys.models.packed import PackedView
from ftsys.tasks import Task
from ftsys.train.setup import load_model
from ftsys.train.trainable.adapter_files import add_adapter_weights
from ftsys.train.trainable.choose import choose_trained
from ftsys.train.trainable.layer_decay import rate_scales
from ftsys.train.trainable.lora import add_adapters, merged, save_adapter
from ftsys.train.trainer.arguments import TrainingArguments
from launcher.planner.cost.activations import MicroBatch
from launcher.planner.cost.memory import Setting, predicted_memory
from launcher.planner.model_shape import model_shape
from launcher.planner.model_shape.trained import trained_shape
from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert
from tests.parity.models.test_memory_model import FAMILIES, config_of
from tests.parity.models.tiny_models import (
    VARIANTS,
    all_in_float64,
    packed_logits,
    padded_logits,
    sequences,
    small_model,
    stock_model,
)

LORA = LoraSection(r=2, target_modules=("all",))


def run_of(**sections: Any) -> Any:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})


def stirred(model: Any) -> Any:
    """Give the adapters products that are not 0, as after some training."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_packed_batches_of_a_model_with_adapters(variant: str) -> None:
    rows = sequences([5, 1, 17, 7])
    with all_in_float64():
        models = [stock_model(variant, 3), stock_model(variant, 3)]
        for model in models:
            add_adapters(model, LORA, [], seed=1)
            torch.manual_seed(2)
            stirred(model.double())
        stock, ours = models
        expected, actual = padded_logits(stock, rows), packed_logits(ours, PackedView(ours), rows)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
        (expected.square().sum() + actual.square().sum()).backward()
    trained = [name for name, weight in ours.named_parameters() if weight.requires_grad]
    assert any("lora_A" in name for name in trained)
    for name, weight in stock.named_parameters():
        mine = ours.get_parameter(name)
        assert (weight.grad is None) == (mine.grad is None) == (not weight.requires_grad)
        if weight.grad is not None:
            torch.testing.assert_close(mine.grad, weight.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_rates_fall_from_the_head_to_the_embeddings_in_every_family(variant: str) -> None:
    model = small_model(variant, 2)
    scales = rate_scales(model, 0.5)
    layers = 1 if variant == "albert" else 2
    assert set(scales.values()) == {0.5**depth for depth in range(layers + 2)}
    embedding = next(name for name, weight in model.named_parameters() if weight is model.get_input_embeddings().weight)
    assert scales[embedding] == 0.5 ** (layers + 1)
    assert {scales[name] for name in scales if not name.startswith(f"{model.base_model_prefix}.")} == {1.0}


def test_the_optimizer_has_each_layers_rate_and_the_schedule_scales_it(tmp_path: Path) -> None:
    trainer = make_trainer(make_store(tmp_path), tmp_path, layer_decay=0.5, weight_decay=0.1, warmup_steps=2)
    trainer.create_optimizer_and_scheduler(4)
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    found = {
        names[id(weight)]: (group["lr"] / 1e-3, group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for weight in group["params"]
    }
    for _ in range(2):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    peak = {names[id(w)]: group["lr"] / 1e-3 for group in trainer.optimizer.param_groups for w in group["params"]}
    assert set(found) == set(names.values())
    expected: dict[str, float] = {"embeddings": 0.125, "layer.0.": 0.25, "layer.1.": 0.5, "pooler": 1, "classifier": 1}
    for part, scale in expected.items():
        assert {peak[name] for name in names.values() if part in name} == {scale}
    assert all((decay == 0) == ("bias" in name or "LayerNorm" in name) for name, (_, decay) in found.items())
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(1e-3)  # what logs show


def test_a_step_with_decay_is_that_of_a_plain_optimizer(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    ours = make_trainer(store, tmp_path, max_steps=1, layer_decay=0.5, lr_scheduler_type="constant")
    plain = make_trainer(store, tmp_path, max_steps=1, lr_scheduler_type="constant")
    before = {name: weight.detach().clone() for name, weight in plain.model.named_parameters()}
    for trainer in (ours, plain):
        trainer.train()
    scales = rate_scales(plain.model, 0.5)
    for name, weight in plain.model.named_parameters():
        moved = (weight - before[name]) * scales[name]
        torch.testing.assert_close(ours.model.get_parameter(name) - before[name], moved, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_decay_that_is_none(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer_decay=.* must be above 0"):
        TrainingArguments(output_dir=str(tmp_path), layer_decay=value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_stay_and_take_no_optimizer_memory(precision: str, tmp_path: Path) -> None:
    model = tiny_bert(dropout=0.1)
    choose_trained(model, run_of(train={"freeze": ["embeddings", "layers.0"]}), [])
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = make_trainer(make_store(tmp_path), tmp_path, model=model, precision=precision, max_steps=2)
    trainer.train()
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    held = sum(weight.numel() for group in optimizer.param_groups for weight in group["params"])
    assert held == sum(w.numel() for name, w in before.items() if "embeddings" not in name and "layer.0." not in name)
    for name, weight in trainer.model.named_parameters():
        is_frozen = "embeddings" in name or "layer.0." in name
        assert (weight.grad is None) or not is_frozen
        if is_frozen or name == "classifier.weight":
            assert torch.equal(weight.float(), before[name].to(weight.dtype).float()) == is_frozen


def test_lora_trains_as_peft_under_the_stock_way(tmp_path: Path) -> None:
    """Both from the same adapters: losses of packed batches are those of peft's own model on padded ones."""
    store, kept = make_store(tmp_path), LoraSection(r=2, target_modules=("query", "value"))
    model = tiny_bert()
    add_adapters(model, kept, [], seed=5)
    ours = make_trainer(store, tmp_path, model=model, max_steps=4)
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=16, target_modules=["query", "value"])
    theirs = peft.get_peft_model(tiny_bert(), settings)
    mine = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if weight.requires_grad:
                short = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
                weight.copy_(mine[short])
    stock = make_trainer(store, tmp_path, model=theirs, max_steps=4)
    losses = []
    for trainer in (ours, stock):
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert ours.parts.packing.view is not None
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    counts = [sum(w.numel() for w in each.parameters() if w.requires_grad) for each in (model, theirs)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("variant", ["bert", "albert", "distilbert", "roberta", "deberta-v3", "modernbert-cls", "phi3"])
def test_the_adapter_folder_is_pefts(variant: str, tmp_path: Path) -> None:
    """peft, our own reader and the merged weights give the logits of the model with its adapters."""
    made = small_model(variant, 2).float().eval()
    made.save_pretrained(tmp_path / "base")
    adapted = small_model(variant, 2).float()
    fresh = [name for name, _ in adapted.named_parameters() if ".pooler." in name]
    add_adapters(adapted, LORA, fresh, seed=1)
    stirred(adapted).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "lora" not in name:
                weight.add_(0.01)
    weights = {name: weight.detach().float() for name, weight in adapted.named_parameters()}
    for _ in range(2):  # the second time as after a kill
        save_adapter(tmp_path / "adapter", adapted, weights, LORA, str(tmp_path / "base"))
    plain = AutoModelForSequenceClassification.from_config(made.config).float()
    plain.load_state_dict(merged(weights, LORA), strict=False)
    read = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    add_adapter_weights(read, tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    through = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=2)
    rows = sequences([5, 9])
    with torch.no_grad():
        expected = padded_logits(adapted, rows)
        for model in (plain, read, theirs.eval(), through):
            torch.testing.assert_close(padded_logits(model.eval(), rows), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"peft_type": "LORA"}', "adapter_config.json: cannot be used"),
        ("[]", "adapter_config.json: cannot be used"),
        (
            '{"peft_type": "IA3", "base_model_name_or_path": "x", "r": 8, "lora_alpha": 8}',
            "peft_type='IA3' is no plain",
        ),
        (
            '{"peft_type": "LORA", "base_model_name_or_path": "x", "r": 8, "lora_alpha": 8, "use_dora": true}',
            "use_dora=True is no plain LoRA adapter",
        ),
        ('{"peft_type": "LORA", "base_model_name_or_path": "./x", "r": 8, "lora_alpha": 8}', "there is no such folder"),
    ],
)
def test_an_adapter_folder_that_cannot_be_used(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=words):
        load_model(tmp_path, Task("mood", ("text",), ("down", "up"), ("accuracy",)), 1)


CHOICES: list[dict[str, Any]] = [
    {"lora": {"r": 4, "target_modules": "all"}},
    {"train": {"freeze": ["embeddings", "layers.0"]}},
]
NAMED = {"lora": {"r": 4, "target_modules": ["query", "value"]}}


@pytest.mark.parametrize(
    ("family", "sections"),
    [*itertools.product(FAMILIES, CHOICES), ("bert", NAMED), ("xlm-roberta", NAMED), ("camembert", NAMED)],
)
def test_the_planner_counts_the_weights_that_are_trained(family: str, sections: dict[str, Any]) -> None:
    config, run = config_of(family), run_of(**sections)
    shape = trained_shape(model_shape(config, 2), run)
    values = {key: value for key, value in config.items() if key != "model_type"}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, num_labels=2, **values))
    choose_trained(model, run, [])
    assert shape is not None
    assert shape.trained_parameters == sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert shape.parameters == sum(w.numel() for w in model.parameters())


def test_frozen_weights_cost_the_planner_their_bytes_alone() -> None:
    setting, batch = Setting("none", 0, "fp32", "none", False, 1, "cpu"), MicroBatch(2048, 64)
    whole = model_shape(config_of("bert"), 2)
    adapted = trained_shape(whole, run_of(lora={"r": 4}))
    assert adapted is not None
    memory = predicted_memory(adapted, batch, 1, setting).parts
    assert memory.optimizer == 8 * adapted.trained_parameters
    assert memory.weights == 4 * adapted.parameters
    assert predicted_memory(whole, batch, 1, setting).parts.optimizer == 8 * whole.parameters


@pytest.mark.parametrize("variant", ["bert", "distilbert", "modernbert-cls", "deberta-v3"])
def test_every_dropout_of_a_model_is_set(variant: str, tmp_path: Path) -> None:
    stock_model(variant, 2).save_pretrained(tmp_path)
    task = Task("mood", ("text",), ("down", "up"), ("accuracy",))
    model, _ = load_model(tmp_path, task, 1, dropout=0.25)
    rates = [part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.25}
    assert load_model(tmp_path, task, 1)[0].config.to_dict() != model.config.to_dict()


def test_the_planner_knows_the_dropout_of_a_run() -> None:
    shape, none = model_shape(AutoConfig.for_model("bert").to_dict(), 2), run_of(train={"dropout": 0.0})
    assert shape.layer.hidden_dropout == shape.layer.attention_dropout == 0.1
    found = trained_shape(shape, none)
    assert found is not None
    assert found.layer.hidden_dropout == found.layer.attention_dropout == 0.0


def test_a_model_without_dropout_refuses_the_key(tmp_path: Path) -> None:
    AutoConfig.for_model("gemma3").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"train.dropout=0.0: .* have no dropout"):
        load_model(tmp_path, Task("mood", ("text",), ("down", "up"), ("accuracy",)), 1, dropout=0.0)
