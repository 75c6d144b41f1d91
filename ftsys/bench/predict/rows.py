"""Makes pairs of text in three shapes: as MRPC's, mostly short with a few of the largest length, and all long."""

from collections.abc import Callable, Iterator

import numpy as np

from ftsys.bench.harness.inputs import read_pairs

Row = tuple[str, str]
SHAPES = {"pairs": 1024, "mixed": 2048, "long": 128}
"""Shape -> rows of a block by default, so that a block takes about ten seconds on two CPU cores."""
DESCRIPTIONS = {
    "pairs": "pairs like MRPC's, each with a number of its own",
    "mixed": "90% of the pairs have few words, 9% have 100 tokens, 1% have more than 512, to which they are cut",
    "long": "every pair has 400 tokens",
}


def make_rows(shape: str, count: int, tokens_of: Callable[[str], int]) -> list[Row]:
    """Return `count` pairs of a shape; `tokens_of` counts the tokens of a text without special ones. Seeded."""
    if shape == "pairs":
        return list(_pairs(count))
    words = " ".join(first for first, _ in _pairs(200)).split()
    draw = np.random.default_rng(0)
    if shape == "long":
        return [_of_length(words, draw, 397, tokens_of) for _ in range(count)]
    kinds = draw.choice(3, count, p=(0.9, 0.09, 0.01))
    return [_of_length(words, draw, (int(draw.integers(4, 16)), 100, 600)[kind], tokens_of) for kind in kinds]


def _pairs(count: int) -> Iterator[Row]:
    """Yield the pairs of the sample again and again, with a number in each, so that no two rows are the same."""
    pairs = read_pairs().of["train"].taken(count)
    for number, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        yield f"{first} {number}", second


def _of_length(words: list[str], draw: np.random.Generator, tokens: int, tokens_of: Callable[[str], int]) -> Row:
    """Return a pair of about `tokens` tokens, one third of them in the first text; exact for more than 50."""
    texts: list[str] = []
    for share in (tokens // 3, tokens - tokens // 3):
        text = " ".join(draw.choice(words, share))
        while (over := tokens_of(text) - share) > 0:
            text = " ".join(text.split()[: -max(1, over // 2)])
        texts.append(text + " ." * max(0, share - tokens_of(text)))
    return texts[0], texts[1]
