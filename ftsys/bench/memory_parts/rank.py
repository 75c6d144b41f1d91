"""Runs one rank of a memory measurement: a few steps of ftsys' own Trainer, and the live tensors of the last step.

`python -m ftsys.bench.memory_parts.rank SETTINGS` reads its settings as JSON and prints one line of JSON.
`ftsys.bench.memory_parts.cases` starts the ranks.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, TrainerCallback

from ftsys.bench.memory_parts.live_bytes import Block, LiveBytes, by_part
from ftsys.config import build_run, resolve_task
from ftsys.console.printer import show
from ftsys.data.store.index import TokenizerFacts
from ftsys.data.store.reader import Store
from ftsys.data.store.writer import StoreWriter
from ftsys.distributed import stay_on_loopback
from ftsys.train.setup import training_arguments
from ftsys.train.trainer.trainer import Trainer
from launcher.planner.cost.engine_memory import BUCKET_ELEMENTS
from launcher.planner.plan import World, make_plan

STEPS = 4
"""Optimizer steps: ZeRO 3 knows the order of modules from the second step on, and prefetches from the third on."""

_MADE_IN = {"forward": "activations", "backward": "buffers", "step": "buffers"}


class Watch(TrainerCallback):
    """Sets the counter's phase, and restarts its peak at the last step."""

    def __init__(self, counter: LiveBytes) -> None:
        """Start without a trainer; `listen` sets it."""
        self.counter = counter
        self.trainer: Trainer | None = None
        self.gradients: set[int] = set()

    def listen(self, trainer: Trainer) -> None:
        """Hook forward and backward passes, and gradients before an engine moves them."""
        self.trainer = trainer
        step, accelerator = trainer.parts.step, trainer.accelerator
        for owner, name, phase in ((step, "forward_backward", "forward"), (accelerator, "backward", "backward")):
            setattr(owner, name, self._announcing(getattr(owner, name), phase))
        for parameter in trainer.model.parameters():
            parameter.register_post_accumulate_grad_hook(self._note_gradient)

    def _announcing(self, work: Any, phase: str) -> Any:
        def announced(*words: Any, **named: Any) -> Any:
            self.counter.phase = phase
            return work(*words, **named)

        return announced

    def _note_gradient(self, parameter: Tensor) -> None:
        self.gradients |= self.counter.blocks_of([parameter.grad])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hook DeepSpeed's update at the first step; restart the peak at the last."""
        engine = self.trainer.deepspeed if self.trainer is not None else None
        # DeepSpeed updates right after its backward pass, before the Trainer's callback for the update.
        if state.global_step == 0 and engine is not None:
            engine.step = self._ending_backward(engine.step)
        if state.global_step == state.max_steps - 1:
            self.counter.restart_peak()

    def _ending_backward(self, step: Any) -> Any:
        def announced(*words: Any, **named: Any) -> Any:
            self._begin_update()
            return step(*words, **named)

        return announced

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the update phase: gradients are complete."""
        self._begin_update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the step: work between steps belongs to no phase of it."""
        self.counter.phase = "between"

    def _begin_update(self) -> None:
        if self.counter.phase == "backward":
            self.counter.phase = "step"
            made = (block for block in self.counter.blocks if block.phase == "backward")
            self.gradients |= {id(block) for block in made if block.lives_at(self.counter.moment)}


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Train `STEPS` steps with `settings`; returns the last step's peak and its bytes by part."""
    run, ranks = build_run(settings["run"]), int(os.environ.get("WORLD_SIZE", "1"))
    plan = make_plan(run, World(ranks=ranks, local_ranks=ranks, bf16_supported=True))
    stay_on_loopback()
    if plan.backend == "deepspeed":
        from ftsys.train.deepspeed_setup import prepare_deepspeed

        prepare_deepspeed()
    counter = LiveBytes()
    watch = Watch(counter)
    with counter:
        model, arguments = _model(settings["model"]), training_arguments(run, plan, resolve_task(run))
        split = Store.open(settings["store"]).splits["train"]
        trainer = Trainer(model=model, args=arguments, train_dataset=split, callbacks=[watch])
        watch.listen(trainer)
        trainer.train()
        weights, states = owned(trainer, counter)

    def part_of(block: Block) -> str:
        if id(block) in weights:
            return "weights"
        if id(block) in states:
            return "optimizer"
        bucket = max(block.shape, default=0) == BUCKET_ELEMENTS
        return "gradients" if id(block) in watch.gradients and not bucket else _MADE_IN.get(block.phase, "buffers")

    return {"peak": counter.peak_bytes, "parts": by_part(counter.at_peak(), part_of)}


def _model(config: dict[str, Any]) -> nn.Module:
    words = {key: value for key, value in config.items() if key != "model_type"}
    settings = AutoConfig.for_model(config["model_type"], **words)
    settings.num_labels = 2
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(settings, dtype=torch.float32, trust_remote_code=False)


def owned(trainer: Trainer, counter: LiveBytes) -> tuple[set[int], set[int]]:
    """Return the blocks of weights and of optimizer states (with master weights), for any engine."""
    wrapped = getattr(trainer.model_wrapped, "optimizer", None) or trainer.optimizer
    inner: Any = wrapped
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    states = [leaf for state in inner.state.values() for leaf in state.values() if isinstance(leaf, Tensor)]
    masters = [tensor for group in inner.param_groups for tensor in group["params"]]
    masters += getattr(wrapped, "fp32_partitioned_groups_flat", [])
    weights = [tensor for p in trainer.model.parameters() for tensor in (p, getattr(p, "ds_tensor", None))]
    weights += [*getattr(wrapped, "bit16_groups_flat", []), getattr(wrapped, "lp_param_buffer", None)]
    live = counter.blocks_of(weights)
    return live, counter.blocks_of([*states, *masters]) - live


def make_store(folder: Path, rows: int, length: int, vocabulary: int) -> Path:
    """Write a store of `rows` examples of random tokens, each `length` long; returns its folder."""
    facts = TokenizerFacts("memory", pad_id=0, vocab_size=vocabulary, emits_token_types=True, max_length=length)
    lengths, generator = np.full(rows, length, np.int32), np.random.default_rng(0)
    with StoreWriter(folder, "0123456789abcdef" * 4, facts, "int64", "memory") as writer:
        tokens = generator.integers(5, vocabulary, rows * length).astype(np.uint32)
        writer.begin_split("train").append(tokens, lengths, lengths // 2, np.zeros(rows, np.int64))
        writer.end_split("train")
        return writer.publish("memory")


if __name__ == "__main__":
    found = measure(json.loads(sys.argv[1]))
    show(json.dumps({"rank": int(os.environ.get("RANK", "0")), **found}))
