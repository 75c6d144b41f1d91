"""One optimizer step of each peer, phase by phase, as a GPU would get it: launches, waits, bytes from the host.

The passes run on the CPU with a narrow model: how many operations there are depends on the layers, not on their width.
Autocast to fp16 is counted in bf16, which a CPU computes many times faster, and which has the same operations.
Clipping and update run on tensors of full size without memory, because multi-tensor kernels take a limited number of
elements in a launch.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optimizer_module
from transformers.initialization import no_init_weights

from ftsys.bench.launch_parts.counter import LaunchCounter, multi_tensor_launches
from ftsys.bench.launch_parts.gpu_paths import gpu_paths
from ftsys.bench.memory_parts.fake_step import fake_model
from ftsys.data.batching.collate import PackedBatch
from ftsys.kernels.select import TRITON
from ftsys.models.inputs import dropout_keys, model_inputs
from ftsys.models.packed import PackedView
from ftsys.train.optimizer.master_adamw import MasterAdamW
from ftsys.train.trainer.loss import loss_per_example
from ftsys.train.trainer.nonfinite_steps import nan_gradient_if_nonfinite

PHASES = ("forward", "backward", "clip", "update")
LENGTHS = (53, 40, 60, 59) * 8
"""Tokens of the batch's 32 sequences: 53 in the mean, as in MRPC."""
HEAD_SIZE, VOCABULARY, LARGEST_NORM = 8, 512, 1.0


@dataclass
class Phase:
    """Counts of one phase: kernel launches, waits of the host, and bytes that the host sends."""

    launches: int = 0
    waits: int = 0
    host_bytes: int = 0

    @classmethod
    def of(cls, counter: LaunchCounter, kernels: Mapping[str, int]) -> "Phase":
        """Return the counter's figures, with the launches in `kernels`, which torch's dispatcher does not see."""
        launches = counter.launches.total() + sum(kernels.values())
        return cls(launches, counter.waits.total(), counter.host_bytes)


Step = dict[str, Phase]


def narrow(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with as many layers and heads, and small sizes."""
    heads = config.get("num_attention_heads", 12)
    width = {"hidden_size": HEAD_SIZE * heads, "intermediate_size": 2 * HEAD_SIZE * heads, "vocab_size": VOCABULARY}
    return {**config, **width, "pad_token_id": 0}


def packed_batch() -> PackedBatch:
    """A batch of `LENGTHS`."""
    tokens, sequences = sum(LENGTHS), len(LENGTHS)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    bounds = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    ids = torch.arange(tokens) % (VOCABULARY - 4) + 4
    labels = torch.zeros(sequences, dtype=torch.int64)
    return PackedBatch(ids, positions, torch.zeros_like(ids), bounds, max(LENGTHS), labels, torch.arange(sequences))


def our_step(config: Mapping[str, Any], precision: str = "bf16") -> Step:
    """Packed, keyed dropout, layers in Triton; weights in bf16 with float32 masters, or in fp16 by autocast."""
    return our_passes(config, precision) | our_update(config, precision)


def our_passes(config: Mapping[str, Any], precision: str = "bf16") -> Step:
    """Forward and backward pass of `our_step`."""
    with gpu_paths() as kernels:
        model = fake_model(narrow(config)).train()
        if precision == "bf16":
            model.to(torch.bfloat16)
        view, batch = PackedView(model, TRITON), packed_batch()

        def forward() -> Tensor:
            keys_T = dropout_keys(batch, 1, 2, TRITON)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "fp16"):
                logits_SC = model(**model_inputs(batch, view, keys_T)).logits
                losses_S = loss_per_example(logits_SC, batch.labels_S, batch.example_ids_S)
                return _scaled(nan_gradient_if_nonfinite(losses_S.sum() * 0.1), precision)

        return _passes(model, forward, kernels)


def our_update(config: Mapping[str, Any], precision: str = "bf16") -> Step:
    """Clipping and update: of bf16 weights with float32 masters; in fp16, as `stock_step`."""
    model = _weightless(config)
    if precision == "fp16":
        return _stock_update(model, torch.optim.AdamW(_groups(model), lr=1e-4, fused=True), precision)
    optimizer = MasterAdamW(_groups(model), lr=1e-4)
    optimizer.lower(torch.bfloat16)
    return _update(model, lambda: optimizer.clip(LARGEST_NORM), optimizer)


def stock_step(config: Mapping[str, Any], precision: str = "bf16") -> Step:
    """transformers' Trainer: padded, autocast, fused AdamW."""
    model = _weightless(config)
    optimizer = torch.optim.AdamW(_groups(model), lr=1e-4, fused=True)
    return _stock_passes(config, precision) | _stock_update(model, optimizer, precision)


def accelerate_step(config: Mapping[str, Any], precision: str = "bf16") -> Step:
    """accelerate's plain loop: the same passes, and torch's default AdamW."""
    model = _weightless(config)
    optimizer = torch.optim.AdamW(_groups(model), lr=1e-4, foreach=True)
    return _stock_passes(config, precision) | _stock_update(model, optimizer, precision)


PEERS: dict[str, Callable[[Mapping[str, Any], str], Step]] = {
    "ours": our_step,
    "stock Trainer": stock_step,
    "accelerate": accelerate_step,
}


def _stock_passes(config: Mapping[str, Any], precision: str) -> Step:
    model, longest = fake_model(narrow(config)).train(), max(LENGTHS)
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    given = {"input_ids": mask.long() * 5, "attention_mask": mask.long(), "labels": torch.zeros(len(LENGTHS)).long()}

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return _scaled(model(**given).loss, precision)

    with _library_attention() as kernels:
        return _passes(model, forward, kernels)


def _stock_update(model: nn.Module, optimizer: torch.optim.Optimizer, precision: str) -> Step:
    with (
        patch.object(optimizer_module, "_get_fused_kernels_supported_devices", lambda: ["meta"]),
        patch.object(clip_grad, "_has_foreach_support", lambda tensors, device: True),
    ):
        step = _update(model, lambda: nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM), optimizer)
    if precision == "fp16":
        # torch's GradScaler inverts its scale in two types, clears a flag, divides all gradients, adapts the scale.
        divided = multi_tensor_launches([parameter.numel() for parameter in model.parameters()], 1)
        step["clip"].launches += 4 + divided + 1
    return step


def _scaled(loss: Tensor, precision: str) -> Tensor:
    """Multiply the loss as torch's GradScaler does in fp16."""
    return loss * 1024.0 if precision == "fp16" else loss


def _passes(model: nn.Module, forward: Callable[[], Tensor], kernels: Counter[str]) -> Step:
    """Count the third step's passes: the first two fill caches. `kernels` counts what is launched beside torch."""
    found: Step = {}
    for _ in range(3):
        model.zero_grad()
        kernels.clear()
        with LaunchCounter("cpu") as counter:
            loss = forward()
        found["forward"] = Phase.of(counter, kernels)
        kernels.clear()
        with LaunchCounter("cpu") as counter:
            loss.backward()
        found["backward"] = Phase.of(counter, kernels)
    return found


def _update(model: nn.Module, clip: Callable[[], object], optimizer: torch.optim.Optimizer) -> Step:
    """Count the second step's clipping and update: the first one makes the optimizer's state."""
    found: Step = {}
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        for name, work in (("clip", clip), ("update", optimizer.step)):
            with LaunchCounter("meta") as counter:
                work()
            found[name] = Phase.of(counter, {})
    return found


def _weightless(config: Mapping[str, Any]) -> nn.Module:
    with torch.device("meta"), no_init_weights():
        model: nn.Module = fake_model(config)
    return model


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weights decay, biases and norms do not, as in transformers' Trainer."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


class _OneKernel(torch.autograd.Function):
    """Fused attention as a GPU has it: one launch forward, two backward (row sums, and all gradients)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, kernels: Counter[str]) -> Tensor:
        kernels["attention"] += 1
        ctx.kernels = kernels
        ctx.save_for_backward(query, key, value)
        return query.new_empty(*query.shape[:-1], value.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.kernels["attention's gradients"] += 2
        return (*(torch.empty_like(states) for states in ctx.saved_tensors), None)


@contextmanager
def _library_attention() -> Iterator[Counter[str]]:
    """Torch's attention as its fused CUDA kernels launch it; on a CPU dropout takes it to separate operations."""
    kernels: Counter[str] = Counter()

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = _OneKernel.apply(query, key, value, kernels)
        return output

    with patch.object(functional, "scaled_dot_product_attention", attention):
        yield kernels
