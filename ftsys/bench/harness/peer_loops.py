"""Runs a peer in its own process: real training loops and predictions, cut into blocks. Imports every library."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_from_disk
from torch import distributed, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainerCallback,
    get_scheduler,
)
from transformers import Trainer as StockTrainer
from transformers import TrainingArguments as StockArguments

from ftsys.bench.harness.our_trainer import our_predictor, our_trainer
from ftsys.bench.harness.peers import Spec
from ftsys.bench.harness.turns import Channel, Finished, Turns, block_figures
from ftsys.data.store.reader import Store
from ftsys.tasks import GLUE
from ftsys.train.perf.matmul_rate import matmul_rate
from ftsys.train.setup import metrics_of
from ftsys.train.trainer.training_step import parameters_outside_embeddings

MANY_STEPS = 1_000_000
"""More steps than any measurement takes: the learning rate's schedule needs a number."""

LEARNING_RATE = 5e-5
_TEXTS = ["sentence1", "sentence2"]


class BeginStep(TrainerCallback):
    """Makes any Trainer wait for its turn at the start of a step."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call `Turns.begin_step`."""
        self._turns.begin_step()


class PaddedCounter:
    """Counts the real tokens and examples of padded batches; sums stay on the device until they are read."""

    def __init__(self, model: nn.Module) -> None:
        """Hook the forward pass of the encoder in `model`."""
        self._tokens, self._examples = 0, 0
        self._pending: list[torch.Tensor] = []
        # Hooks the encoder and not the classifier, because CrossEncoder calls the classifier's `forward` without hooks.
        whole = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
        whole.base_model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, module: nn.Module, words: Any, named: dict[str, Any]) -> None:
        self._pending.append(named["attention_mask"].sum())
        self._examples += len(named["attention_mask"])

    def __call__(self) -> tuple[int, int]:
        """Return (tokens, examples) so far."""
        self._tokens += sum(int(count) for count in self._pending)
        self._pending.clear()
        return self._tokens, self._examples


def wait_for_device() -> None:
    """Wait until the GPU has finished its work, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# Loops of optimizer steps


def run_steps(spec: Spec, channel: Channel) -> None:
    """Run blocks of `spec.steps` optimizer steps of the peer's own loop."""
    _STEPS[spec.recipe.how](spec, channel)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _turns(spec: Spec, channel: Channel, done: Callable[[], tuple[int, int]]) -> Turns:
    return Turns(channel, spec.steps, done, wait_for_device, spec.seconds)


def _our_steps(spec: Spec, channel: Channel) -> None:
    trainer = our_trainer(spec, max_steps=MANY_STEPS)
    meter, packing = trainer.parts.step.meter, trainer.parts.packing
    turns = _turns(spec, channel, lambda: (meter.total_tokens, meter.total_examples))
    kernel = packing.view.kernel if packing.view is not None else f"padded, because {packing.padded_because}"
    _train(trainer, turns, channel, kernel=kernel)


def _stock_steps(spec: Spec, channel: Channel) -> None:
    trainer = stock_trainer(spec, max_steps=MANY_STEPS)
    _train(trainer, _turns(spec, channel, PaddedCounter(trainer.model)), channel)


def _cross_encoder_steps(spec: Spec, channel: Channel) -> None:
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import CrossEntropyLoss

    model = CrossEncoder(spec.model, num_labels=2, max_length=_longest(spec), device=_device(), trust_remote_code=False)
    arguments = CrossEncoderTrainingArguments(**_stock_settings(spec), max_steps=MANY_STEPS)
    texts = load_from_disk(spec.stock)["train"].select_columns([*_TEXTS, "label"])
    trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=texts, loss=CrossEntropyLoss(model))
    _train(trainer, _turns(spec, channel, PaddedCounter(model)), channel)


def _train(trainer: Any, turns: Turns, channel: Channel, **facts: Any) -> None:
    trainer.add_callback(BeginStep(turns))
    channel.answer(facts_of(trainer.model) | facts)
    try:
        trainer.train()
    except Finished:
        return


def _accelerate_steps(spec: Spec, channel: Channel) -> None:
    """Run the loop of accelerate's own guide: prepare, then forward, backward, clip, step, schedule."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    accelerator = Accelerator(mixed_precision="bf16" if spec.precision == "bf16" else "no", cpu=_on_cpu())
    model: Any = _model(spec)
    tokens = load_from_disk(spec.stock)["train"].remove_columns(_TEXTS)
    loader: Any = DataLoader(tokens, batch_size=spec.examples, shuffle=True, collate_fn=_collator(spec))
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule: Any = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=MANY_STEPS)
    turns = _turns(spec, channel, PaddedCounter(model))
    channel.answer(facts_of(model))
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    model.train()
    try:
        while True:
            for batch in loader:
                turns.begin_step()
                accelerator.backward(model(**batch).loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    except Finished:
        return


_STEPS: dict[str, Callable[[Spec, Channel], None]] = {
    "ours": _our_steps,
    "stock": _stock_steps,
    "accelerate": _accelerate_steps,
    "cross-encoder": _cross_encoder_steps,
}


# Whole trainings, predictions, and the machine itself


def run_trainings(spec: Spec, channel: Channel) -> None:
    """Run blocks of one whole training with a new model and Trainer; their loading is not timed."""
    tokens = int(Store.open(spec.store).splits["train"].total_tokens) * spec.epochs
    make = our_trainer if spec.recipe.how == "ours" else stock_trainer
    channel.answer({})
    while channel.turn():
        trainer = make(spec, epochs=spec.epochs)
        wait_for_device()
        start = time.perf_counter()
        trainer.train()
        wait_for_device()
        seconds, steps = time.perf_counter() - start, trainer.state.global_step
        losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
        examples = len(trainer.train_dataset) * spec.epochs
        last = {"eval_loss": losses[-1]} if losses else {}
        channel.answer(block_figures(seconds, tokens, examples, steps) | facts_of(trainer.model) | last)
        del trainer
        gc.collect()


def run_predictions(spec: Spec, channel: Channel) -> None:
    """Run blocks of one `predict` of the whole split."""
    split = Store.open(spec.store).splits[spec.split]
    ours = spec.recipe.how == "ours"
    data = split if ours else load_from_disk(spec.stock)[spec.split]
    trainer = our_predictor(spec) if ours else stock_trainer(spec, max_steps=1)
    channel.answer(facts_of(trainer.model))
    while channel.turn():
        start = time.perf_counter()
        found = trainer.predict(data)
        wait_for_device()
        seconds = time.perf_counter() - start
        assert np.shape(found.predictions)[0] == len(split)
        channel.answer(block_figures(seconds, split.total_tokens, len(split), 1))


def run_matmul(spec: Spec, channel: Channel) -> None:
    """Run blocks that measure the device's matrix products, in FLOP/s: "flops" in bf16, "fp32_flops" in fp32."""
    device = torch.device(_device())
    channel.answer({"threads": torch.get_num_threads(), "device": str(device)})
    while channel.turn():
        start = time.perf_counter()
        rates = {"flops": matmul_rate(torch.bfloat16, device), "fp32_flops": matmul_rate(torch.float32, device)}
        channel.answer({**rates, **block_figures(time.perf_counter() - start, 0, 0, 1)})


MODES: dict[str, Callable[[Spec, Channel], None]] = {
    "step": run_steps,
    "train": run_trainings,
    "eval": run_predictions,
    "matmul": run_matmul,
}


def stock_trainer(spec: Spec, max_steps: int = -1, epochs: int = 1) -> StockTrainer:
    """Create transformers' own Trainer on the same tokens, with the recipe of `spec.peer`."""
    evaluates = max_steps < 0 and spec.evaluates
    arguments = StockArguments(
        **_stock_settings(spec),
        max_steps=max_steps,
        num_train_epochs=epochs,
        eval_strategy="epoch" if evaluates else "no",
        per_device_eval_batch_size=spec.recipe.batch,
        bf16_full_eval=spec.recipe.whole_in_bf16,
        train_sampling_strategy="group_by_length" if spec.recipe.length_grouped else "random",
    )
    data = load_from_disk(spec.stock)
    return StockTrainer(
        model=_model(spec),
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"] if evaluates else None,
        data_collator=_collator(spec),
        processing_class=AutoTokenizer.from_pretrained(spec.model, trust_remote_code=False),
        compute_metrics=metrics_of(GLUE["mrpc"]),
    )


def _stock_settings(spec: Spec) -> dict[str, Any]:
    return {
        "output_dir": spec.work,
        "per_device_train_batch_size": spec.examples,
        "learning_rate": LEARNING_RATE,
        "bf16": spec.precision == "bf16",
        "use_cpu": _on_cpu(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _model(spec: Spec) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(spec.model, num_labels=2, trust_remote_code=False)


def _collator(spec: Spec) -> DataCollatorWithPadding:
    return DataCollatorWithPadding(AutoTokenizer.from_pretrained(spec.model, trust_remote_code=False))


def facts_of(model: nn.Module) -> dict[str, Any]:
    """Return the parameters outside the embeddings, for useful FLOP/s, and the threads of this process."""
    return {"parameters": parameters_outside_embeddings(model), "threads": torch.get_num_threads()}


def _longest(spec: Spec) -> int:
    return Store.open(Path(spec.store)).tokenizer.max_length


def _on_cpu() -> bool:
    return not torch.cuda.is_available()


def _device() -> str:
    return "cpu" if _on_cpu() else "cuda"
