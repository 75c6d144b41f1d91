"""Tokenizes texts and computes their logits: one model, one device, one layout of batches.

Shape suffixes: S sequences of a batch, N rows of a window, C outputs of the head.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ftsys.cpus.onednn import bound_kernel_caches
from ftsys.data.batching.collate import to_device
from ftsys.data.batching.loader import BatchMaker
from ftsys.data.batching.plan import plan_evaluation, plan_padded
from ftsys.data.store.in_memory import TokenizedSplit
from ftsys.data.tokenize.pipeline import library_threads
from ftsys.data.tokenize.tokenizer import Encoded, TextTokenizer, check_fit, load_tokenizer
from ftsys.errors import ConfigError
from ftsys.kernels.select import why_not_fast
from ftsys.models.inputs import model_inputs
from ftsys.models.onednn.inference import prepack
from ftsys.score.load import Layout, find_layout, load_classifier
from ftsys.score.model import FoundModel
from ftsys.train.planning import rank_world

ROWS_PER_CALL = 512
"""Rows that the tokenizer's library gets at once: its results take many times the memory of the arrays made of them."""
BATCH_TOKENS = {"cpu": 4_096, "cuda": 32_768}
"""Tokens of a batch by default, by the type of device."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
NO_TOKENS = "its text is empty and the tokenizer adds no token of its own, so there is nothing to score"
_PROOF_WORDS = (3, 12, 30, 60)
Agreed = Callable[[Callable[[], None]], None]


def _alone(work: Callable[[], None]) -> None:
    work()


class Engine:
    """Tokenizes rows and computes their logits.

    Any number of threads may call `encode` and `logits`, each with a window of its own. Only one of them computes at a
    time: the packed view holds the layout of one batch.
    """

    def __init__(
        self, found: FoundModel, device: str = "auto", precision: str = "auto", agreed: Agreed = _alone
    ) -> None:
        """Load tokenizer and model. Raises ConfigError for a model, a device or a precision that cannot be used.

        `agreed` calls what each of several ranks does by itself, and raises the error of one rank on all of them.
        """
        agreed(partial(self._load, found, device, precision))
        # The layout is proved in float32 also where bf16 computes: rounding hides no difference then.
        self.layout: Layout = find_layout(self._model, self._proof_rows())
        self._model.to(PRECISIONS[self.precision])
        if self.device.type == "cpu":
            bound_kernel_caches(os.environ)
            prepack(self._model)
        self._computing = Lock()

    def _load(self, found: FoundModel, device: str, precision: str) -> None:
        self.device, self.precision = _device(device), precision_of(precision)
        self.tokenizer: TextTokenizer = load_tokenizer(found.folder, found.max_length, found.trust_remote_code)
        check_fit(self.tokenizer.facts, found.folder)
        self._model = load_classifier(found, self.device)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out, which cannot be copied: a copy has its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_computing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _computing=Lock())

    @property
    def batch_tokens(self) -> int:
        """The default number of tokens in a batch on this device."""
        return BATCH_TOKENS[self.device.type]

    @property
    def kernel(self) -> str:
        """The name of the attention kernel; "" where the model's own attention computes padded rows."""
        return "" if self.layout.view is None else self.layout.view.kernel

    def notes(self) -> list[str]:
        """Return what was chosen for the user: precision and layout, and why a slower way was taken."""
        chosen = f"{self.precision} on {self.device}, batches are {self.layout.name}"
        chosen += f": {self.layout.reason}" if self.layout.reason else ""
        slow = why_not_fast(self.device.type) if self.kernel else None
        return [chosen, *([f"attention kernel {self.kernel!r}: {slow}"] if slow else [])]

    def encode(self, first: Sequence[str], second: Sequence[str] | None) -> TokenizedSplit:
        """Tokenize N rows, or N pairs if `second` is given."""
        parts = []
        with library_threads():
            for start in range(0, len(first), ROWS_PER_CALL):
                rows = slice(start, start + ROWS_PER_CALL)
                parts.append(self._encoded(first[rows], None if second is None else second[rows]))
        return _as_split(parts, self.tokenizer)

    def _encoded(self, first: Sequence[str], second: Sequence[str] | None) -> Encoded:
        return self.tokenizer.flatten(self.tokenizer.tokenize(first, second))

    def logits(self, split: TokenizedSplit, batch_tokens: int) -> npt.NDArray[np.float32]:
        """Return the logits (N, C) of a window's rows, in their order. Batches depend on the window's lengths alone.

        Raises ConfigError if the model gives numbers that are not finite.
        """
        make = BatchMaker(split, self.layout.view is not None, self.layout.side or "right")
        plan = self._plan(split.lengths, batch_tokens)
        found = []
        with torch.no_grad(), self._computing:
            for rows_S in plan:
                batch = to_device(make(rows_S), self.device)
                outputs = self._model(**model_inputs(batch, self.layout.view))
                found.append(outputs.logits[: len(rows_S)].float())  # a packed batch may end with fillers
        logits_NC = torch.cat(found).cpu().numpy()
        if not np.isfinite(logits_NC).all():
            raise ConfigError(
                f"the model's logits are not finite in {self.precision}, so they are no scores. Use fp32 as the "
                "precision; if it is in use already, the model's weights are damaged."
            )
        ordered = np.empty_like(logits_NC)
        ordered[np.concatenate(plan)] = logits_NC
        return ordered

    def _plan(self, lengths: npt.NDArray[np.int32], tokens: int) -> list[npt.NDArray[np.int64]]:
        if self.layout.view is not None:
            return plan_evaluation(lengths, tokens)
        return plan_padded(lengths, tokens, equal=not self.layout.side)

    def _proof_rows(self) -> TokenizedSplit:
        """Return rows of several lengths, the same everywhere."""
        words = "the quick brown fox jumps over a lazy dog while 37 other animals look on and wonder why".split()
        texts = [" ".join(words[at % len(words)] for at in range(count)) for count in _PROOF_WORDS]
        return self.encode(texts, [text[::2] for text in texts])


def precision_of(asked: str) -> str:
    """Return "fp32" or "bf16": `asked`, or for "auto" bf16 where the device gains by it. Raises ConfigError.

    A CPU is asked by measuring, so the answer may be another one at another time.
    """
    if asked == "auto":
        return "bf16" if rank_world(measured=True).bf16_supported else "fp32"
    if asked not in PRECISIONS:
        raise ConfigError(f"precision {asked!r} is not known. Use 'auto' or one of {sorted(PRECISIONS)}.")
    return asked


def _device(asked: str) -> torch.device:
    """Return the device: `asked`, or for "auto" this rank's GPU, else the CPU. Raises ConfigError."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if asked == "auto":
        asked = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ConfigError(f"device {asked!r} is not a device: write cpu, cuda or cuda:0.") from error
    devices = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type not in BATCH_TOKENS or (device.type == "cuda" and (device.index or 0) >= devices):
        raise ConfigError(f"device {asked!r} is not available here. Use 'auto' or 'cpu'.")
    return device


def _as_split(parts: Sequence[Encoded], tokenizer: TextTokenizer) -> TokenizedSplit:
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return TokenizedSplit(
        "window",
        tokenizer.facts,
        np.concatenate([part.tokens for part in parts]),
        starts,
        lengths,
        np.concatenate([part.first_lengths for part in parts]),
        np.zeros(len(lengths), np.int64),
        labelled=False,
    )
