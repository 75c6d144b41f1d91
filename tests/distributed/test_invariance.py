"""Every architecture, however its global batch is split: the same losses, gradient norms and evaluation.

The normal suite takes a sample in which every architecture meets one split; all splits of all of them are long, and
with FTSYS_RECORD=1 leave their counts and the largest differences in benchmarks/results.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.distributed.tiny_run import SAME_LOSS, VOCABULARY, make_store, train_and_evaluate
from tests.distributed.worlds import World
from tests.parity.models.tiny_models import SMALL, VARIANTS

RANKS, STAGES, MICRO_TOKENS = (1, 2, 3, 4), (None, 0, 1, 2, 3), (10_000, 60, 30)
"""Micro-batches: a whole share, about two, about four a step."""

SPLITS = [split for split in itertools.product(RANKS, STAGES, MICRO_TOKENS) if split != (1, None, 10_000)]
SAMPLE = [(2, None, 60), (3, None, 30), (2, 1, 60), (2, 2, 30), (3, 0, 60), (3, 2, 10_000), (2, 3, 60), (3, 3, 30)]


def sampled() -> Iterator[Any]:
    """Each architecture with one split of the sample, each split with several architectures."""
    for index, variant in enumerate(VARIANTS):
        chosen = SAMPLE[index % len(SAMPLE)]
        yield pytest.param(variant, chosen, id=f"{variant}-{'-'.join(map(str, chosen))}")


def model_of(variant: str) -> Any:
    """A two-layer model of the variant in float32, without dropout; the same weights at each call."""
    model_type, own = VARIANTS[variant]
    known = AutoConfig.for_model(model_type).to_dict()
    settings = {key: value for key, value in SMALL.items() if key in known}
    settings |= {"vocab_size": VOCABULARY, "pad_token_id": 0}
    rates = {key: 0.0 for key, value in known.items() if "dropout" in key and isinstance(value, int | float)}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, num_labels=2, **(settings | own | rates))
    return AutoModelForSequenceClassification.from_config(config)


def train_variant(store: Path, scratch: Path, variant: str, stage: int | None, micro_tokens: int) -> dict[str, Any]:
    options = {"model": model_of(variant), "stage": stage, "micro_tokens": micro_tokens}
    return train_and_evaluate(store, scratch, options)


@pytest.fixture(scope="module")
def alone(
    world: Callable[[int], World], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """The store, and what one rank finds with a whole share at once, by variant; computed once."""
    store, found = make_store(tmp_path_factory.mktemp("stores")), dict[str, dict[str, Any]]()

    def of(variant: str) -> tuple[Path, dict[str, Any]]:
        if variant not in found:
            scratch = tmp_path_factory.mktemp("alone")
            found[variant] = world(1).run(train_variant, store, scratch, variant, None, 10_000)[0]
        return store, found[variant]

    return of


class Tally:
    """What all checks of the long test saw."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.largest: dict[str, float] = {}

    def note(self, split: tuple[int, int | None, int], found: dict[str, Any], expected: dict[str, Any]) -> None:
        """A rank's finding that passed."""
        self.cases[f"{split[0]} ranks, {'DDP' if split[1] is None else f'ZeRO {split[1]}'}"] += 1
        for name in ("losses", "norms"):
            if None not in found[name]:
                apart = np.abs(np.array(found[name]) / np.array(expected[name]) - 1).max()
                self.largest[name] = max(self.largest.get(name, 0.0), float(apart))

    def record(self) -> None:
        """Write benchmarks/results/invariance-*.json."""
        from ftsys.bench.harness.record import DEFAULT_FOLDER, Measurement, write_record

        measured = {f"largest distance of {name}": Measurement.of([far], "share") for name, far in self.largest.items()}
        counts = {"architectures": len(VARIANTS), "splits": len(SPLITS), "ranks' findings": dict(self.cases)}
        write_record(DEFAULT_FOLDER, "invariance", measured, {}, counts)


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    found, failed = Tally(), request.session.testsfailed
    yield found
    if os.environ.get("FTSYS_RECORD") and request.session.testsfailed == failed:
        found.record()


def check(
    world: Callable[[int], World],
    alone: Any,
    scratch: Path,
    variant: str,
    split: tuple[int, int | None, int],
    tally: Tally | None = None,
) -> None:
    """Hold what every rank finds under a split against what one rank finds alone."""
    ranks, stage, micro_tokens = split
    store, expected = alone(variant)
    for found in world(ranks).run(train_variant, store, scratch, variant, stage, micro_tokens):
        np.testing.assert_allclose(found["losses"], expected["losses"], rtol=SAME_LOSS)
        if any(norm is not None for norm in found["norms"]):  # DeepSpeed tells none at fp32 stage 0
            np.testing.assert_allclose(found["norms"], expected["norms"], rtol=2e-4)
        assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-3, atol=1e-4)
        if tally is not None:
            tally.note(split, found, expected)


@pytest.mark.parametrize(("variant", "split"), [*sampled()])
def test_an_architecture_does_not_see_the_split(
    world: Callable[[int], World], alone: Any, tmp_path: Path, variant: str, split: tuple[int, int | None, int]
) -> None:
    check(world, alone, tmp_path, variant, split)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_split_is_seen_by_any_architecture(
    world: Callable[[int], World], alone: Any, tmp_path: Path, tally: Tally, variant: str
) -> None:
    for split in SPLITS:
        check(world, alone, tmp_path, variant, split, tally)
