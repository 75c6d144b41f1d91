"""Scores pairs in each peer's own way, from texts to the scores of all classes in the rows' order.

Every peer gets its best: the number of rows in a batch is the fastest of a few, and where the peer does not sort rows
by length itself, they are sorted for it.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ftsys.bench.predict.rows import Row
from ftsys.score.classifier import Classifier

Scores = npt.NDArray[Any]
Score = Callable[[Sequence[Row]], Scores]
Sized = Callable[[Sequence[Row], int], Scores]
BATCHES = (16, 64)
TRIED_ROWS = 96
"""Rows on which the number of rows in a batch is chosen."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ours(folder: Path, precision: str) -> Score:
    """Return ftsys' own scoring."""
    classifier = Classifier(folder, precision=precision)
    return lambda rows: classifier.predict(rows).scores


def pipeline(folder: Path, precision: str) -> Sized:
    """Return transformers' text-classification pipeline, with rows sorted by length."""
    import transformers

    how = {"dtype": DTYPES[precision], "device": "cpu", "top_k": None}
    pipe = transformers.pipeline("text-classification", model=str(folder), trust_remote_code=False, **how)
    names = [pipe.model.config.id2label[at] for at in range(pipe.model.config.num_labels)]

    def score(rows: Sequence[Row], batch: int) -> Scores:
        order = by_length(rows)
        texts = [{"text": rows[at][0], "text_pair": rows[at][1]} for at in order]
        found = [
            {each["label"]: each["score"] for each in row} for row in pipe(texts, batch_size=batch, truncation=True)
        ]
        return in_order(np.array([[row[name] for name in names] for row in found]), order)

    return score


def cross_encoder(folder: Path, precision: str) -> Sized:
    """Return CrossEncoder.predict of sentence-transformers, which sorts rows itself."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": DTYPES[precision]}, trust_remote_code=False)

    def score(rows: Sequence[Row], batch: int) -> Scores:
        found: Scores = model.predict(
            list(rows), batch_size=batch, activation_fn=torch.nn.Softmax(dim=-1), show_progress_bar=False
        )
        return found

    return score


def trainer(folder: Path, precision: str) -> Sized:
    """Return the stock Trainer's `predict`, with rows sorted by length, tokenized at once by the fast tokenizer."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=DTYPES[precision], trust_remote_code=False)

    def score(rows: Sequence[Row], batch: int) -> Scores:
        order = by_length(rows)
        first, second = ([rows[at][side] for at in order] for side in (0, 1))
        encoded = tokenizer(first, second, truncation=True)
        data = [{name: values[at] for name, values in encoded.items()} for at in range(len(rows))]
        with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as scratch:  # a Trainer makes its output folder
            arguments = TrainingArguments(
                scratch, per_device_eval_batch_size=batch, report_to="none", disable_tqdm=True, use_cpu=True,
                bf16_full_eval=precision == "bf16",
            )  # fmt: skip
            stock = Trainer(model, arguments, data_collator=DataCollatorWithPadding(tokenizer))
            logits = torch.from_numpy(stock.predict(data).predictions).float()
        return in_order(logits.softmax(-1).numpy(), order)

    return score


SIZED: dict[str, Callable[[Path, str], Sized]] = {
    "pipeline": pipeline,
    "cross-encoder": cross_encoder,
    "trainer": trainer,
}
OURS = "ours"
NEEDS = {"cross-encoder": "sentence_transformers"}
PEERS = (OURS, *SIZED)


def missing(peer: str) -> str | None:
    """Return a line on a peer whose package is not installed; None for any other."""
    package = NEEDS.get(peer)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"{peer}: left out, because {package} is not installed (pip install 'ftsys[bench]')"


def scorer(peer: str, folder: Path, precision: str, rows: Sequence[Row]) -> tuple[Score, int | None]:
    """Return a peer's scoring, with the rows of a batch that are the fastest for such `rows` (None for ours)."""
    if peer == OURS:
        return ours(folder, precision), None
    sized = SIZED[peer](folder, precision)
    tried = rows[:: max(1, len(rows) // TRIED_ROWS)]
    sized(tried[:8], 8)
    seconds = {batch: _seconds(partial(sized, tried, batch)) for batch in BATCHES}
    best = min(seconds, key=seconds.__getitem__)
    return lambda rows: sized(rows, best), best


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def by_length(rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    """Return the rows' indexes, longest texts first."""
    return np.argsort([-len(first) - len(second) for first, second in rows], kind="stable")


def in_order(scores: Scores, order: npt.NDArray[np.int64]) -> Scores:
    """Return scores, which are in `order`, in the order of the rows."""
    found = np.empty_like(scores)
    found[order] = scores
    return found
