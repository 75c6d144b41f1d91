"""Measures the peak memory of a training step with torch's fake tensors and memory tracker, without allocating it.

The step is that of ftsys without DeepSpeed: the packed model, keyed dropout, AdamW, and in bf16 ftsys' master weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.initialization import no_init_weights

from ftsys.data.batching.collate import PackedBatch
from ftsys.kernels import dropout
from ftsys.models import packed
from ftsys.train.optimizer.master_adamw import MasterAdamW
from ftsys.train.trainer.loss import loss_per_example

_PARTS = {
    "Parameter": "weights",
    "Buffer": "weights",
    "Gradient": "gradients",
    "Optstate": "optimizer",
    "Other": "optimizer",
    "Activation": "activations",
    "Temp": "buffers",
}
"""MemTracker's names -> our names; it counts master weights as "Other"."""


def fake_step_bytes(
    config: Mapping[str, Any], precision: str, checkpointing: bool, tokens: int, length: int
) -> dict[str, int]:
    """Measure the bytes by part at the peak of a model's second step, and their "total".

    The step has one micro-batch of `tokens` tokens in sequences of `length`, two outputs, and the attention kernel
    "padded": the other kernels read tensor values, which fake tensors do not have. `precision` is "fp32" or "bf16".
    """
    dropout.mask_tables(torch.device("cpu"))  # cached, so it must be computed without fake tensors
    with FakeTensorMode(allow_non_fake_inputs=True), no_init_weights(), _known_layout(tokens // length):
        model = fake_model(config)
        if checkpointing:
            recompute_layers(model)
        optimizer, masters = _optimizer(model, precision)
        view, batch = packed.PackedView(model.train(), "padded"), _batch(tokens, length)
        _step(model, optimizer, view, batch)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, *masters)
        with tracker:
            _step(model, optimizer, view, batch)
        (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return _by_part(snapshot)


def recompute_layers(model: Any) -> None:
    """Turn activation checkpointing on, by the name that the installed transformers has for it."""
    today = getattr(model, "activation_checkpointing_enable", None)
    (today or model.gradient_checkpointing_enable)({"use_reentrant": False})


def fake_model(config: Mapping[str, Any]) -> Any:
    """Create the sequence classifier of a configuration in float32; with fake tensors it needs no memory."""
    words = {key: value for key, value in config.items() if key != "model_type"}
    settings = AutoConfig.for_model(config["model_type"], **words)
    settings.num_labels = 2
    return AutoModelForSequenceClassification.from_config(settings, dtype=torch.float32, trust_remote_code=False)


def _optimizer(model: nn.Module, precision: str) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    if precision == "fp32":
        return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), []
    # With weight decay every row is updated: with fake tensors, rows without a gradient cannot be told apart.
    optimizer = MasterAdamW([{"params": list(model.parameters()), "weight_decay": 0.01}], lr=1e-4)
    optimizer.lower(torch.bfloat16)
    return optimizer, [master for group in optimizer.param_groups for master in group["params"]]


def _batch(tokens: int, length: int) -> PackedBatch:
    sequences, ids = tokens // length, torch.zeros(tokens, dtype=torch.int64)
    ends = torch.arange(0, tokens + 1, length, dtype=torch.int32)
    labels = torch.zeros(sequences, dtype=torch.int64)
    return PackedBatch(ids, ids.clone(), ids.clone(), ends, length, labels, labels.clone())


@contextmanager
def _known_layout(sequences: int) -> Iterator[None]:
    """Replace PackedLayout by one that reads no tensor; all sequences have the same length."""

    class Known(packed.PackedLayout):
        is_rectangular = True
        first_tokens_S = property(lambda self: torch.zeros(sequences, dtype=torch.int64))
        last_tokens_S = first_tokens_S

    known = packed.PackedLayout
    packed.PackedLayout = Known  # type: ignore[misc]
    try:
        yield
    finally:
        packed.PackedLayout = known  # type: ignore[misc]


def _step(model: Any, optimizer: torch.optim.Optimizer, view: packed.PackedView, batch: PackedBatch) -> None:
    logits_SC = model(**_inputs(view, batch)).logits
    loss_per_example(logits_SC, batch.labels_S, batch.example_ids_S).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _inputs(view: packed.PackedView, batch: PackedBatch) -> dict[str, Any]:
    ids_T = (batch.input_ids_T, batch.position_ids_T, batch.token_type_ids_T)
    return view.inputs(*ids_T, batch.cu_seqlens, batch.max_seqlen, batch.input_ids_T.clone())


def _by_part(snapshot: Mapping[Any, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in snapshot.items():
        part = _PARTS.get(getattr(name, "value", name), "total")
        found[part] = found.get(part, 0) + size
    return found
