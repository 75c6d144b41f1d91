"""A lean start computes what a full one computes, loads less, and gives way to torch's compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
if sys.argv[1] == "lean":
    from ftsys.fast_import.hooks import install_import_hooks
    install_import_hooks()
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, LlamaConfig
from transformers import Trainer, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaForSequenceClassification

OTHERS = ("torch._dynamo", "torch.distributed.tensor", "sympy", "scipy", "datasets", "deepspeed")
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
loaded = [name for name in OTHERS if name in sys.modules]
loss = trainer.train().training_loss
llama = LlamaForSequenceClassification(LlamaConfig(**small, pad_token_id=0, num_labels=3))
numbers = {"loss": loss, "bert": facts(model), "llama": float(llama(**batch).loss)}

compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")
numbers["compiled"] = float(compiled(torch.ones(1)))
from torch._dynamo.trace_rules import _allowed_callable_ids
import torch._dynamo._trace_wrapped_higher_order_op as indexing
numbers["marked"] = len(_allowed_callable_ids.function_ids)
numbers["after"] = float(llama(**batch).loss)
trainer.optimizer.zero_grad()
module = type(torch._dynamo).__name__, indexing.TransformGetItemToIndex.__module__
torch.compiler.disable(lambda: None)()
print(json.dumps({"numbers": numbers, "loaded": loaded, "module": module}))
"""


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of either kind found."""
    return {kind: found(kind, tmp_path_factory.mktemp(kind)) for kind in ("full", "lean")}


def found(kind: str, folder: Path) -> Any:
    """The script's own report."""
    env = os.environ | {"FTSYS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, kind, str(folder / "model")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_numbers_to_the_last_bit(starts: dict[str, Any]) -> None:
    """Loss and weights after two steps of a model read from a checkpoint, a decoder's loss, a compiled function, and
    how many functions are marked for the compiler once it is there.
    """
    assert starts["lean"]["numbers"] == starts["full"]["numbers"]


def test_what_is_not_loaded(starts: dict[str, Any]) -> None:
    """Up to the first step, where stock AdamW's asks for the compiler. Which of the others differs between versions."""
    lean, full = (set(starts[kind]["loaded"]) for kind in ("lean", "full"))
    assert lean < full
    assert not lean & {"torch._dynamo", "torch.distributed.tensor", "sympy", "datasets"}


def test_the_compiler_is_the_real_one_when_it_is_wanted(starts: dict[str, Any]) -> None:
    assert starts["lean"]["module"] == ["module", "torch._dynamo._trace_wrapped_higher_order_op"]
