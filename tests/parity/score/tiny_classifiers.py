"""Saves tiny classifiers of every packed family with a tokenizer, and computes their scores with stock transformers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PhobertTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tests.parity.models.tiny_models import PAD, VARIANTS, longest_row, small_model

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORDS = "a the cat dog sat on mat red hen saw no one it was not that they had gone by far more than we who said".split()
TEXTS = (
    *("the cat sat on the mat", "a", "no one saw that red hen , and it was gone", "dog", "they said that we had gone"),
    *("not by far", "", "who who who who who who who who who who who who who who who who who who who who", "a dog"),
)
PAIRS = [(text, TEXTS[(at + 3) % len(TEXTS)]) for at, text in enumerate(TEXTS)]


def save_classifier(
    folder: Path, variant: str, labels: int = 3, problem: str | None = None, slow: bool = False
) -> None:
    """Save a float32 model of the variant and a tokenizer, in Python only if `slow`."""
    model = small_model(variant, labels, problem).float()
    model.save_pretrained(folder)
    types = VARIANTS[variant][1].get("type_vocab_size", 0) > 1
    tokenizer = _slow_tokenizer(folder) if slow else _fast_tokenizer(types)
    tokenizer.model_max_length = longest_row(variant)
    tokenizer.save_pretrained(folder)


def _fast_tokenizer(types: bool) -> PreTrainedTokenizerBase:
    vocabulary = {word: at for at, word in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    second = 1 if types else 0
    pair = f"<s>:0 $A:0 </s>:0 $B:{second} </s>:{second}"
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=ends)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_input_names=names,
    )  # fmt: skip


def _slow_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A byte-pair tokenizer that transformers implements in Python, which knows whole words only."""
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in WORDS))
    (folder / "bpe.codes").write_text("#version: 0.2\nc a 1\nca t</w> 1\n")
    tokenizer: PreTrainedTokenizerBase = PhobertTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))
    assert tokenizer.pad_token_id == PAD
    return tokenizer


def stock_logits(folder: Path, rows: Sequence[tuple[str, ...]]) -> npt.NDArray[np.float32]:
    """Return the logits (N, C) of one padded batch by the stock model."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [list(column) for column in zip(*rows, strict=True)]
    inputs = tokenizer(
        *texts, padding=True, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = model(**inputs).logits.numpy()
    return logits
