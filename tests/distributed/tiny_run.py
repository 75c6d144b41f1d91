"""A tiny store, a tiny BERT without dropout, and our Trainer on them: what the tests of a whole run share."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction

from ftsys.data.store.index import TokenizerFacts
from ftsys.data.store.reader import Store, StoreSplit
from ftsys.data.store.writer import StoreWriter

ROWS = {"train": 46, "validation": 23, "test": 7}
VOCABULARY, LONGEST = 97, 24
SAME_LOSS = 1e-5
"""Largest relative distance of two float32 losses that differ only in the order of sums.

Adam divides a gradient by its own size in the first steps, so rounding can turn the sign of an update where the
gradient is near zero. How far that carries depends on the processor: 2.3e-6 was seen.
"""
FACTS = TokenizerFacts("tiny", pad_id=0, vocab_size=VOCABULARY, emits_token_types=True, max_length=LONGEST)


def make_store(root: Path, seed: int = 0, label_type: str = "int64") -> Path:
    """A store of random token ids whose label is whether the first token is odd; the test split has no labels.

    With the label type "(3,)int8" the labels are the last three bits of the first token.
    """
    generator = np.random.default_rng(seed)
    several = np.dtype(label_type).shape != ()
    with StoreWriter(root, "0123456789abcdef" * 4, FACTS, label_type, "token") as writer:
        for name, rows in ROWS.items():
            lengths = generator.integers(2, LONGEST + 1, rows).astype(np.int32)
            tokens = generator.integers(1, VOCABULARY, lengths.sum()).astype(np.uint16)
            starts = np.concatenate([[0], lengths.cumsum()[:-1]])
            labels = (tokens[starts] % 2).astype(np.int64)
            if several:
                labels = (tokens[starts][:, None] >> np.arange(3) & 1).astype(np.int8)
            labels = labels if name != "test" else np.full_like(labels, -1)
            writer.begin_split(name).append(tokens, lengths, (lengths + 1) // 2, labels)
            writer.end_split(name)
        return writer.publish("tiny")


def tiny_bert(seed: int = 0, dropout: float = 0.0, labels: int = 2) -> BertForSequenceClassification:
    """Two layers of width 16; the same weights for the same seed."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
        num_labels=labels,
    )
    return BertForSequenceClassification(config)


def accuracy(found: EvalPrediction) -> dict[str, float]:
    said = found.predictions > 0 if found.label_ids.ndim == 2 else found.predictions.argmax(-1)
    return {"accuracy": float((said == found.label_ids).mean())}


def deepspeed_settings(stage: int, precision: str) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16", "initial_scale_power": 8, "hysteresis": 1},
        "zero_optimization": {"stage": stage},
    }


def make_trainer(store: Path, scratch: Path, **options: Any) -> Any:
    """Our Trainer on the store. Options: stage (None: no DeepSpeed), precision, global_size, micro_tokens, max_steps,
    model (a tiny BERT), checkpointer, hooks, class_weights, and any other TrainingArguments field."""
    from ftsys.train.deepspeed_setup import prepare_deepspeed
    from ftsys.train.trainer.arguments import TrainingArguments
    from ftsys.train.trainer.trainer import Trainer

    stage, precision = options.pop("stage", None), options.pop("precision", "fp32")
    model = options.pop("model", None) or tiny_bert()
    parts = {name: options.pop(name) for name in ("checkpointer", "hooks", "class_weights") if name in options}
    if stage is not None:
        prepare_deepspeed()
        options |= {"deepspeed": deepspeed_settings(stage, precision), "per_device_train_batch_size": 1}
    settings: dict[str, Any] = {
        "use_cpu": True,
        "bf16": precision == "bf16" and stage is not None,
        "fp16": precision == "fp16",
        "master_weights": precision == "bf16" and stage is None,
        "learning_rate": 1e-3,
        "max_steps": 5,
        "global_batch_size": 10,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "seed": 3,
    }
    splits = Store.open(store).splits
    arguments = TrainingArguments(output_dir=str(scratch), **(settings | options))
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        compute_metrics=accuracy,
        **parts,
    )


def train_and_evaluate(store: Path, scratch: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Losses and gradient norms step by step, evaluation metrics, and the predictions of the unlabelled split."""
    trainer = make_trainer(store, scratch, **options)
    trainer.train()
    history = trainer.state.log_history
    return {
        "losses": [line["loss"] for line in history if "loss" in line],
        "norms": [line.get("grad_norm") for line in history if "loss" in line],
        "metrics": {key: value for key, value in trainer.evaluate().items() if key in ("eval_loss", "eval_accuracy")},
        "logits": trainer.predict(Store.open(store).splits["test"]).predictions,
    }


def padded(split: StoreSplit, ids: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows of a split as a stock padded batch, built one example at a time."""
    rows = [split[int(index)] for index in ids]
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        key: torch.tensor([row[key] + [0] * (longest - len(row[key])) for row in rows])
        for key in ("input_ids", "attention_mask", "token_type_ids")
    }
    return batch, torch.tensor([row["labels"] for row in rows])


def reference_losses(
    store: Path,
    steps: int,
    global_size: int,
    seed: int,
    criterion: Any = torch.nn.functional.cross_entropy,
    labels: int = 2,
) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a plain float64 loop in one process: padded, eager, no Trainer, no engine."""
    from ftsys.data.batching.plan import plan_epoch

    split = Store.open(store).splits["train"]
    model = tiny_bert(labels=labels).double().train()
    model.set_attn_implementation("eager")
    decayed = [p for name, p in model.named_parameters() if not name.endswith("bias") and "LayerNorm" not in name]
    others = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others}], lr=1e-3, weight_decay=0.0)
    losses: list[float] = []
    norms: list[float] = []
    plans = [plan_epoch(split.lengths, seed, epoch, global_size=global_size) for epoch in range(3)]
    batches = [plan.step(k) for plan in plans for k in range(len(plan))][:steps]
    for step, ids in enumerate(batches):
        inputs, known = padded(split, ids)
        loss = criterion(model(**inputs).logits, known.double() if known.is_floating_point() else known)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (steps - step) / steps
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms
