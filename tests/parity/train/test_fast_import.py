"""Tests that fast imports change no number, load fewer packages, and can be switched off."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import gc, json, sys
if sys.argv[1] != "full":
    from ftsys.fast_import.hooks import begin_fast_import
    begin_fast_import()
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, LlamaConfig
from transformers import Trainer, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaForSequenceClassification

OTHERS = ("scipy", "datasets")
ids = torch.tensor([[5, 6, 7, 0], [8, 9, 1, 2]])
batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([0, 2])}
small = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}

def facts(model):
    return [float(p.double().abs().sum()) for p in model.parameters()]

torch.manual_seed(3)
base = BertModel(BertConfig(**small))
base.config.save_pretrained(sys.argv[2])
save_file(base.state_dict(), sys.argv[2] + "/model.safetensors", {"format": "pt"})
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[2], num_labels=3)
trainer = Trainer(
    model=model,
    args=TrainingArguments(sys.argv[2], max_steps=2, use_cpu=True, report_to="none", save_strategy="no"),
    train_dataset=[{k: v[row] for k, v in batch.items()} for row in range(2)],
)
loss = trainer.train().training_loss
llama = LlamaForSequenceClassification(LlamaConfig(**small, pad_token_id=0, num_labels=3))
numbers = {"loss": loss, "bert": facts(model), "llama": float(llama(**batch).loss)}
compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")
numbers["compiled"] = float(compiled(torch.ones(1)))
loaded = [name for name in OTHERS if name in sys.modules]
collects = gc.isenabled()
if sys.argv[1] != "full":
    from ftsys.fast_import.hooks import end_fast_import
    end_fast_import()
print(json.dumps({"numbers": numbers, "loaded": loaded, "collects": [collects, gc.isenabled()]}))
"""
SWITCHES = {"full": {}, "fast": {}, "off": {"FTSYS_FAST_IMPORT": "0"}}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The reports of three processes: without fast imports, with them, and with them switched off."""
    return {kind: report(kind, tmp_path_factory.mktemp(kind)) for kind in SWITCHES}


def report(kind: str, folder: Path) -> Any:
    """Run the script and return its report."""
    env = os.environ | {"FTSYS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", **SWITCHES[kind]}
    command = [sys.executable, "-c", SCRIPT, kind, str(folder / "model")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_numbers_to_the_last_bit(starts: dict[str, Any]) -> None:
    """Loss and weights after two steps of a model read from a checkpoint, a decoder's loss, a compiled function."""
    assert starts["fast"]["numbers"] == starts["full"]["numbers"]


def test_optional_packages_are_not_loaded(starts: dict[str, Any]) -> None:
    assert set(starts["full"]["loaded"]) == {"scipy", "datasets"}
    assert starts["fast"]["loaded"] == []


def test_garbage_collection_is_off_only_during_the_imports(starts: dict[str, Any]) -> None:
    assert starts["fast"]["collects"] == [False, True]


def test_switched_off_it_is_a_full_start(starts: dict[str, Any]) -> None:
    assert starts["off"] == starts["full"]


def test_nothing_of_torch_is_replaced() -> None:
    from ftsys.fast_import.hooks import HOOKS

    assert {name.partition(".")[0] for name in HOOKS} == {"transformers"}
