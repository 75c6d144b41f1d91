"""Tests that an adapter whose tensors do not all count, or that lies beside a whole model, is refused."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftsys.errors import ConfigError
from ftsys.export.convert import load_stock
from ftsys.model_files.config import ADAPTED_CONFIG, WEIGHTS, model_config
from ftsys.tasks import Task
from ftsys.train.setup import load_model, load_trained
from ftsys.train.trainable.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, add_adapter_weights, base_folder
from tests.distributed.tiny_run import tiny_bert

LAYER = "bert.encoder.layer.0.attention.self.query"
TASK = Task("mood", ("text",), ("down", "up"), ("accuracy",))


def write_adapter(folder: Path, tensors: Mapping[str, torch.Tensor], base: Path | str = "base", r: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": r, "lora_alpha": 4.0}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    save_file({f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    return folder


def products(rows: int = 16, columns: int = 16, r: int = 2, part: str = "lora_") -> dict[str, torch.Tensor]:
    return {f"{LAYER}.{part}A.weight": torch.ones(r, columns), f"{LAYER}.{part}B.weight": torch.ones(rows, r)}


WRONG = {
    "A alone": ({f"{LAYER}.lora_A.weight": torch.ones(2, 16)}, r"there is no '.*lora_B\.weight'"),
    "B alone": ({f"{LAYER}.lora_B.weight": torch.ones(16, 2)}, r"lora_B\.weight' is no part of a plain LoRA adapter"),
    "for an embedding": (products(part="lora_embedding_"), r"lora_embedding_A\.weight' is no part of a plain"),
    "a magnitude": (products() | {f"{LAYER}.lora_magnitude_vector.weight": torch.ones(16)}, "is no part of a plain"),
    "another rank": (products(r=4), r"lora_A\.weight' has the shape \(4, 16\) instead of \(2, 16\)"),
    "a column": (products(columns=1), r"lora_A\.weight' has the shape \(2, 1\) instead of \(2, 16\)"),
    "a row": (products(rows=1), r"lora_B\.weight' has the shape \(1, 2\) instead of \(16, 2\)"),
    "a head of one class": ({"classifier.weight": torch.ones(1, 16)}, r"has the shape \(1, 16\) instead of \(2, 16\)"),
    "a layer of another model": ({"gpt.lora_A.weight": torch.ones(2, 16)}, "the model has no 'gpt.weight'"),
}


@pytest.mark.parametrize(("tensors", "said"), WRONG.values(), ids=WRONG)
def test_an_adapter_counts_as_a_whole(tensors: Mapping[str, torch.Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"adapter_model.safetensors: cannot be added to 'base' \(.*{said}"):
        add_adapter_weights(tiny_bert(), write_adapter(tmp_path / "adapter", tensors))


def test_a_plain_adapter_is_added(tmp_path: Path) -> None:
    model, before = tiny_bert(), tiny_bert().state_dict()[f"{LAYER}.weight"]
    add_adapter_weights(model, write_adapter(tmp_path / "adapter", products()))
    torch.testing.assert_close(model.state_dict()[f"{LAYER}.weight"] - before, torch.full((16, 16), 4.0))


@pytest.mark.parametrize("name", WEIGHTS)
def test_an_adapter_beside_whole_weights_is_refused(name: str, tmp_path: Path) -> None:
    write_adapter(tmp_path, products())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / name).write_bytes(b"")
    for load in (lambda: model_config(tmp_path), lambda: load_model(tmp_path, TASK, 1), lambda: load_stock(tmp_path)):
        with pytest.raises(ConfigError, match=rf"holds both the weights of a whole model \({name}\) and an adapter"):
            load()


def test_an_adapter_to_an_adapter_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_adapter(base, products())
    (base / "config.json").write_text('{"model_type": "bert"}')
    adapter = write_adapter(tmp_path / "adapter", products(), base)
    with pytest.raises(ConfigError, match=r"is an adapter to '.*base', which is one itself. Merge that one first"):
        base_folder(adapter)
    save_file({"x": torch.ones(1)}, base / "model.safetensors")
    with pytest.raises(ConfigError, match="holds both the weights of a whole model"):
        base_folder(adapter)


def test_weights_that_base_and_adapter_both_lack_are_told_and_refused_where_nothing_trains_them(tmp_path: Path) -> None:
    norm, base = "bert.encoder.layer.0.output.LayerNorm.weight", tmp_path / "base"
    tiny_bert().save_pretrained(base)
    weights = load_file(base / "model.safetensors")
    save_file(
        {name: kept for name, kept in weights.items() if name != norm}, base / "model.safetensors", {"format": "pt"}
    )
    head = {"classifier.weight": torch.ones(2, 16), "classifier.bias": torch.ones(2)}
    adapter = write_adapter(tmp_path / "adapter", products() | head, base)
    (adapter / ADAPTED_CONFIG).write_text((base / "config.json").read_text())
    assert load_model(adapter, TASK, 1)[1] == [norm]
    with pytest.raises(ConfigError, match=rf"adapter' is not the one that was trained: its weights lack {norm}"):
        load_trained(adapter, TASK)
